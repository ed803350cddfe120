"""JSON Web Tokens, HS256 and nothing else, ours and those of the Go server; and the key they are signed with.

Owns: signing, verifying, the form of the claims, the session id, the generated key file.
Does not own: whether a session still lives (``services/sessions``), what a scope allows (``domain/permissions``).
Explained in docs/security.md, "Tokens".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado_backups.domain.errors import NotAuthenticated, StartupError
from tornado_backups.domain.model import COLLECTION_ROLES, Claims, Grant, Role
from tornado_backups.lean import hollow, without

if TYPE_CHECKING:
    import jwt
else:
    # PyJWT imports `cryptography` wherever that happens to be installed, for algorithms that are refused here, and a
    # client for key servers that is never used: eleven megabytes of resident memory for nothing.
    with without("cryptography"), hollow("jwt.jwks_client"):
        import jwt

_log = logging.getLogger(__name__)

ALGORITHM = "HS256"
MAX_TOKEN_CHARACTERS = 16 * 1024
SHORT_KEY_BYTES = 32
SECRET_FILE = "jwt-secret"  # noqa: S105 (a file's name)
_REFUSED = "the token is invalid or expired"


class TokenSigner:
    """Signs and verifies with one key; holds nothing else, so that any number of servers may share the key."""

    def __init__(self, secret: str) -> None:
        """Take the key; raises ``StartupError`` when it is empty, or a PEM or SSH key, which are not for HS256."""
        if not secret.strip():
            raise StartupError(
                "the JWT secret key is empty; give at least 32 random bytes, or none to have one generated"
            )
        # HMAC fills a key up with zero bytes to its block length (RFC 2104, 2), so that this changes no signature;
        # it keeps PyJWT from warning of a short key at every single token. We warn once, when the key is loaded.
        self._key = secret.encode().ljust(SHORT_KEY_BYTES, b"\0")
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])
        try:
            self._jws.encode(b"{}", self._key, algorithm=ALGORITHM)
        except jwt.InvalidKeyError:
            raise StartupError(
                "the JWT secret key is a PEM or SSH key; HS256 wants a random text that nobody else knows"
            ) from None

    def issue(
        self,
        login: str,
        access_key_name: str,
        scope: tuple[Grant, ...],
        now: datetime,
        expires_at: datetime,
        originally_issued_at: datetime | None = None,
    ) -> str:
        """Return a token, different at every call (``jti``); times are cut to whole seconds (RFC 7519, 2).

        ``originally_issued_at`` is when the token that this one refreshes was first issued (``orig_iat``).
        """
        claims = {
            "login": login,
            "accessKeyName": access_key_name,
            "operationsScope": _encode_scope(scope),
            "orig_iat": int((originally_issued_at or now).timestamp()),
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "jti": secrets.token_urlsafe(16),
        }
        return self._jws.encode(json.dumps(claims, separators=(",", ":")).encode(), self._key, algorithm=ALGORITHM)

    def verify(self, token: str, now: datetime) -> Claims:
        """Return the claims of a token signed with our key, by HS256, that has not expired.

        Everything else raises ``NotAuthenticated`` with one and the same sentence: another key or algorithm (``none``
        and public keys taken for secrets included), a changed byte, missing or misshapen claims. A scope that cannot
        be read is refused and never taken for no scope; roles in it that are unknown grant nothing.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise NotAuthenticated(_REFUSED)
        try:
            claims = json.loads(self._jws.decode(token, self._key, algorithms=[ALGORITHM]))
            read = _read_claims(claims)
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise NotAuthenticated(_REFUSED) from None
        if read.expires_at <= now:
            raise NotAuthenticated(_REFUSED)
        return read

    def session_id(self, token: str) -> str:
        """Return the module's :func:`session_id`."""
        return session_id(token)


def session_id(token: str) -> str:
    """Return the SHA-256 of the token's text, lower-case hex: the only thing about a token that is ever stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def load_or_create_secret(data_dir: Path, configured: str) -> str:
    """Return the configured key, or the one in ``data_dir``, which is made at the first call.

    The generated file appears whole or not at all, mode 0600, durable (fsync of file and folder), and the same for
    several processes that start at once. A configured key below 32 bytes works and is warned about. Raises
    ``StartupError`` when the file cannot be read or written, or holds no usable key: then it was damaged, and a new
    one would end every session in silence.
    """
    if configured:
        if len(configured.encode()) < SHORT_KEY_BYTES:
            _log.warning("the JWT secret key is shorter than %d bytes and could be guessed", SHORT_KEY_BYTES)
        return configured
    path = data_dir / SECRET_FILE
    try:
        if not path.exists():
            _create_secret(path)
        if path.stat().st_mode & 0o077:
            _log.warning("%s was readable by others; its mode is now 0600", path)
            path.chmod(0o600)
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"the generated JWT secret key {path} cannot be used: {error}") from error
    if len(secret.encode()) < SHORT_KEY_BYTES:
        raise StartupError(
            f"the generated JWT secret key {path} is damaged; restore it, or remove it to end all sessions"
        )
    return secret


def _create_secret(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _name_it(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name_it(temporary: Path, path: Path) -> None:
    """Give the file its name unless another process was first: then that one's key is the one to use."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, such as exFAT
        temporary.rename(path)


def _encode_scope(scope: tuple[Grant, ...]) -> str:
    """Write a scope as the Go server does, base64 of JSON, so that either server reads the other's tokens."""
    elements = [
        {"type": "collection", "name": grant.collection, "roles": sorted(role.value for role in grant.roles)}
        for grant in scope
    ]
    return base64.b64encode(json.dumps({"elements": elements}, separators=(",", ":")).encode()).decode()


def _read_claims(claims: object) -> Claims:
    if not isinstance(claims, Mapping):
        raise ValueError("claims are no object")
    login, key_name = claims.get("login"), claims.get("accessKeyName", "")
    if not isinstance(login, str) or not login or not isinstance(key_name, str):
        raise ValueError("no login")
    expires_at = _time(claims.get("exp"))
    issued_at = _time(claims["orig_iat"]) if "orig_iat" in claims else expires_at
    return Claims(login, key_name, _decode_scope(claims.get("operationsScope")), issued_at, expires_at)


def _time(value: object) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no time")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError("no time") from error


def _decode_scope(claim: object) -> tuple[Grant, ...]:
    """Read a scope in base64 (either alphabet, padded or not) or as a plain object; none and empty ones are ``()``."""
    if claim is None or claim == "":
        return ()
    if isinstance(claim, str):
        try:
            text = claim.replace("-", "+").replace("_", "/").rstrip("=")
            claim = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
        except (binascii.Error, RecursionError) as error:
            raise ValueError("unreadable scope") from error
    if claim is None:
        return ()
    elements = claim.get("elements") if isinstance(claim, Mapping) else claim
    if elements is None:
        return ()
    if not isinstance(elements, list):
        raise ValueError("unreadable scope")
    return tuple(_decode_grant(element) for element in elements)


def _decode_grant(element: Any) -> Grant:
    """Read one element; what it does not understand it keeps as a grant of nothing, for a scope must never vanish."""
    if not isinstance(element, Mapping):
        raise ValueError("unreadable scope")
    name, roles = element.get("name"), element.get("roles")
    if element.get("type") != "collection" or not isinstance(name, str) or not isinstance(roles, list):
        return Grant("", frozenset())
    known = {role.value for role in COLLECTION_ROLES}
    return Grant(name, frozenset(Role(role) for role in roles if isinstance(role, str) and role in known))
