"""The inputs that are kept: one file per target, one input per line in base64, so that a change can be reviewed.

Owns: reading and writing these files, and the seeds they grew from. Does not own: finding new ones
(``coverage_guided``). Explained in docs/robustness.md, "The corpus".
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.domain.openpgp_samples import (
    EMPTY_PADDING,
    MARKER,
    MESSAGE,
    PKESK,
    SEIPD,
    SEIPD_BODY,
    SKESK,
    armoured,
    new,
    old,
    partial,
)
from tests.serving import message

FOLDER = Path(__file__).parent / "corpus"
LARGEST_BYTES = 2048
MOST = 250


def path_of(target: str) -> Path:
    """Return the file of a target."""
    return FOLDER / f"{target}.b64"


def load(target: str) -> list[bytes]:
    """Return the kept inputs of a target, seeds first, each once."""
    path = path_of(target)
    kept = [base64.b64decode(line) for line in path.read_text("ascii").split()] if path.exists() else []
    return list(dict.fromkeys([*SEEDS[target], *kept]))


def save(target: str, inputs: list[bytes]) -> int:
    """Keep the shortest inputs that are no seeds; return how many."""
    seeds = set(SEEDS[target])
    fit = sorted({data for data in inputs if len(data) <= LARGEST_BYTES} - seeds, key=lambda data: (len(data), data))
    lines = [base64.b64encode(data).decode("ascii") for data in fit[:MOST] if data]
    path_of(target).write_text("".join(line + "\n" for line in lines), "ascii")
    return len(lines)


def _form(*parts: bytes, end: bytes = b"--b--\r\n", first: bytes = b"0") -> bytes:
    return first + b"\n" + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


_FILE = b'Content-Disposition: form-data; name="file"; filename="db.gpg"\r\nContent-Type: a/b\r\n\r\n'
_OTHER = b"Content-Disposition: form-data; name=comment\r\n\r\n"
_B64 = b"sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
_LOGINS: tuple[object, ...] = (
    {"username": "admin", "password": "secret"},
    {"username": "u$key", "password": "x", "lifetime": "1h30m", "restrictByIP": ["192.0.2.0/24"], "singleUse": True},
    {"username": "u", "password": "x", "operationsScope": {"elements": [
        {"type": "collection", "name": "files", "roles": ["backupUploader"]}]}},
    {"username": "\ud800", "password": "\x00\ud83d", "operationsScope": {"elements": None}},
)  # fmt: skip

SEEDS: dict[str, tuple[bytes, ...]] = {
    "form": (
        _form(_FILE + b"payload\r\n--\r"),
        _form(_OTHER + b"x", _FILE + b"\r\n--b\x00", _OTHER),
        _form(b"\r\n" + _FILE, end=b""),
        _form(_FILE + b"x", _FILE + b"y"),
        _form(_FILE + b"x", end=b"--b--  \r\nepilogue"),
        _form(_FILE.replace(b"; file", b";\r\n\tfile")),
        b"multipart/form-data; boundary=\"a b\"; x=y\n--a b \t\r\n" + _FILE + b"\r\n--a b--",
        b"multipart/mixed\n",
        b"",
    ),
    "message": (
        b"",
        MESSAGE,
        message(30),
        MARKER + PKESK + EMPTY_PADDING + SKESK + SEIPD + EMPTY_PADDING,
        PKESK + old(9, b"d" * 40, 3),
        PKESK + old(9, b"d" * 40, 0),
        SKESK + new(20, b"\x01" + b"d" * 30, 2),
        SKESK + partial(18, [9, 0, 1, 3], b"end"),
        SKESK + new(18, SEIPD_BODY, 5),
        armoured(),
        armoured(headers=[b"Version: x", b"Comment: y"], width=5, line_end=b"\r\n", checksum=None, after=b" \t\n"),
        armoured(message(1)),
        b"PK\x03\x04",
    ),
    "fields": (
        *(b"\x00" + text for text in (b"bytes=0-499", b"bytes=-5", b"bytes=5-", b"bytes=0-1,3-4", b"Bytes= 1-2 ,")),
        *(b"\x01" + name + b"\n" + _B64 for name in (b"", b"1", b"22")),
        b'\x01\nsha-512=1, sha-256=:A:;q=0.5;v="a\\"b,c"',
        b"\x0122\n" + b"0a" * 32,
        *(b"\x02" + text for text in (b'"a", W/"b"', b"*", b"Wed, 01 May 2024 12:30:15 GMT")),
        *(b"\x03" + text for text in (b"192.0.2.1, 10.0.0.2", b'"[2001:db8::1]:80"', b"::ffff:192.0.2.1,1.2.3.4:5",
                                      b"fe80::1%eth0", b"unknown, , 10.0.0.1")),
        *(b"\x04" + json.dumps(login).encode() for login in _LOGINS),
        b"\x04" + b"[" * 400 + b"]" * 400,
        *(b"\x05" + text for text in (b"db-v1.gpg", b'a"b\\c%41\r\n', "żółw".encode(), b"\xff\x00")),
    ),
}  # fmt: skip
"""Where every corpus begins: what clients really send, and one of each kind of trouble."""
