"""Armoured messages: their lines, their text, and what the decoded beginning has to show."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.openpgp_samples import (
    EMPTY_PADDING,
    MARKER,
    MESSAGE,
    PKESK,
    SEIPD_BODY,
    SKESK,
    armoured,
    judge,
    new,
    old,
    partial,
    verdict,
)
from tornado_backups.domain.errors import NotEncrypted, Truncated
from tornado_backups.domain.openpgp import MessageCheck

LONG = PKESK + new(18, b"\x01" + os.urandom(5000))
LITERAL = new(11, b"b\x00\x00\x00\x00\x00" + b"plain text" * 9)

WHOLE = {
    "plain": armoured(),
    "long": armoured(LONG),
    "no checksum": armoured(checksum=None),
    "a checksum of three characters": armoured(checksum=b"=abc"),
    "a checksum of five characters": armoured(checksum=b"=abcde"),
    "CRLF": armoured(LONG, line_end=b"\r\n"),
    "headers": armoured(headers=[b"Version: GnuPG v2", b"Comment: caf\xc3\xa9: yes", b"Charset:"]),
    "no line end at the end": armoured(after=b""),
    "white space at the end": armoured(after=b" \t\r\n\n\r\n  \x0b\x0c"),
    "white space after the first line": armoured().replace(b"MESSAGE-----\n", b"MESSAGE----- \t\n", 1),
    "an empty line of blanks": armoured().replace(b"\n\n", b"\n \t\n", 1),
    "empty lines in the text": armoured().replace(b"\n=njUN", b"\n\n\r\n=njUN"),
    "empty lines after padding": armoured(MESSAGE + EMPTY_PADDING).replace(b"\n=njUN", b"\n\n\r\n=njUN"),
    "white space after the checksum": armoured().replace(b"=njUN", b"=njUN \r"),
    "lines of 76": armoured(LONG, width=76),
    "lines of 1000": armoured(LONG, width=1000),
    "lines of 1024": armoured(LONG, width=1024),
    "lines of 4": armoured(LONG, width=4),
    "lines of 5": armoured(LONG + b"xx"[: -len(LONG) % 3], width=5),
    "one sign of padding": armoured(PKESK + new(18, SEIPD_BODY + b"d" * ((1 - len(MESSAGE)) % 3 + 1))),
    "two signs of padding": armoured(PKESK + new(18, SEIPD_BODY + b"d" * ((1 - len(MESSAGE)) % 3))),
    "white space after padding": armoured(MESSAGE + EMPTY_PADDING).replace(b"=\n", b"= \t\n", 1),
    "a passphrase": armoured(SKESK + partial(18, (9, 12), b"end")),
    "a marker first": armoured(MARKER + MESSAGE),
    "much padding first": armoured(new(21, os.urandom(100_000)) + MESSAGE),
    "data whose later packets nobody decodes": armoured(PKESK + LITERAL),
}

REFUSED = {
    "a signature": armoured().replace(b"PGP MESSAGE", b"PGP SIGNATURE"),
    "a key": armoured().replace(b"PGP MESSAGE", b"PGP PUBLIC KEY BLOCK"),
    "a cleartext signature": b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nplain\n",
    "one of several parts": armoured().replace(b"MESSAGE-----", b"MESSAGE, PART 1/2-----", 1),
    "something on the first line": armoured().replace(b"MESSAGE-----", b"MESSAGE-----x", 1),
    "a line before": b"\n" + armoured(),
    "a byte order mark": b"\xef\xbb\xbf" + armoured(),
    "an SQL comment": b"-- PostgreSQL database dump\n",
    "a PEM certificate": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "a literal packet": armoured(LITERAL),
    "a literal packet after a marker": armoured(MARKER + LITERAL),
    "a literal packet after much padding": armoured(new(21, b"r" * 100_000) + LITERAL),
    "an armoured signature packet": armoured(old(2, b"\x04" + b"s" * 70, 1)),
    "no empty line": armoured().replace(b"\n\n", b"\n", 1),
    "a header without a colon": armoured(headers=[b"Version"]),
    "a header without a name": armoured(headers=[b": yes"]),
    "too many headers": armoured(headers=[b"Comment: x"] * 65),
    "too long a header": armoured(headers=[b"Comment: " + b"x" * 1100]),
    "a header with no end": b"-----BEGIN PGP MESSAGE-----\nComment: " + b"x" * 5000,
    "lines of 1028": armoured(LONG, width=1028),
    "one endless line": armoured(LONG, width=100_000),
    "a blank in the text": armoured(LONG).replace(b"AAA", b"AA A", 1) + b"x",
    "a letter beyond ASCII in the text": armoured(LONG)[:300] + b"\xc3\xa9" + armoured(LONG)[302:],
    "a NUL in the text": armoured(LONG)[:300] + b"\0" + armoured(LONG)[301:],
    "a dash in the middle of a line": armoured(LONG)[:301] + b"-" + armoured(LONG)[302:],
    "a sign of padding in the text": armoured(LONG)[:301] + b"=" + armoured(LONG)[302:],
    "three signs of padding": armoured(MESSAGE + EMPTY_PADDING).replace(b"=\n", b"===\n", 1),
    "a checksum of other characters": armoured(checksum=b"=ab!c"),
    "two checksums": armoured(checksum=b"=abcd\n=abcd"),
    "text after the checksum": armoured(checksum=b"=abcd\nABCD"),
    "another END line": armoured().replace(b"END PGP MESSAGE", b"END PGP SIGNATURE"),
    "something on the END line": armoured(after=b"x\n"),
    "text after the END line": armoured(after=b"\nplain"),
    "a NUL after the END line": armoured(after=b"\n\0"),
    "a second message": armoured() + armoured(),
}

BROKEN_OFF = {
    "text cut in a group of four": armoured(LONG).replace(b"\n=njUN", b"A\n=njUN"),
    "no text": b"-----BEGIN PGP MESSAGE-----\n\n-----END PGP MESSAGE-----\n",
    "half a packet header": armoured(b"\xc1"),
    "only a marker": armoured(MARKER),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_message_is_accepted_however_it_is_cut(name: str) -> None:
    body = WHOLE[name]
    judge(body)
    judge(body, *range(0, len(body), 1 if len(body) < 20_000 else 61))
    for cut in range(min(len(body), 400)):
        judge(body, cut)


@pytest.mark.parametrize("name", WHOLE)
def test_a_message_without_its_end_line_is_truncated(name: str) -> None:
    body = WHOLE[name]
    end = body.index(b"-----END PGP MESSAGE-----") + len(b"-----END PGP MESSAGE-----")
    for stop in {*range(1, min(end, 300)), *range(max(end - 100, 1), end)}:
        assert verdict(body[:stop]) == "truncated", stop
    assert verdict(body[:end]) == "accepted"


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_not_encrypted_however_it_is_cut(name: str) -> None:
    body = REFUSED[name]
    assert verdict(body) == "not-encrypted"
    assert verdict(body, *range(0, len(body), 1 if len(body) < 20_000 else 61)) == "not-encrypted"


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_a_message_whose_text_breaks_off_is_truncated(name: str) -> None:
    body = BROKEN_OFF[name]
    assert verdict(body) == verdict(body, *range(len(body))) == "truncated"


@pytest.mark.parametrize(
    ("body", "known_after"),
    [
        (b"-- dump", 3),
        (b"-----BEGIN PGP SIG", len(b"-----BEGIN PGP S")),
        (armoured(LITERAL), len(b"-----BEGIN PGP MESSAGE-----\n\n") + 4),
        (armoured(after=b"x"), len(armoured(after=b"x"))),
    ],
)
def test_a_refusal_comes_with_the_first_byte_that_shows_it(body: bytes, known_after: int) -> None:
    check = MessageCheck()
    check.feed(body[: known_after - 1])
    with pytest.raises(NotEncrypted):
        check.feed(body[known_after - 1 : known_after])


def test_a_refusal_names_the_place() -> None:
    body = armoured(LONG)
    with pytest.raises(NotEncrypted, match=r"byte 300 is no base64 character"):
        judge(body[:300] + b"!" + body[301:], 77, 200)
    with pytest.raises(NotEncrypted, match=rf"byte {len(body)} follows the armoured message's END line"):
        judge(body + b"x", 100)
    with pytest.raises(NotEncrypted, match=r"the line that begins at byte 0 is not -----BEGIN PGP MESSAGE-----"):
        judge(b"-----BEGIN PGP PUBLIC", 12)
    with pytest.raises(Truncated, match=rf"stops after {len(body) - 9} bytes, before its line -----END PGP MESSAGE"):
        judge(body[:-9])


def test_a_memoryview_is_as_good_as_bytes() -> None:
    check = MessageCheck()
    check.feed(memoryview(armoured(LONG)))
    check.finish()


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=3000),
    st.integers(1, 255).map(lambda groups: groups * 4),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 5000), max_size=20),
)
def test_any_armour_at_any_cut_is_accepted(tail: bytes, width: int, line_end: bytes, cuts: list[int]) -> None:
    message = PKESK + new(18, SEIPD_BODY + tail)
    body = armoured(message, width=width, line_end=line_end)
    judge(body, *(cut for cut in cuts if cut < len(body)))


@settings(max_examples=300, deadline=None)
@given(
    st.text("AZaz09+/=-\r\n \t:!\0", max_size=60),
    st.sampled_from(["", "-----BEGIN PGP MESSAGE-----", "-----BEGIN PGP MESSAGE-----\n\nhAEDa2tra2tra2tra2tra2tr"]),
    st.data(),
)
def test_the_verdict_on_any_text_does_not_depend_on_the_cuts(noise: str, before: str, data: st.DataObject) -> None:
    body = (before + noise).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    assert verdict(body) == verdict(body, *cuts) == verdict(body, *range(len(body)))
