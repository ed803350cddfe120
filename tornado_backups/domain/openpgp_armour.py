"""ASCII-armoured OpenPGP messages (RFC 9580, section 6.2), checked in whole buffers.

Owns: the lines of the armour, its base64 alphabet and line lengths, and decoding its beginning.
Does not own: what the decoded packets may be (``openpgp_packets``); the rest of the text is not decoded, and the
checksum not looked at (RFC 9580, 6.1, forbids refusing for it).
Explained in docs/openpgp.md.
"""

from __future__ import annotations

import binascii
import re
from enum import Enum, auto
from typing import Final

from tornado_backups.domain.errors import NotEncrypted, Truncated
from tornado_backups.domain.openpgp_packets import PacketWalk

_BEGIN: Final = b"-----BEGIN PGP MESSAGE-----"
_END: Final = b"-----END PGP MESSAGE-----"
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BREAKS: Final = b"\r\n"
_WHITE_SPACE: Final = b" \t\r\n\v\f"
_NOT_TEXT: Final = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_HEADER: Final = re.compile(rb"[!-9;-~]+:(?: [^\n]*)?")
_PADDING: Final = re.compile(rb"={1,2}[ \t\r]*")
_CHECKSUM: Final = re.compile(rb"=[A-Za-z0-9+/=]*+[ \t\r]*")  # RFC 9580, 6.1: a malformed one is no reason either
_BLANK_LINES: Final = re.compile(rb"[\r\n]*+")

_HEADER_LINES: Final = 64
_LINE_BYTES: Final = 1024  # RFC 9580 asks for 76 at most; GnuPG writes 64
_DECODE_CHARACTERS: Final = 1 << 16


class _At(Enum):
    """The part of the armour that the next byte belongs to."""

    BEGIN_LINE = auto()
    REST_OF_BEGIN_LINE = auto()
    HEADERS = auto()
    TEXT = auto()
    PADDING = auto()
    FOOTER = auto()
    CHECKSUM = auto()
    END_LINE = auto()
    AFTER = auto()


