"""The one table from error to HTTP status, and the JSON text of a failure.

Owns: status, extra headers and extra fields per leaf of the error tree (docs/errors.md is made from this table).
Does not own: the errors themselves (``domain/errors``).
"""

from __future__ import annotations

from tornado_backups.domain import errors
from tornado_backups.domain.errors import BackupError, RequestError

STATUS: dict[type[RequestError], int] = {
    errors.BadRequest: 400,
    errors.NotAuthenticated: 401,
    errors.NotAuthorized: 403,
    errors.WindowClosed: 403,
    errors.Protected: 403,
    errors.AppendOnly: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.TransferTimeout: 408,
    errors.UploadInProgress: 409,
    errors.LeaseLost: 409,
    errors.QuotaExceeded: 413,
    errors.RangeNotSatisfiable: 416,
    errors.NotEncrypted: 422,
    errors.Truncated: 422,
    errors.EmptyUpload: 422,
    errors.DigestMismatch: 422,
    errors.RateLimited: 429,
    errors.InternalError: 500,
    errors.ConfigurationFault: 500,
    errors.ObjectMissing: 500,
    errors.ObjectDamaged: 500,
    errors.StorageUnavailable: 503,
    errors.Busy: 503,
    errors.DatabaseUnavailable: 503,
    errors.ShuttingDown: 503,
    errors.StorageFull: 507,
}
"""Every leaf that can reach a client; ``UploadCancelled`` cannot, its client has gone."""

KEPT_TO_THE_LOG = (
    errors.ConfigurationFault,
    errors.StorageError,
    errors.DatabaseUnavailable,
    errors.InternalError,
)
"""Errors whose sentence may name hosts, files or keys: the log gets it, the client a general one."""

GENERAL_SENTENCES: dict[type[RequestError], str] = {
    errors.ConfigurationFault: "the configuration of this user or collection is broken; the server's log says where",
    errors.StorageUnavailable: "the storage is not available; nothing was changed, try again later",
    errors.StorageFull: "the storage has no room left; nothing was stored",
    errors.ObjectMissing: "the stored object is missing; the server's log says more",
    errors.ObjectDamaged: "the stored object is damaged; the server's log says more",
    errors.DatabaseUnavailable: "the database is not available; nothing was changed, try again later",
    errors.InternalError: "the server failed to answer this request; its log says why",
}

GO_NOT_ENCRYPTED = (
    "cannot upload version. cannot upload file, cannot copy stream, error:"
    " first chunk of uploaded data does not contain a valid GPG header"
)
"""What the Go server says, and what its users' scripts look for."""


def status_of(error: RequestError) -> int:
    """Return the HTTP status of an error; a leaf that is missing in the table is a fault of ours, so 500."""
    return STATUS.get(type(error), 500)


def headers_of(error: RequestError) -> dict[str, str]:
    """Return the headers of an error: ``Retry-After``, ``Allow``, ``Content-Range`` or ``WWW-Authenticate``."""
    retry_after = getattr(error, "retry_after_seconds", None)
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    elif isinstance(error, errors.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    elif isinstance(error, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def body_of(error: RequestError) -> dict[str, object]:
    """Return the JSON object that a client gets for an error."""
    sentence = GENERAL_SENTENCES.get(type(error), error.sentence)
    body: dict[str, object] = {"status": False, "data": {}, "error": sentence, "reason": error.reason}
    if isinstance(error, errors.NotAuthenticated):
        body |= {"code": 401, "message": sentence}
    elif isinstance(error, errors.NotEncrypted):
        body["message"] = GO_NOT_ENCRYPTED
    return body


def leaves(root: type[BackupError]) -> list[type[BackupError]]:
    """Return the classes below ``root`` that are raised: those in the table or without a subclass."""
    found = []
    for child in root.__subclasses__():
        if child in STATUS or not child.__subclasses__():
            found.append(child)
        found += leaves(child)
    return found
