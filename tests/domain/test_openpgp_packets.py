"""Binary messages: every length form, every order of packets, every way to cut the stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.openpgp_samples import (
    EMPTY_PADDING,
    MARKER,
    MESSAGE,
    PKESK,
    PKESK_BODY,
    SEIPD,
    SEIPD_BODY,
    SKESK,
    SKESK_BODY,
    judge,
    new,
    old,
    partial,
    verdict,
)
from tornado_backups.domain.errors import EmptyUpload, NotEncrypted, Truncated
from tornado_backups.domain.openpgp import MessageCheck

AEAD = new(20, b"\x01" + b"a" * 40)
UNPROTECTED = new(9, b"e" * 30)

WHOLE = {
    "one recipient": MESSAGE,
    "a passphrase": SKESK + SEIPD,
    "recipients and a passphrase": PKESK * 5 + SKESK * 2 + SEIPD,
    "no session key packet": SEIPD,
    "session keys of every version": b"".join(
        [new(1, bytes([v]) + PKESK_BODY[1:]) for v in (2, 3, 6)]
        + [new(3, bytes([v]) + SKESK_BODY[1:]) for v in (4, 5, 6)]
    )
    + SEIPD,
    "version 2 of encrypted and integrity protected data": SKESK + new(18, b"\x02" + b"d" * 80),
    "AEAD encrypted data": SKESK + AEAD,
    "data without integrity protection": PKESK + UNPROTECTED,
    "one-octet lengths": new(1, PKESK_BODY, 1) + new(18, SEIPD_BODY, 1),
    "two-octet lengths": new(1, PKESK_BODY + b"k" * 300, 2) + new(18, SEIPD_BODY * 20, 2),
    "five-octet lengths": new(1, PKESK_BODY, 5) + new(18, SEIPD_BODY, 5),
    "old lengths of one octet": old(1, PKESK_BODY, 0) + old(9, SEIPD_BODY, 0),
    "old lengths of two octets": old(1, PKESK_BODY, 1) + old(9, SEIPD_BODY, 1),
    "old lengths of four octets": old(3, SKESK_BODY, 2) + old(9, SEIPD_BODY, 2),
    "old data without a length": PKESK + old(9, SEIPD_BODY * 9, 3),
    "parts": PKESK + partial(18, (9, 13, 9), b"end"),
    "parts that end with an empty one": PKESK + partial(18, (9,), b""),
    "parts of every small size": PKESK + partial(18, (9, *range(11)), b"x" * 200),
    "parts that end with a long one": PKESK + partial(20, (10,), b"x" * 9000),
    "long parts of changing sizes": PKESK + partial(18, (13, 13, 12, 13, 12, 12, 12, 9, 13, 13), b"end"),
    "parts without integrity protection": PKESK + partial(9, (9, 9), b"x" * 200),
    "markers and padding everywhere": MARKER + EMPTY_PADDING + PKESK + new(21, b"r" * 300) + MARKER + SEIPD + MARKER
    + new(21, b"tail"),
    "markers in every form": old(10, b"PGP", 2) + new(10, b"PGP", 5) + MESSAGE,
}  # fmt: skip

REFUSED = {
    "a literal packet": new(11, b"b\x00\x00\x00\x00\x00text"),
    "a compressed packet": old(8, b"\x01abc", 3),
    "a signature": old(2, b"\x04" + b"s" * 70, 1),
    "a signed message": new(4, b"\x03" + b"s" * 12) + new(11, b"b\x00\x00\x00\x00\x00text"),
    "a public key": old(6, b"\x04" + b"p" * 70, 1),
    "a packet of an unknown type": new(60, b"?"),
    "a reserved packet": new(0, b"?"),
    "a literal packet after a session key": PKESK + new(11, b"b\x00\x00\x00\x00\x00text"),
    "a literal packet after a marker": MARKER + new(11, b"b\x00\x00\x00\x00\x00text"),
    "text": b"CREATE TABLE backups;",
    "white space before the message": b"\n" + MESSAGE,
    "text after a session key": PKESK + b"plain",
    "a second message": MESSAGE + MESSAGE,
    "a second encrypted data packet": MESSAGE + SEIPD,
    "a session key after the data": MESSAGE + PKESK,
    "a line feed after the message": MESSAGE + b"\n",
    "a NUL after the message": MESSAGE + b"\0",
    "a literal packet after the message": MESSAGE + MARKER + new(11, b"b\x00\x00\x00\x00\x00text"),
    "a first part under 512 bytes": PKESK + partial(18, (8,), b"end"),
    "a session key in parts": partial(1, (9,), b"end", b"\x03") + SEIPD,
    "padding in parts": partial(21, (9,), b"end") + MESSAGE,
    "a session key without a length": old(1, PKESK_BODY, 3),
    "data without a length and without a session key": old(9, SEIPD_BODY, 3),
    "data without a length after a marker": MARKER + old(9, SEIPD_BODY, 3),
    "an unknown version of a public-key session key": new(1, b"\x09" + PKESK_BODY[1:]) + SEIPD,
    "an unknown version of a passphrase session key": new(3, b"\x03" + SKESK_BODY[1:]) + SEIPD,
    "an unknown version of encrypted data": PKESK + new(18, b"\x07" + SEIPD_BODY[1:]),
    "an unknown version of AEAD data": PKESK + new(20, b"\x02" + b"a" * 40),
    "an unknown version in parts": PKESK + partial(18, (9,), b"end", b"\x05"),
    "too short a public-key session key": new(1, PKESK_BODY[:11]) + SEIPD,
    "too short a passphrase session key": new(3, SKESK_BODY[:3]) + SEIPD,
    "too short encrypted data": PKESK + new(18, SEIPD_BODY[:10]),
    "too short AEAD data": PKESK + new(20, b"\x01" + b"a" * 17),
    "too short data without integrity protection": PKESK + new(9, b"e" * 9),
    "empty encrypted data": PKESK + new(18, b""),
    "a marker that holds something else": new(10, b"PGQ") + MESSAGE,
    "a marker that is too long": new(10, b"PGPP") + MESSAGE,
    "a marker that is too short": new(10, b"PG") + MESSAGE,
    "a flood of packets": EMPTY_PADDING * 10_001 + MESSAGE,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_message_is_accepted_however_it_is_cut(name: str) -> None:
    body = WHOLE[name]
    judge(body)
    judge(body, *range(len(body)))
    for cut in range(min(len(body), 700)):
        judge(body, cut)


@pytest.mark.parametrize("name", WHOLE)
def test_a_message_that_stops_early_is_truncated_at_every_byte(name: str) -> None:
    body = WHOLE[name]
    whole_at = {len(body)}
    if "without a length" in name:
        whole_at = set(range(len(PKESK) + 1 + 10, len(body) + 1))
    if "everywhere" in name:
        tail = len(new(21, b"tail"))
        whole_at |= {len(body) - tail, len(body) - tail - len(MARKER)}
    for stop in range(1, len(body)):
        assert verdict(body[:stop]) == ("accepted" if stop in whole_at else "truncated"), stop


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_not_encrypted_however_it_is_cut(name: str) -> None:
    body = REFUSED[name]
    assert verdict(body) == "not-encrypted"
    assert verdict(body, *range(len(body))) == "not-encrypted"
    assert verdict(body, 1) == "not-encrypted"


def test_an_empty_body_is_empty_also_after_empty_pieces() -> None:
    check = MessageCheck()
    check.feed(b"")
    check.feed(memoryview(b""))
    with pytest.raises(EmptyUpload, match="the body is empty"):
        check.finish()


def test_a_memoryview_is_as_good_as_bytes() -> None:
    check = MessageCheck()
    check.feed(memoryview(MESSAGE)[:30])
    check.feed(memoryview(MESSAGE)[30:])
    check.finish()


@pytest.mark.parametrize(
    ("body", "known_after"),
    [
        (b"plain text", 1),
        (new(11, b"literal"), 1),
        (PKESK + b"plain", len(PKESK) + 1),
        (MESSAGE + b"\n", len(MESSAGE) + 1),
        (partial(18, (8,), b""), 2),
        (old(1, PKESK_BODY, 3), 1),
        (new(10, b"PxP"), 4),
        (new(18, b"\x09" + b"d" * 60), 3),
        (new(18, b"\x01" + b"d" * 9), 2),
    ],
)
def test_a_refusal_comes_with_the_first_byte_that_shows_it(body: bytes, known_after: int) -> None:
    check = MessageCheck()
    for at in range(known_after - 1):
        check.feed(body[at : at + 1])
    with pytest.raises(NotEncrypted):
        check.feed(body[known_after - 1 : known_after])


def test_a_refusal_names_what_was_found_and_where() -> None:
    with pytest.raises(NotEncrypted, match=rf"byte {len(PKESK)} begins literal data that is not encrypted"):
        judge(PKESK + new(11, b"text"), 5, 11)
    with pytest.raises(NotEncrypted, match=rf"the OpenPGP message ends before byte {len(MESSAGE)}, but more follows"):
        judge(MESSAGE + MESSAGE, 3, 40)
    with pytest.raises(NotEncrypted, match=r"byte 0 begins a packet of type 60"):
        judge(new(60, b"x"))
    with pytest.raises(Truncated, match=rf"stops after {len(MESSAGE) - 1} bytes, in the middle"):
        judge(MESSAGE[:-1])
    with pytest.raises(Truncated, match=rf"stops after {len(PKESK) + 1} bytes, before its encrypted data"):
        judge(PKESK + SEIPD[:1])


def test_a_refusal_never_repeats_what_was_uploaded() -> None:
    with pytest.raises(NotEncrypted) as caught:
        judge(b"Secret: hunter2")
    assert "hunter2" not in caught.value.sentence


def test_ten_thousand_packets_are_taken() -> None:
    judge(PKESK * 9_999 + SEIPD)


def test_many_small_parts_are_taken_in_bulk_and_at_any_cut() -> None:
    body = PKESK + partial(18, (9, *([0, 1, 2, 3, 4, 5, 6, 7] * 6)), b"end")
    judge(body)
    judge(body, *range(len(body)))
    for cut in range(len(PKESK), len(body), 7):
        judge(body, cut)


PARTS = st.lists(st.integers(0, 8), max_size=12)
FORMS = st.sampled_from([1, 2, 5])
MESSAGES = st.builds(
    lambda keys, padding, parts, last: b"".join(keys) + padding + partial(18, (9, *parts), last),
    st.lists(
        st.one_of(
            st.just(PKESK), st.just(SKESK), st.just(MARKER), st.binary(max_size=50).map(lambda body: new(21, body, 5))
        ),
        max_size=5,
    ),
    st.sampled_from([b"", EMPTY_PADDING]),
    PARTS,
    st.binary(max_size=300),
)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, st.lists(st.integers(0, 3000), max_size=20))
def test_any_message_at_any_cut_is_accepted_and_its_beginnings_are_not(body: bytes, cuts: list[int]) -> None:
    judge(body, *(cut for cut in cuts if cut < len(body)))
    for cut in cuts:
        if 0 < cut < len(body):
            assert verdict(body[:cut]) == "truncated"


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.sampled_from([b"", PKESK, MARKER, MESSAGE, b"\xd2\xe9"]), st.data())
def test_the_verdict_on_any_bytes_does_not_depend_on_the_cuts(noise: bytes, before: bytes, data: st.DataObject) -> None:
    body = before + noise
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    assert verdict(body) == verdict(body, *cuts) == verdict(body, *range(len(body)))
