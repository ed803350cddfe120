"""What the errors of botocore and of S3-compatible stores mean, and which of them are worth a second try.

Owns: the one table from S3 error codes to causes and hints.
Does not own: retrying (``storage/s3_client.py``). Imported only when an S3 store is opened. Listed in docs/storage.md.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from botocore import exceptions
from botocore.parsers import ResponseParserError

from tornado_backups.domain.errors import ObjectMissing, StorageError, StorageFull, StorageUnavailable

FAULTS: tuple[type[Exception], ...] = (
    exceptions.BotoCoreError,
    exceptions.ClientError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
    EOFError,
)
"""Everything that a call of the client may raise; anything else is a bug."""

_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws"
_REGION = "set the option region of the storage URL to the bucket's region"
_CLOCK = "set this machine's clock: it differs too much from the storage's"

HINTS = {
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AccessDenied": "the key needs to list the bucket and to get, put and delete objects in it; or it is a wrong one",
    "AllAccessDisabled": _CREDENTIALS,
    "Unauthorized": _CREDENTIALS,
    "InvalidToken": "the session token is wrong: check AWS_SESSION_TOKEN",
    "ExpiredToken": "the session token has expired: renew AWS_SESSION_TOKEN",
    "TokenRefreshRequired": "the session token has expired: renew AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "NoSuchBucket": "create the bucket, or correct its name in the storage URL",
    "InvalidBucketName": "correct the bucket's name in the storage URL",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
"""S3 error codes, each with what helps."""

FULL_CODES = frozenset(
    {
        "QuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
        "InsufficientCapacity",
        "StorageQuotaExceeded",
        "ServiceQuotaExceeded",
    }
)
_MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
# botocore knows two kinds: what befalls a connection (its own ConnectionError) and what befalls a request.
_CONNECTION_FAULTS: tuple[type[Exception], ...] = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.ResponseStreamingError,
    exceptions.IncompleteReadError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
    EOFError,
)
_PERMANENT_STATUS = frozenset({501, 505, 507})


def code_of(error: BaseException) -> str:
    """Return the S3 error code, empty when ``error`` is no answer of the store."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int:
    """Return the HTTP status of the store's answer, 0 when there was none."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: BaseException) -> dict[str, Any]:
    return error.response if isinstance(error, exceptions.ClientError) else {}


def _message(error: BaseException) -> str:
    return str(_answer(error).get("Error", {}).get("Message", ""))


def is_full(error: BaseException) -> bool:
    """Tell whether the store says that it, or our share of it, is full."""
    capped = status_of(error) == 403 and "cap exceeded" in _message(error).lower()  # Backblaze B2 has no code for it
    return code_of(error) in FULL_CODES or status_of(error) == 507 or capped


def is_missing(error: BaseException) -> bool:
    """Tell whether the object is not there, as far as this answer can tell (HEAD does not name a missing bucket)."""
    return code_of(error) in _MISSING_CODES


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed a little later: 5xx, throttling, timeouts, lost connections."""
    if is_full(error):
        return False
    if isinstance(error, exceptions.ClientError):
        status = status_of(error)
        return (
            code_of(error) in _TRANSIENT_CODES or status == 429 or (status >= 500 and status not in _PERMANENT_STATUS)
        )
    if isinstance(error, (exceptions.SSLError, exceptions.ProxyConnectionError)):
        return "certificate" not in str(error).lower()
    return isinstance(error, _CONNECTION_FAULTS)


def explain(error: BaseException) -> tuple[str, str]:
    """Return cause and hint in words of our own: an exception's text may quote a URL, a header or a key."""
    code, status = code_of(error), status_of(error)
    if code or status:
        hint = HINTS.get(code, "")
        if not hint and status in (400, 401, 403):
            hint = _CREDENTIALS
        return f"the storage answered {code or 'an error'} (HTTP {status})", hint
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return "no credentials were found", _CREDENTIALS
    if isinstance(error, (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError)):
        return "the credentials could not be fetched", _CREDENTIALS
    if isinstance(error, (exceptions.ProfileNotFound, exceptions.ConfigParseError, exceptions.ConfigNotFound)):
        return "the AWS configuration files cannot be used", "check ~/.aws and the option profile of the storage URL"
    if isinstance(error, exceptions.SSLError):
        return "the TLS connection failed", "check the endpoint, or name its authority's file in AWS_CA_BUNDLE"
    if isinstance(error, (TimeoutError, exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError)):
        return "the storage did not answer in time", "check the endpoint and the network"
    if isinstance(error, exceptions.ConnectionError) and "reset" not in str(error.__context__):
        return "no connection to the storage", "check the endpoint and the network"
    if is_transient(error):
        return "the connection to the storage broke", "check the network"
    return f"the client refused the request ({type(error).__name__})", "check the storage URL"


def storage_error(operation: str, key: str, error: BaseException) -> StorageError:
    """Return the leaf that ``error`` means."""
    cause, hint = explain(error)
    if is_full(error):
        return StorageFull(operation, key, cause, hint or "free some space, or raise the quota")
    if is_missing(error) and operation in ("read", "size"):
        return ObjectMissing(operation, key, cause)
    return StorageUnavailable(operation, key, cause, hint)
