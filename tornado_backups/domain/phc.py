"""The two kinds of hash that a Secret entry may hold, brought into the one spelling the program works with.

Owns: accepting every spelling that existing configuration trees use, and refusing parameters that would exhaust the
machine. Does not own: hashing or verifying (``auth/passwords``). Explained in docs/yaml.md, section "Secret".
"""

from __future__ import annotations

import base64
import binascii
import re

MAX_MEMORY_KIB = 256 * 1024
"""The most memory (256 MiB) that a stored password hash may ask for: a typing error must not stop the server."""
MAX_MEMORY_PASSES_KIB = 1024 * 1024
"""The most work: memory times passes. These bounds are those that ``auth/passwords`` computes within."""
MAX_LANES = 64

_MAX_TEXT = 4096
_BASE64_LAYERS = 2

_PHC = re.compile(
    r"\$(?P<type>argon2(?:id|i|d))(?:\$v=(?P<version>\d{1,3}))?"
    r"\$m=(?P<memory>\d{1,10}),t=(?P<passes>\d{1,10}),p=(?P<lanes>\d{1,8})"
    r"\$(?P<salt>[A-Za-z0-9+/]+={0,2})\$(?P<hash>[A-Za-z0-9+/]+={0,2})",
    re.ASCII,
)
_HEX_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def normalise_hash(text: str) -> str:
    """Return the Argon2 hash in ``text`` in PHC form, its salt and hash without ``=`` padding.

    Accepts the PHC form itself and its base64 (what ``encode-password`` prints), the latter also with one more layer
    of base64 around it, as a Kubernetes ``stringData`` entry gets one. Padding may be there or not at every level.
    Raises ``ValueError`` with a sentence that repeats nothing of ``text``.
    """
    phc = _unwrap(text, "$argon2")
    match = _PHC.fullmatch(phc) if phc is not None else None
    if match is None:
        raise ValueError("is not an Argon2 hash")
    memory, passes, lanes = (int(match[name]) for name in ("memory", "passes", "lanes"))
    if match["version"] not in (None, "16", "19"):
        raise ValueError(f"is an Argon2 hash of the unknown version {match['version']}")
    affordable = lanes <= MAX_LANES and memory <= MAX_MEMORY_KIB and memory * passes <= MAX_MEMORY_PASSES_KIB
    if not affordable or lanes < 1 or passes < 1 or memory < 8 * lanes:
        raise ValueError(f"asks for Argon2 with m={memory},t={passes},p={lanes}, which this server does not compute")
    salt, digest = _decoded(match["salt"]), _decoded(match["hash"])
    if salt is None or digest is None or not (8 <= len(salt) <= 1024 and 12 <= len(digest) <= 1024):
        raise ValueError("is an Argon2 hash whose salt or hash part is damaged")
    version = f"$v={match['version']}" if match["version"] else ""
    return f"${match['type']}{version}$m={memory},t={passes},p={lanes}${_encoded(salt)}${_encoded(digest)}"


def normalise_digest(text: str) -> str:
    """Return the SHA-256 in ``text`` as 64 lower-case hexadecimal digits.

    Accepts the digits themselves, their base64, and the base64 of the 32 bytes. Raises ``ValueError`` with a sentence
    that repeats nothing of ``text``.
    """
    stripped = text.strip()
    for _ in range(_BASE64_LAYERS + 1):
        if _HEX_SHA256.fullmatch(stripped):
            return stripped.lower()
        decoded = _decoded(stripped) if len(stripped) <= _MAX_TEXT else None
        if decoded is None:
            break
        if len(decoded) == 32:
            return decoded.hex()
        stripped = decoded.decode("latin-1").strip()
    raise ValueError("is not a SHA-256")


def _unwrap(text: str, prefix: str) -> str | None:
    """Take off layers of base64 until the text begins with ``prefix``; None when it never does."""
    stripped = text.strip()
    for _ in range(_BASE64_LAYERS):
        if stripped.startswith(prefix) or len(stripped) > _MAX_TEXT:
            break
        decoded = _decoded(stripped)
        if decoded is None:
            return None
        stripped = decoded.decode("latin-1").strip()
    return stripped if stripped.startswith(prefix) and len(stripped) <= _MAX_TEXT else None


def _decoded(text: str) -> bytes | None:
    """Decode base64 (RFC 4648, standard alphabet) padding optional, lines may be wrapped; None if it is none."""
    bare = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")
