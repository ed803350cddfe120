"""Header fields with a grammar of their own: ranges, validators, digests, file names, dates.

Owns: reading and writing single field values, as pure functions.
Does not own: which request may carry them, or what happens then (``web/versions``).
Explained in docs/api.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from tornado_backups.domain.errors import BadRequest, RangeNotSatisfiable

Getter = Callable[[str], str | None]
"""Looks a header up by its name in any case, as ``headers.get`` does; None when the request has none."""

_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_RANGE: Final = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# No group here is possessive: Python 3.11.2 (Debian 12) keeps what the last, failed round of one has read.
_BARE_ITEM: Final = r'(?:"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|:[A-Za-z0-9+/=]*+:|[A-Za-z0-9*?.+\-_/:%]++)'
_DIGEST_MEMBER: Final = re.compile(
    rf"([a-z*][a-z0-9_\-.*]*+)=:([A-Za-z0-9+/]*+=*+):(?:[ ]*;[ ]*[a-z*][a-z0-9_\-.*]*+(?:={_BARE_ITEM})?)*"
)
_SEPARATOR: Final = re.compile(r"[ \t]*+(?:,[ \t]*+(?!\Z)|\Z)")
_SHA256_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_SHA256_BYTES: Final = 32
_LARGEST_DIGITS: Final = 18  # more cannot be an offset in any object, and int() refuses thousands of them
_UNSAFE_IN_FILENAME: Final = re.compile(r"[^\x20-\x7e]|[%\"\\]")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A satisfiable part of an object: ``length`` bytes (at least 1) from offset ``start``."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """Return the ``Content-Range`` of a 206 for an object of this size (RFC 9110, 14.4)."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


def check_framing(get: Getter) -> None:
    """Raise ``BadRequest`` when it is in doubt where the body ends (RFC 9112, 6.3): request smuggling lives on that.

    A length and an encoding at once, another encoding than ``chunked``, or anything but one plain number as length.
    """
    length, encoding = get("Content-Length"), get("Transfer-Encoding")
    if encoding is not None and length is not None:
        raise BadRequest("the request has both Content-Length and Transfer-Encoding; send one of them")
    if encoding is not None and encoding.strip(" \t").lower() != "chunked":
        raise BadRequest("the Transfer-Encoding is not supported; 'chunked' is right")
    if length is not None and not _LENGTH.fullmatch(length.strip(" \t")):
        raise BadRequest("Content-Length is not one number of bytes")


def parse_range(value: str, size_bytes: int) -> ByteRange | None:
    """Return the one range that a ``Range`` header asks for, cut to the object's size (RFC 9110, 14.2).

    None means that the header is to be ignored and the whole object sent: another unit, several ranges, malformed,
    or an empty object. Raises ``RangeNotSatisfiable`` when the range begins behind the end or has no length.
    """
    unit, equals, ranges = value.partition("=")
    specs = [spec for spec in (part.strip(" \t") for part in ranges.split(",")) if spec]
    if unit.strip(" \t").lower() != "bytes" or not equals or len(specs) != 1 or not size_bytes:
        return None
    found = _RANGE.fullmatch(specs[0])
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(_offset(suffix), size_bytes)
        start = size_bytes - length
    else:
        start = _offset(first)
        end = _offset(last) if last else size_bytes - 1
        if end < start and last:
            return None
        length = min(end, size_bytes - 1) - start + 1
    if length < 1:
        raise RangeNotSatisfiable(
            f"the range {specs[0][:60]} holds no byte of the object, which has {size_bytes}", size_bytes
        )
    return ByteRange(start, length)


