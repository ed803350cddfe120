"""What is fuzzed, and what would be a finding: three functions that take any bytes.

Owns: how bytes become the input of a parser, and what must hold whatever they are. A function returns how the parser
judged (for counting) and lets nothing out but :class:`Finding`. Does not own: where bytes come from (``corpus``,
``mutations``, ``coverage_guided``). Explained in docs/robustness.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from tornado_backups.domain.addresses import UNIX_ADDRESS, UNKNOWN_ADDRESS, client_address, parse_networks
from tornado_backups.domain.errors import BackupError, BadRequest, RangeNotSatisfiable, Truncated, UploadRejected
from tornado_backups.domain.openpgp import MessageCheck
from tornado_backups.services.login_request import MAX_SCOPE_BYTES, parse_login
from tornado_backups.web import fields
from tornado_backups.web.form import HEADER_BLOCK_BYTES, FormReader

SLOW_SECONDS = 2.0
"""Inputs are a few kilobytes: one that takes this long of processor time hangs."""

_FIRST_LINES = ("multipart/form-data; boundary=b", "multipart/form-data; boundary=" + "-" * 24 + "d74496d66958873e")
_SHA256 = hashlib.sha256(b"backup").hexdigest()
_WHEN = datetime(2024, 5, 1, 12, 30, 15, tzinfo=UTC)
_PROXIES = parse_networks(["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"])
_INCOMPLETE = (b"read error", b"pending bytes", b"length byte missing", b"premature", b"unexpected end", b"EOF")


class Finding(Exception):
    """Something that must not be, with what it was found on."""


@contextmanager
def _in_time(what: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    if time.process_time() - begun > SLOW_SECONDS:
        raise Finding(f"{what} took more than {SLOW_SECONDS:g} s of processor time")


def _pieces(data: bytes) -> list[bytes]:
    """Cut ``data`` at places that only depend on it: some at the front, where the structure is, some anywhere."""
    digest = hashlib.blake2b(data, digest_size=12).digest()
    size = len(data) + 1
    cuts = sorted({*(octet % min(size, 64) for octet in digest[:5]), *(octet * size // 256 for octet in digest[5:])})
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# -- multipart/form-data -----------------------------------------------------------------------------------------------


def form(data: bytes) -> str:
    """Read a form: the first line is its ``Content-Type`` (a digit stands for one that is usual), the rest its body."""
    first, _, body = data.partition(b"\n")
    content_type = _FIRST_LINES[first[0] % 2] if first in (b"0", b"1") else first.decode("latin-1")
    with _in_time("the form"):
        whole, payload = _read_form(content_type, [body])
        cut, cut_payload = _read_form(content_type, _pieces(body))
        single, single_payload = (
            _read_form(content_type, [bytes([octet]) for octet in body]) if len(body) < 200 else (whole, payload)
        )
    if not (whole == cut == single) or not (payload == cut_payload == single_payload):
        raise Finding(f"the form is judged {whole}, but {cut} or {single} when it is cut")
    if whole == "read" and (payload not in body or not body.count(b"name") or len(payload) > len(body)):
        raise Finding("the form's payload is no part of its body")
    return whole


def _read_form(content_type: str, pieces: list[bytes]) -> tuple[str, bytes]:
    payload = []
    try:
        reader = FormReader.from_content_type(content_type)
        for piece in pieces:
            payload += reader.feed(piece)
            if len(reader._held) > HEADER_BLOCK_BYTES + 256:
                raise Finding(f"the form holds {len(reader._held)} bytes back")
        reader.finish()
    except (BadRequest, Truncated) as error:
        _check_sentence(error)
        return error.reason, b""
    except Exception as error:
        raise Finding(f"the form: {error!r}") from error
    return "read", b"".join(payload)


# -- OpenPGP messages --------------------------------------------------------------------------------------------------


def message(data: bytes) -> str:
    """Judge a body as an OpenPGP message, whole, in pieces and octet by octet."""
    with _in_time("the message"):
        whole = _judge([data])
        cut = _judge(_pieces(data))
        single = _judge([bytes([octet]) for octet in data]) if len(data) < 300 else whole
    if not whole == cut == single:
        raise Finding(f"the message is judged {whole}, but {cut} or {single} when it is cut")
    return whole


def _judge(pieces: list[bytes]) -> str:
    check = MessageCheck()
    try:
        for piece in pieces:
            check.feed(piece)
        check.finish()
    except UploadRejected as error:
        _check_sentence(error)
        return error.reason
    except Exception as error:
        raise Finding(f"the message: {error!r}") from error
    return "accepted"


class Gpg:
    """``gpg --list-packets`` on bodies that were accepted, in a home of its own that is removed by ``close``."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="gpg", dir="/tmp")
        self.asked = 0
        self.complaints = 0

    def close(self) -> None:
        """Remove the home; no agent runs, for nothing is decrypted."""
        self._home.cleanup()

    def __enter__(self) -> Gpg:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, body: bytes) -> None:
        """Raise :class:`Finding` when gpg finds a binary message incomplete that :func:`message` accepts.

        Armour is exempt: by contract only its beginning is decoded. Complaints about anything but the end are
        counted: gpg looks into session keys, which this server leaves alone.
        """
        if not body or not body[0] & 0x80 or message(body) != "accepted":
            return
        self.asked += 1
        command = ["gpg", "--homedir", self._home.name, "--batch", "--no-tty", "--list-only", "--list-packets"]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=False, env=environment)
        if any(word in done.stderr for word in _INCOMPLETE):
            raise Finding(f"accepted, but gpg says {done.stderr.decode(errors='replace').strip()!r}")
        self.complaints += done.returncode != 0


