"""Every error this program raises on purpose, as one tree.

Owns: the tree, each leaf's stable ``reason`` (docs/errors.md) and its typed fields.
Does not own: the HTTP status of a leaf (``web/errors.py`` holds that one table).

::

    BackupError
    ├── RequestError                      answers one request
    │   ├── BadRequest                    bad-request
    │   ├── NotAuthenticated              not-authenticated
    │   ├── Forbidden
    │   │   ├── NotAuthorized             not-authorized
    │   │   ├── WindowClosed              window-closed
    │   │   ├── Protected                 protected
    │   │   └── AppendOnly                append-only
    │   ├── NotFound                      not-found
    │   ├── MethodNotAllowed              method-not-allowed
    │   ├── TransferTimeout               timeout
    │   ├── UploadInProgress              upload-in-progress
    │   │   └── LeaseLost                 upload-in-progress
    │   ├── QuotaExceeded                 quota-exceeded
    │   ├── RangeNotSatisfiable           range-not-satisfiable
    │   ├── UploadRejected
    │   │   ├── NotEncrypted              not-encrypted
    │   │   ├── Truncated                 truncated
    │   │   ├── EmptyUpload               empty
    │   │   └── DigestMismatch            digest-mismatch
    │   ├── RateLimited                   rate-limited
    │   ├── InternalError                 internal
    │   ├── ConfigurationFault            configuration
    │   ├── UploadCancelled               (never answered: the client has gone)
    │   ├── StorageError
    │   │   ├── StorageUnavailable        storage-unavailable
    │   │   ├── StorageFull               storage-full
    │   │   ├── ObjectMissing             internal
    │   │   └── ObjectDamaged             internal
    │   └── Unavailable
    │       ├── Busy                      busy
    │       ├── DatabaseUnavailable       database-unavailable
    │       └── ShuttingDown              shutting-down
    ├── CallbackFailed                    a webhook or ping that was not delivered; never answered
    └── OperatorError                     ends a command
        ├── UsageError                    exit status 2
        └── StartupError                  exit status 1
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar


class BackupError(Exception):
    """Root of the tree; ``sentence`` is one sentence for a person and never holds a secret."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class RequestError(BackupError):
    """An error that answers a request; ``reason`` is the slug that programs may rely on.

    ``audited`` is True once whoever raised it has written it into the audit trail, in more detail than the web could.
    """

    reason: ClassVar[str] = "internal"
    audited: bool = False


class BadRequest(RequestError):
    """The request cannot be understood: unreadable JSON, a missing field, a malformed header."""

    reason = "bad-request"


class NotAuthenticated(RequestError):
    """No, an invalid, an expired or a revoked token, or a refused login; deliberately says no more."""

    reason = "not-authenticated"


class Forbidden(RequestError):
    """Known who, but not allowed; only its leaves are raised."""


class NotAuthorized(Forbidden):
    """No role of this session allows the action on this object."""

    reason = "not-authorized"


class WindowClosed(Forbidden):
    """An upload outside every backup window; ``opens_at`` is the next opening (UTC), or None when there is none."""

    reason = "window-closed"

    def __init__(self, sentence: str, opens_at: datetime | None) -> None:
        super().__init__(sentence)
        self.opens_at = opens_at


class Protected(Forbidden):
    """A version younger than the collection's ``protectFor`` would have to go; ``until`` (UTC) ends its protection."""

    reason = "protected"

    def __init__(self, sentence: str, until: datetime) -> None:
        super().__init__(sentence)
        self.until = until


class AppendOnly(Forbidden):
    """The server runs with ``--append-only``: only rotation removes versions."""

    reason = "append-only"


