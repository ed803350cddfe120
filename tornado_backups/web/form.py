"""A streaming reader for ``multipart/form-data`` (RFC 7578, RFC 2046, section 5.1) that does no I/O.

Owns: finding the payload of the part named ``file`` in a body that arrives in pieces, in bounded memory and time.
Does not own: what the payload is (``domain/openpgp``), how it is counted or stored (``services``).
Explained in docs/openpgp.md, "In a form".
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from tornado_backups.domain.errors import BadRequest, Truncated

FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""The most that a form may hold besides the file: preamble, boundaries, headers, other fields, epilogue."""

HEADER_BLOCK_BYTES: Final = 8 * 1024
"""The longest block of headers of one part."""

_LINE_TAIL_BYTES: Final = 256
_PLAIN_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")  # RFC 2046, 5.1.1
_PARAMETER: Final = re.compile(
    r"""[ \t]*;[ \t]*(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*"""
    r"""(?:"(?P<quoted>[^"\\]*+(?:\\.[^"\\]*+)*)"|(?P<token>[^\s;"]*+))""",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(r'\\(["\\])')
_FOLD: Final = re.compile(r"\r\n[ \t]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class _In(Enum):
    """The part of the form that the next byte belongs to."""

    PREAMBLE = auto()
    BOUNDARY_LINE = auto()
    HEADERS = auto()
    FILE = auto()
    OTHER_PART = auto()
    EPILOGUE = auto()


class FormReader:
    """Read one form; holds at most a boundary or one block of headers, and never looks twice at a payload byte.

    After an error an instance is of no further use.
    """

    def __init__(self, boundary: str) -> None:
        """Prepare for a form with this boundary; raises ``BadRequest`` for one that RFC 2046 does not allow."""
        if not _BOUNDARY.fullmatch(boundary):
            raise BadRequest(
                "the boundary in Content-Type is not allowed; RFC 2046 wants 1 to 70 letters, digits or '()+_,-./:=?"
            )
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # As if a line had ended before the body: then the first delimiter looks like all the others.
        self._held = b"\r\n"
        self._skip = 0
        self._in = _In.PREAMBLE
        self._overhead = 0
        self._filename = ""
        self._file_begun = False
        self._file_ended = False

    @classmethod
    def from_content_type(cls, value: str) -> FormReader:
        """Return a reader for a body with this ``Content-Type``.

        Raises ``BadRequest`` unless it is ``multipart/form-data`` with exactly one boundary that is allowed.
        """
        kind, parameters = _parse_parameters(value, "Content-Type")
        if kind != "multipart/form-data":
            raise BadRequest("the Content-Type is not multipart/form-data")
        if "boundary" not in parameters:
            raise BadRequest("the Content-Type multipart/form-data has no boundary; add '; boundary=…'")
        return cls(parameters["boundary"])

    @property
    def filename(self) -> str:
        """The name the client gave the file, as given; empty when none, or not read yet. Never use it as a path."""
        return self._filename

    @property
    def in_file(self) -> bool:
        """Whether the next byte may belong to the file."""
        return self._in is _In.FILE

    @property
    def done(self) -> bool:
        """Whether the closing boundary was read; what may follow it is counted and dropped."""
        return self._in is _In.EPILOGUE

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the file's payload among them, in order, without empty pieces.

        The pieces joined are the same however the body was cut. Raises ``BadRequest`` for a form that is malformed,
        has two parts named ``file``, or holds too much besides the file.
        """
        payload: list[bytes] = []
        buffer = self._held + data if self._held else data
        position = 0
        while True:
            before, was_in = position, self._in
            match was_in:
                case _In.PREAMBLE | _In.FILE | _In.OTHER_PART:
                    position = self._pass_data(buffer, position, payload)
                case _In.BOUNDARY_LINE:
                    position = self._end_boundary_line(buffer, position)
                case _In.HEADERS:
                    position = self._read_headers(buffer, position)
                case _:
                    self._count_overhead(len(buffer) - position)
                    position = len(buffer)
            if position == before and self._in is was_in:
                break
        self._held = buffer[position:]
        return payload

    def finish(self) -> None:
        """Take the end of the body.

        Raises ``BadRequest`` when the form had no part ``file``, ``Truncated`` when it stops within that part or
        before the closing boundary: what was received may then be less than what was sent.
        """
        if not self._file_begun:
            raise BadRequest("the form has no part named 'file'; send the backup as the part 'file' (curl -F file=@…)")
        if not self._file_ended or not self.done:
            raise Truncated("the form stops before its closing boundary; send the whole form")

    def _pass_data(self, buffer: bytes, position: int, payload: list[bytes]) -> int:
        """Let bytes pass up to the next delimiter, or up to what may be the beginning of one."""
        found = buffer.find(self._delimiter, position)
        stop = found if found >= 0 else self._safe_end(buffer, position)
        start = min(position + self._skip, stop)
        self._skip -= start - position
        if self._in is _In.FILE:
            if start < stop:
                payload.append(buffer[start:stop])
        else:
            self._count_overhead(stop - start)
        if found < 0:
            return stop
        self._file_ended |= self._in is _In.FILE
        self._skip = 0
        self._count_overhead(len(self._delimiter))
        self._in = _In.BOUNDARY_LINE
        return found + len(self._delimiter)

    def _safe_end(self, buffer: bytes, position: int) -> int:
        """Return where a delimiter that is cut off by the buffer's end may begin, or the end."""
        start = max(position, len(buffer) - len(self._delimiter) + 1)
        while (start := buffer.find(b"\r", start)) >= 0:
            if self._delimiter.startswith(buffer[start:]):
                return start
            start += 1
        return len(buffer)

    def _end_boundary_line(self, buffer: bytes, position: int) -> int:
        """Read what follows a delimiter: ``--`` closes the form, white space and a line end begin a part."""
        tail = buffer[position : position + _LINE_TAIL_BYTES]
        if tail.startswith(b"--"):
            self._in = _In.EPILOGUE
            self._count_overhead(2)
            return position + 2
        rest = tail.lstrip(b" \t")
        if rest.startswith(b"\r\n"):
            # The line end stays in the buffer: a block without any header then ends with an empty line as well.
            self._in = _In.HEADERS
            self._count_overhead(len(tail) - len(rest))
            return position + len(tail) - len(rest)
        if not b"\r\n".startswith(rest) and tail != b"-":
            raise BadRequest("the form is malformed: a boundary is not followed by a line end")
        if len(tail) == _LINE_TAIL_BYTES:
            raise BadRequest(f"the form is malformed: a boundary's line is longer than {_LINE_TAIL_BYTES} bytes")
        return position

    def _read_headers(self, buffer: bytes, position: int) -> int:
        end = buffer.find(b"\r\n\r\n", position, position + HEADER_BLOCK_BYTES)
        if end < 0:
            if len(buffer) - position >= HEADER_BLOCK_BYTES:
                raise BadRequest(f"the headers of a part of the form are longer than {HEADER_BLOCK_BYTES} bytes")
            return position
        self._count_overhead(end + 4 - position)
        self._begin_part(_parse_headers(buffer[position + 2 : end]))
        # The empty line's own end may be the line end that a delimiter begins with: a part without a body.
        self._skip = 2
        return end + 2

    def _begin_part(self, headers: dict[str, str]) -> None:
        kind, parameters = _parse_parameters(headers.get("content-disposition", ""), "Content-Disposition")
        if kind != "form-data" or "name" not in parameters:
            raise BadRequest("a part of the form has no 'Content-Disposition: form-data' with a name (RFC 7578, 4.2)")
        if parameters["name"] != "file":
            self._in = _In.OTHER_PART
            return
        if self._file_begun:
            raise BadRequest("the form has two parts named 'file'; send one backup at a time")
        if headers.get("content-transfer-encoding", "").lower() not in _PLAIN_ENCODINGS:
            raise BadRequest("the part 'file' has a Content-Transfer-Encoding; send it as it is (RFC 7578, 4.7)")
        self._in = _In.FILE
        self._file_begun = True
        self._filename = parameters.get("filename", "")

    def _count_overhead(self, size_bytes: int) -> None:
        self._overhead += size_bytes
        if self._overhead > FORM_OVERHEAD_BYTES:
            raise BadRequest(
                f"the form holds more than {FORM_OVERHEAD_BYTES} bytes besides the part 'file'; send only that part"
            )


def _parse_headers(block: bytes) -> dict[str, str]:
    """Return a part's headers under lower-case names; raises ``BadRequest`` for lines that are none and for doubles."""
    headers: dict[str, str] = {}
    for line in _FOLD.sub(" ", block.decode("utf-8", "replace")).split("\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(":")
        name = name.strip(" \t").lower()
        if not colon or not name or name in headers or _CONTROL.search(line):
            raise BadRequest("a header of a part of the form is malformed or given twice; 'Name: value' is right")
        headers[name] = value.strip(" \t")
    return headers


def _parse_parameters(value: str, header: str) -> tuple[str, dict[str, str]]:
    """Split ``kind; name=value; …`` (RFC 9110, 5.6.6); names and kind in lower case."""
    kind, _, _ = value.partition(";")
    position, end = len(kind), len(value.rstrip(" \t;"))
    parameters: dict[str, str] = {}
    while position < end:
        found = _PARAMETER.match(value, position)
        if found is None:
            raise BadRequest(f"the parameters of {header} cannot be read; '; name=value' is right")
        name = found["name"].lower()
        if name in parameters:
            raise BadRequest(f"{header} has the parameter {name} twice")
        quoted = found["quoted"]
        parameters[name] = found["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = found.end()
    return kind.strip(" \t").lower(), parameters