# -- header fields, addresses, login bodies ----------------------------------------------------------------------------


def header_fields(data: bytes) -> str:
    """Read a single value from the network: the first octet says as what."""
    if not data:
        return "nothing"
    readers = (_range, _digest, _validators, _forwarded, _login, _filename)
    reader = readers[data[0] % len(readers)]
    with _in_time(reader.__name__):
        try:
            return f"{reader.__name__[1:]} {reader(data[1:])}"
        except (BadRequest, RangeNotSatisfiable) as error:
            _check_sentence(error)
            return f"{reader.__name__[1:]} refused"
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{reader.__name__[1:]}: {error!r}") from error


def _range(data: bytes) -> str:
    found = fields.parse_range(data.decode("latin-1"), 1000)
    if found is not None and not (found.start >= 0 and 0 < found.length <= 1000 - found.start):
        raise Finding(f"the range {found} is not within the object")
    return "ignored" if found is None else "read"


def _digest(data: bytes) -> str:
    name, _, value = data.decode("latin-1").partition("\n")
    given = {("content-digest", "repr-digest", "x-content-sha256")[len(name) % 3]: value}
    found = fields.declared_digest(lambda name: given.get(name.lower()))
    if found is not None and (len(found) != 64 or bytes.fromhex(found).hex() != found):
        raise Finding(f"the digest {found!r} is no SHA-256 in lower-case hex")
    return "absent" if found is None else "read"


def _validators(data: bytes) -> str:
    value = data.decode("latin-1")
    etag = fields.etag_for(_SHA256)
    if fields.if_range_matches(value, etag, _WHEN) and value.strip() not in (etag, fields.http_date(_WHEN)):
        raise Finding(f"If-Range {value!r} matches")
    return "matches" if fields.etag_matches(value, etag) else "differs"


def _forwarded(data: bytes) -> str:
    found = client_address("10.0.0.1", data.decode("latin-1"), _PROXIES, unix_trusted=True)
    if found not in (UNIX_ADDRESS, UNKNOWN_ADDRESS) and str(ip_address(found)) != found:
        raise Finding(f"the address {found!r} is not canonical")
    if client_address("192.0.2.1", data.decode("latin-1"), _PROXIES, unix_trusted=True) != "192.0.2.1":
        raise Finding("a peer that is no proxy was believed")
    return "unknown" if found == UNKNOWN_ADDRESS else "read"


def _login(data: bytes) -> str:
    try:
        body = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return "not JSON"
    request = parse_login(body)
    if sum(len(grant.collection) for grant in request.scope) > MAX_SCOPE_BYTES:
        raise Finding("the login's scope is longer than its bound")
    if repr(request) != f"LoginRequest({request.username!r})":
        raise Finding("the login shows more than its name")
    return "read"


def _filename(data: bytes) -> str:
    field = fields.content_disposition(data.decode("utf-8", "replace"))
    if not field.isascii() or not field.isprintable():
        raise Finding(f"the header line {field!r} is not safe")
    return "written"


def _check_sentence(error: BackupError) -> None:
    if not error.sentence or len(error.sentence) > 1000 or not error.sentence.isprintable():
        raise Finding(f"the sentence {error.sentence!r} is not one line for a person")


TARGETS: dict[str, Callable[[bytes], str]] = {"form": form, "message": message, "fields": header_fields}
CORPUS = Path(__file__).parent / "corpus"