def if_range_matches(value: str, etag: str, last_modified: datetime) -> bool:
    """Tell whether ``If-Range`` names the object as it is, so that ``Range`` counts (RFC 9110, 13.1.5).

    Entity tags are compared strongly, a date must be exactly the one sent as ``Last-Modified``.
    """
    value = value.strip(" \t")
    if value.startswith(('"', "W/")):
        return value == etag
    return value == http_date(last_modified)


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Tell whether ``If-None-Match`` lists this entity tag (weak comparison) or is ``*`` (RFC 9110, 13.1.2)."""
    if if_none_match.strip(" \t") == "*":
        return True
    return bool(etag) and etag in _ENTITY_TAG.findall(if_none_match)


def declared_digest(get: Getter) -> str | None:
    """Return the SHA-256 that the client promises, lower-case hex, or None when it promises none.

    Reads ``Content-Digest`` and ``Repr-Digest`` (RFC 9530; other algorithms than ``sha-256`` are ignored) and
    ``X-Content-Sha256`` (hex). Raises ``BadRequest`` when one is malformed or two of them disagree.
    """
    promised = _hex_digests(get)
    for name in ("Content-Digest", "Repr-Digest"):
        value = get(name)
        if value is not None:
            promised |= _structured_digests(name, value)
    if len(promised) > 1:
        raise BadRequest("the SHA-256 digests in the request's headers disagree; send one, or the same in each")
    return next(iter(promised), None)


def declared_form_digest(get: Getter) -> str | None:
    """Return the SHA-256 that the client promises for the file in a form, lower-case hex, or None.

    Only ``X-Content-Sha256`` can be meant for the file: raises ``BadRequest`` for the digests of RFC 9530, which
    would cover the form's framing, and for a malformed value.
    """
    for name in ("Content-Digest", "Repr-Digest"):
        if get(name) is not None:
            raise BadRequest(
                f"{name} covers the whole form; with multipart/form-data send X-Content-Sha256 of the file instead"
            )
    return next(iter(_hex_digests(get)), None)


def content_disposition(filename: str) -> str:
    """Return a ``Content-Disposition`` that makes clients save under ``filename`` (RFC 6266).

    Always has a plain ASCII name; one with other characters, or with such as clients read differently, also comes
    in full as ``filename*`` (RFC 8187). Control characters cannot reach the header.
    """
    plain = _UNSAFE_IN_FILENAME.sub("_", filename)
    if plain == filename:
        return f'attachment; filename="{plain}"'
    encoded = quote(filename, safe="!#$&+-.^_`|~", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def etag_for(sha256: str) -> str:
    """Return the strong entity tag of an object; empty, and not to be sent, while its SHA-256 (hex) is unknown."""
    return f'"{sha256}"' if sha256 else ""


def repr_digest(sha256: str) -> str:
    """Return the ``Repr-Digest`` of an object (RFC 9530); empty, and not to be sent, while its SHA-256 is unknown."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:" if sha256 else ""


def http_date(when: datetime) -> str:
    """Return an aware time as an HTTP date, cut to the second (RFC 9110, 5.6.7)."""
    return format_datetime(when.astimezone(UTC), usegmt=True)


def _offset(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _LARGEST_DIGITS else 10**_LARGEST_DIGITS


def _hex_digests(get: Getter) -> set[str]:
    value = get("X-Content-Sha256")
    if value is None:
        return set()
    value = value.strip(" \t")
    if not _SHA256_HEX.fullmatch(value):
        raise BadRequest("X-Content-Sha256 is malformed; 64 hexadecimal digits are right")
    return {value.lower()}


def _structured_digests(name: str, value: str) -> set[str]:
    """Read a dictionary of byte sequences (RFC 8941, 3.2 and 3.3.5) and return its ``sha-256`` members as hex."""
    digests: set[str] = set()
    position = 0
    value = value.strip(" \t")
    while position < len(value):
        found = _DIGEST_MEMBER.match(value, position)
        if found is None:
            raise _malformed_digest(name)
        if found[1] == "sha-256":
            digests.add(_decode_digest(name, found[2]))
        separator = _SEPARATOR.match(value, found.end())
        if separator is None:
            raise _malformed_digest(name)
        position = separator.end()
    return digests


def _decode_digest(name: str, text: str) -> str:
    try:
        digest = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error as error:
        raise _malformed_digest(name) from error
    if len(digest) != _SHA256_BYTES:
        raise _malformed_digest(name)
    return digest.hex()


def _malformed_digest(name: str) -> BadRequest:
    return BadRequest(f"{name} is malformed; sha-256=:BASE64: with the 32 bytes of a SHA-256 is right (RFC 9530)")
