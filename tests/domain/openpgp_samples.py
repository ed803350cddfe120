"""Hand-made OpenPGP packets for the tests: right in form, with bodies that no key would open."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from tornado_backups.domain.errors import UploadRejected
from tornado_backups.domain.openpgp import MessageCheck

PKESK_BODY = b"\x03" + b"k" * 20
SKESK_BODY = b"\x04\x09\x03\x08saltsalt\x60"
SEIPD_BODY = b"\x01" + b"d" * 60
MARKER = b"\xca\x03PGP"
EMPTY_PADDING = b"\xd5\x00"


def new(tag: int, body: bytes, octets: int = 0) -> bytes:
    """A packet in the current format; ``octets`` asks for a length form (1, 2 or 5), 0 takes the shortest."""
    size = len(body)
    octets = octets or (1 if size < 192 else 2 if size < 8384 else 5)
    if octets == 1:
        length = bytes([size])
    elif octets == 2:
        length = (size - 192 + (192 << 8)).to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + body


def old(tag: int, body: bytes, kind: int) -> bytes:
    """A packet in the legacy format; ``kind`` 0, 1, 2 is a length of one, two, four octets, 3 none."""
    length = b"" if kind == 3 else len(body).to_bytes(1 << kind, "big")
    return bytes([0x80 | tag << 2 | kind]) + length + body


def partial(tag: int, powers: Iterable[int], last: bytes, version: bytes = b"\x01") -> bytes:
    """A packet in parts of ``1 << power`` bytes, ended by an ordinary length."""
    out = bytearray([0xC0 | tag])
    for number, power in enumerate(powers):
        part = bytes([number & 0xFF]) * (1 << power)
        out += bytes([0xE0 | power]) + (version + part[len(version) :] if number == 0 else part)
    return bytes(out) + new(0, last)[1:]


PKESK = old(1, PKESK_BODY, 1)
SKESK = new(3, SKESK_BODY)
SEIPD = new(18, SEIPD_BODY)
MESSAGE = PKESK + SEIPD


def armoured(
    message: bytes = MESSAGE,
    *,
    width: int = 64,
    line_end: bytes = b"\n",
    headers: Iterable[bytes] = (),
    checksum: bytes | None = b"=njUN",
    after: bytes | None = None,
) -> bytes:
    """``message`` in armour; the checksum is a made-up one, for nobody computes it."""
    text = base64.b64encode(message)
    lines = [b"-----BEGIN PGP MESSAGE-----", *headers, b""]
    lines += [text[start : start + width] for start in range(0, len(text), width)]
    lines += [] if checksum is None else [checksum]
    return line_end.join([*lines, b"-----END PGP MESSAGE-----"]) + (line_end if after is None else after)


def judge(body: bytes, *cuts: int) -> None:
    """Feed ``body`` to a fresh check, cut at these offsets, and finish."""
    check = MessageCheck()
    start = 0
    for cut in (*sorted(cuts), len(body)):
        check.feed(body[start:cut])
        start = max(start, cut)
    check.finish()


def verdict(body: bytes, *cuts: int) -> str:
    """The reason of the refusal, or ``accepted``."""
    try:
        judge(body, *cuts)
    except UploadRejected as error:
        return error.reason
    return "accepted"