class NotFound(RequestError):
    """No such collection, version, session, user or path."""

    reason = "not-found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not; ``allowed`` goes into the ``Allow`` header."""

    reason = "method-not-allowed"

    def __init__(self, sentence: str, allowed: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.allowed = allowed


class TransferTimeout(RequestError):
    """The connection was idle for too long, or the whole request took longer than allowed."""

    reason = "timeout"


class UploadInProgress(RequestError):
    """Another upload holds the collection's lease."""

    reason = "upload-in-progress"


class LeaseLost(UploadInProgress):
    """This upload's lease ran out or was taken over: nothing of it may be registered any more."""


class QuotaExceeded(RequestError):
    """More bytes than the collection allows; sizes in bytes, ``declared`` tells whether they were only announced."""

    reason = "quota-exceeded"

    def __init__(self, sentence: str, size_bytes: int, allowed_bytes: int, declared: bool = False) -> None:
        super().__init__(sentence)
        self.size_bytes = size_bytes
        self.allowed_bytes = allowed_bytes
        self.declared = declared


class RangeNotSatisfiable(RequestError):
    """A ``Range`` that begins behind the end (RFC 9110, 15.5.17); ``size_bytes`` is the whole length."""

    reason = "range-not-satisfiable"

    def __init__(self, sentence: str, size_bytes: int) -> None:
        super().__init__(sentence)
        self.size_bytes = size_bytes


class UploadRejected(RequestError):
    """The body itself was refused and nothing was stored; only its leaves are raised."""


class NotEncrypted(UploadRejected):
    """The body is no OpenPGP encrypted message (RFC 9580), or holds something after its end."""

    reason = "not-encrypted"


class Truncated(UploadRejected):
    """The OpenPGP message stops before its end."""

    reason = "truncated"


class EmptyUpload(UploadRejected):
    """The body holds no byte."""

    reason = "empty"


class DigestMismatch(UploadRejected):
    """The client's SHA-256 (RFC 9530 or ``X-Content-Sha256``) is not that of the bytes received."""

    reason = "digest-mismatch"


class RateLimited(RequestError):
    """Too many requests; ``limit`` names the limit, ``retry_after_seconds`` is at least 1."""

    reason = "rate-limited"

    def __init__(self, sentence: str, limit: str, retry_after_seconds: int) -> None:
        super().__init__(sentence)
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class InternalError(RequestError):
    """A fault of ours; the log has the cause."""

    reason = "internal"


class ConfigurationFault(RequestError):
    """A user, collection or secret cannot be read.

    ``source`` is the file or object, ``line`` counts from 1 (0 when no line is known), ``what`` says what is wrong
    and ``instead`` what would be right. ``str()`` is the form that ``check-config`` prints.
    """

    reason = "configuration"

    def __init__(self, source: str, line: int, what: str, instead: str) -> None:
        super().__init__(f"{source}:{line}: {what}; {instead}" if line else f"{source}: {what}; {instead}")
        self.source = source
        self.line = line
        self.what = what
        self.instead = instead


class UploadCancelled(RequestError):
    """The client went away before the version was registered: there is nobody to answer."""


class StorageError(RequestError):
    """An operation on the object store failed: which one, on which key, why, and what may help."""

    def __init__(self, operation: str, key: str, cause: str, hint: str = "") -> None:
        super().__init__(
            f"storage: {operation} of {key or 'the storage'} failed: {cause}" + (f" ({hint})" if hint else "")
        )
        self.operation = operation
        self.key = key
        self.cause = cause
        self.hint = hint


class StorageUnavailable(StorageError):
    """The storage does not answer, refuses our credentials, or failed after all retries; worth trying again."""

    reason = "storage-unavailable"
    retry_after_seconds: ClassVar[int] = 30


class StorageFull(StorageError):
    """No room, quota or inodes left on the storage."""

    reason = "storage-full"


class ObjectMissing(StorageError):
    """The storage holds no object of that key."""


class ObjectDamaged(StorageError):
    """The object's size or bytes are not those that were registered."""


class Unavailable(RequestError):
    """Not now: the same request may succeed after ``retry_after_seconds``; only its leaves are raised."""

    def __init__(self, sentence: str, retry_after_seconds: int = 5) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class Busy(Unavailable):
    """As many uploads run as this server accepts."""

    reason = "busy"


class DatabaseUnavailable(Unavailable):
    """The registry's database does not answer."""

    reason = "database-unavailable"


class ShuttingDown(Unavailable):
    """The server drains: transfers that run may finish, new ones may not start."""

    reason = "shutting-down"


class CallbackFailed(BackupError):
    """A webhook or ping was not delivered: refused, not reached, or not answered with 2xx."""


class OperatorError(BackupError):
    """Ends a command with one line on stderr and ``exit_status``."""

    exit_status: ClassVar[int] = 1


class UsageError(OperatorError):
    """A wrong switch or value: the line names it and what is allowed."""

    exit_status = 2


class StartupError(OperatorError):
    """A database, storage, configuration, folder or port that cannot be used: the line names it."""