class ArmourCheck:
    """Follow one armoured message; memory is bounded by the longest line, work per byte is a table look-up in C.

    After an error an instance is of no further use.
    """

    def __init__(self) -> None:
        self._at = _At.BEGIN_LINE
        self._line = b""
        self._header_lines = 0
        self._column = 0
        self._characters = 0
        self._undecoded = b""
        self._walk = PacketWalk(until_recognised=True)
        self._offset = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises ``NotEncrypted`` at the first that cannot stand there."""
        text = bytes(data)
        position = 0
        while position < len(text):
            match self._at:
                case _At.TEXT:
                    position = self._take_text(text, position)
                case _At.BEGIN_LINE:
                    position = self._take_word(text, position, _BEGIN, _At.REST_OF_BEGIN_LINE)
                case _At.END_LINE:
                    position = self._take_word(text, position, _END, _At.AFTER)
                case _At.FOOTER:
                    position = self._choose_footer(text, position)
                case _At.AFTER:
                    position = self._take_white_space(text, position)
                case _:
                    position = self._take_line(text, position)
        self._offset += len(text)

    def finish(self) -> None:
        """Take the end of the body; raises ``Truncated`` unless the END line was there."""
        if self._at is not _At.AFTER:
            raise Truncated(
                f"the armoured message stops after {self._offset} bytes, before its line {_END.decode()}; "
                "send the whole message"
            )

    def _take_word(self, text: bytes, position: int, word: bytes, then: _At) -> int:
        missing = word[len(self._line) :]
        piece = text[position : position + len(missing)]
        if not missing.startswith(piece):
            raise NotEncrypted(
                f"the line that begins at byte {self._offset + position - len(self._line)} is not {word.decode()}; "
                "an armoured message begins and ends with these lines, and a signature or a key is no message"
            )
        self._line += piece
        if len(piece) == len(missing):
            self._line = b""
            self._at = then
        return position + len(piece)

    def _take_line(self, text: bytes, position: int) -> int:
        """Gather one short line across buffers, and judge it when it is whole."""
        newline = text.find(b"\n", position, position + _LINE_BYTES + 1)
        stop = newline if newline >= 0 else min(len(text), position + _LINE_BYTES + 1)
        self._line += text[position:stop]
        if len(self._line) > _LINE_BYTES:
            raise self._line_too_long(position)
        if newline < 0:
            return stop
        line, self._line = self._line, b""
        self._judge_line(line, position)
        return newline + 1

    def _judge_line(self, line: bytes, position: int) -> None:
        blank = not line.strip(_WHITE_SPACE)
        if self._at is _At.REST_OF_BEGIN_LINE and blank:
            self._at = _At.HEADERS
        elif self._at is _At.HEADERS and blank:
            self._at = _At.TEXT
        elif self._at is _At.HEADERS and _HEADER.fullmatch(line) and self._header_lines < _HEADER_LINES:
            self._header_lines += 1
        elif self._at is _At.PADDING and _PADDING.fullmatch(line):
            self._end_text(line.count(b"="))
        elif self._at is _At.CHECKSUM and _CHECKSUM.fullmatch(line):
            self._at = _At.END_LINE
        else:
            raise NotEncrypted(
                f"the armour is malformed in the line before byte {self._offset + position + 1}: after its first line "
                f"come at most {_HEADER_LINES} 'Name: value' lines, an empty line, base64 text, a checksum after '=' "
                "that may be left out, and the END line (RFC 9580, 6.2)"
            )

    def _take_text(self, text: bytes, position: int) -> int:
        stops = [found for found in (text.find(b"-", position), text.find(b"=", position)) if found >= 0]
        stop = min(stops, default=len(text))
        segment = text[position:stop]
        rest = segment.translate(None, _BASE64)
        if rest.translate(None, _BREAKS):
            found = _NOT_TEXT.search(segment)
            raise self._not_text(position + (found.start() if found else 0))
        self._characters += len(segment) - len(rest)
        self._measure_lines(segment, position)
        self._recognise(segment)
        if stops:
            if not self._column:
                self._end_text(0)
            elif text[stop] == ord("="):
                self._at = _At.PADDING
            else:
                raise self._not_text(stop)
        return stop

    def _measure_lines(self, segment: bytes, position: int) -> None:
        """Hold every line to the limit by leaping from newline to newline, nearly a limit at a time."""
        line = -self._column
        while len(segment) - line > _LINE_BYTES:
            newline = segment.rfind(b"\n", max(line, 0), line + _LINE_BYTES + 1)
            if newline < 0:
                raise self._line_too_long(position + line)
            line = newline + 1
        line = max(line, segment.rfind(b"\n") + 1) if b"\n" in segment else line
        self._column = len(segment) - line

    def _recognise(self, segment: bytes) -> None:
        """Decode as much as it takes to see that the first packet is one of an encrypted message."""
        start = 0
        while start < len(segment) and not self._walk.recognised:
            piece = segment[start : start + _DECODE_CHARACTERS].translate(None, _BREAKS)
            start += _DECODE_CHARACTERS
            characters = self._undecoded + piece
            whole = len(characters) // 4 * 4
            self._undecoded = characters[whole:]
            self._walk.feed(binascii.a2b_base64(characters[:whole]))

    def _end_text(self, padding: int) -> None:
        if (self._characters + padding) % 4:
            raise Truncated(
                f"the base64 text of the armoured message has {self._characters} characters and {padding} of padding, "
                "which is no multiple of four; send the whole message"
            )
        if not self._walk.recognised:
            self._walk.feed(binascii.a2b_base64(self._undecoded + b"=" * padding))
        if not self._walk.recognised:
            raise Truncated(
                "the armoured message ends before a session key or encrypted data begins; send the whole message"
            )
        self._at = _At.FOOTER

    def _choose_footer(self, text: bytes, position: int) -> int:
        blank = _BLANK_LINES.match(text, position)
        position = blank.end() if blank else position
        if position < len(text):
            self._at = _At.CHECKSUM if text[position] == ord("=") else _At.END_LINE
        return position

    def _take_white_space(self, text: bytes, position: int) -> int:
        following = text[position:].lstrip(_WHITE_SPACE)
        if following:
            raise NotEncrypted(
                f"byte {self._offset + len(text) - len(following)} follows the armoured message's END line; "
                "send one message only, with nothing but white space after it"
            )
        return len(text)

    def _not_text(self, position: int) -> NotEncrypted:
        return NotEncrypted(
            f"byte {self._offset + position} is no base64 character; between its headers and its END line an "
            "armoured message holds nothing else (RFC 9580, 6.2)"
        )

    def _line_too_long(self, position: int) -> NotEncrypted:
        return NotEncrypted(
            f"the armoured message has a line of more than {_LINE_BYTES} bytes near byte {self._offset + position}; "
            "RFC 9580 allows 76"
        )
