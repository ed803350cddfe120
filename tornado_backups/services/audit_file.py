"""The audit file: lines that are chained by hash, so that a change in their midst shows.

Owns: the form of a line, appending under a lock, mending after a crash, verifying.
Does not own: what an event is (``services/audit``), rotation of the file (each file is a chain of its own).
Explained in docs/audit.md, which also says what a chain cannot show.

A line is a JSON object whose last three members are ``seq`` (1, 2, 3 …), ``prev`` (the ``hash`` of the line before,
64 zeros in the first) and ``hash``: the SHA-256 of the line's own bytes up to, and without, ``,"hash":``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 64 * 1024
"""No line of ours is longer; ``services/audit`` sees to that."""

FIRST_PREV = "0" * 64
LOCK_ATTEMPTS = 100
LOCK_PAUSE_SECONDS = 0.001

_TAIL = re.compile(rb',"seq":(\d{1,18}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}')


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. ``line`` counts from 1: the first bad line, or the last line when all is well."""

    ok: bool
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class _Link:
    """A line's place in the chain: its number, the hash before it, its own, that of a broken line it followed."""

    seq: int
    prev: str
    hash: str
    interrupted: str


class AuditFile:
    """Appends to one file; any number of processes may do so at once.

    The file is opened for every line, so that it may be renamed away at any time (logrotate needs no signal).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: Mapping[str, object]) -> None:
        """Add one line, whole or not at all, after waiting at most a tenth of a second for other writers.

        What a crash left of a line is closed first, and its SHA-256 recorded in ``interrupted`` of the new line.
        Raises ``OSError`` (``BlockingIOError`` when another writer holds the lock for too long).
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            size = os.fstat(descriptor).st_size
            last, partial = _read_end(descriptor, size)
            data = (b"\n" if partial is not None else b"") + _line(event, last, partial)
            _write_whole(descriptor, data, size)
        finally:
            os.close(descriptor)


def verify_audit_file(path: Path) -> Verdict:
    """Read the file once, in bounded memory, and name the first line that was altered, removed or moved.

    Lines that a running server adds meanwhile are left for the next time. A last line without its end (a crash, or a
    cut) is no fault and is mentioned. Raises ``OSError`` when the file cannot be read.
    """
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        size = os.fstat(file.fileno()).st_size
        fcntl.flock(file, fcntl.LOCK_UN)
        return _verify(_lines(file, size))


def _verify(lines: Iterator[bytes]) -> Verdict:
    before: _Link | None = None
    broken: tuple[int, bytes] | None = None
    number = 0
    for number, line in enumerate(lines, start=1):
        link = _read_link(line.removesuffix(b"\n"))
        if link is None and broken is None:
            broken = (number, line)
            continue
        if link is None or (broken is not None and not _owns_up_to(link, broken[1])):
            return _altered(broken[0] if broken else number)
        fault = _fault(before, link)
        if fault:
            return Verdict(False, number, f"line {number}: {fault}")
        before, broken = link, None
    if broken is not None and broken[1].endswith(b"\n"):
        return _altered(broken[0])
    note = "; the last one is cut short, by a crash or by hand" if broken is not None else ""
    end = f"; the last hash is {before.hash}" if before is not None else ""
    return Verdict(True, number, f"{number} lines{note}{end}")


def _altered(number: int) -> Verdict:
    return Verdict(False, number, f"line {number}: altered, its hash does not fit its text")


def _owns_up_to(link: _Link, broken_line: bytes) -> bool:
    """Return whether ``link`` is the line that a server wrote after finding ``broken_line`` without its end."""
    return link.interrupted == hashlib.sha256(broken_line.removesuffix(b"\n")).hexdigest()


def _fault(before: _Link | None, link: _Link) -> str:
    expected_seq, expected_prev = (1, FIRST_PREV) if before is None else (before.seq + 1, before.hash)
    if link.seq > expected_seq:
        return f"lines before it were removed: it is number {link.seq} where {expected_seq} belongs"
    if link.seq < expected_seq:
        return f"out of order or repeated: it is number {link.seq} where {expected_seq} belongs"
    if link.prev != expected_prev:
        return "it does not follow from the line before, one of the two was replaced"
    return ""


def _read_link(line: bytes) -> _Link | None:
    """Return the line's place in the chain; None when it is no line of ours or its hash is not that of its text."""
    tail = _TAIL.search(line, max(0, len(line) - 256))
    if tail is None or tail.end() != len(line):
        return None
    body = line[: tail.start(3) - len(b',"hash":"')]
    if hashlib.sha256(body).hexdigest() != tail[3].decode():
        return None
    try:
        interrupted = json.loads(line).get("interrupted", "")
    except (ValueError, RecursionError):
        return None
    return _Link(int(tail[1]), tail[2].decode(), tail[3].decode(), str(interrupted))


def _line(event: Mapping[str, object], last: _Link | None, partial: bytes | None) -> bytes:
    members = dict(event)
    if partial:
        members["interrupted"] = hashlib.sha256(partial).hexdigest()
    members["seq"] = last.seq + 1 if last else 1
    members["prev"] = last.hash if last else FIRST_PREV
    body = json.dumps(members, separators=(",", ":")).removesuffix("}").encode("ascii")
    return body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode("ascii") + b'"}\n'


def _read_end(descriptor: int, size: int) -> tuple[_Link | None, bytes | None]:
    """Return the last line that is whole, and what stands behind it without an end.

    The second is None when the file ends with a line's end, and empty when only that end is missing.
    """
    for window_bytes in (4096, 2 * MAX_LINE_BYTES):  # mostly the first will do; the second holds the longest lines
        tail = os.pread(descriptor, window_bytes, max(0, size - window_bytes))
        *whole, rest = tail.split(b"\n")
        if rest and (link := _read_link(rest)) is not None:
            return link, b""
        for line in reversed(whole):
            if (link := _read_link(line)) is not None:
                return link, rest or None
    return None, rest or None


def _write_whole(descriptor: int, data: bytes, size: int) -> None:
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes could be written")
    except OSError:
        os.ftruncate(descriptor, size)  # under the lock, so that nobody else's line is cut
        raise


def _lock(descriptor: int) -> None:
    """Take the lock, or give up soon: a writer that was stopped in mid-line must not stop a whole server."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return
    raise BlockingIOError("another writer holds the lock")


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines within the first ``size`` bytes; one that is longer than any of ours comes in pieces."""
    while size > 0:
        line = file.readline(min(size, MAX_LINE_BYTES))
        if not line:
            return
        size -= len(line)
        yield line
