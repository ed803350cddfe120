"""Forms as browsers, curl and libraries send them, cut anywhere; and forms that mean harm."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tornado_backups.domain.errors import BackupError, BadRequest, Truncated
from tornado_backups.web.form import FORM_OVERHEAD_BYTES, HEADER_BLOCK_BYTES, FormReader

CURL = "------------------------d74496d66958873e"
FILE_HEADERS = (
    b'Content-Disposition: form-data; name="file"; filename="db.gpg"\r\nContent-Type: application/octet-stream\r\n'
)
OTHER_HEADERS = b'Content-Disposition: form-data; name="comment"\r\n'
PAYLOAD = b"\x85\x01\x0c\r\n--\r\n\r\r\n-" + bytes(range(256)) + b"\r\n--------\r\n"


def part(payload: bytes = PAYLOAD, headers: bytes = FILE_HEADERS, boundary: str = CURL) -> bytes:
    return b"--" + boundary.encode() + b"\r\n" + headers + b"\r\n" + payload + b"\r\n"


def close(boundary: str = CURL) -> bytes:
    return b"--" + boundary.encode() + b"--\r\n"


def read(body: bytes, *cuts: int, boundary: str = CURL) -> tuple[bytes, FormReader]:
    """Feed the body cut at these offsets and finish; return the payload and the reader."""
    reader = FormReader(boundary)
    payload = b""
    start = 0
    for cut in (*sorted(cuts), len(body)):
        pieces = reader.feed(body[start:cut])
        assert all(pieces)
        payload += b"".join(pieces)
        start = max(start, cut)
    reader.finish()
    return payload, reader


def outcome(body: bytes, *cuts: int) -> tuple[str, bytes]:
    try:
        return "read", read(body, *cuts)[0]
    except BackupError as error:
        return error.sentence, b""


FORMS = {
    "curl": (part() + close(), PAYLOAD),
    "other parts around": (part(b"x", OTHER_HEADERS) + part() + part(b"y\r\n", OTHER_HEADERS) + close(), PAYLOAD),
    "a preamble": (b"This is a multi-part message.\r\n--not\r\n" + part() + close(), PAYLOAD),
    "an empty line first": (b"\r\n" + part() + close(), PAYLOAD),
    "an epilogue": (part() + close() + b"bye\r\n" + part(), PAYLOAD),
    "no line end at the end": (part() + close()[:-2], PAYLOAD),
    "white space after the boundaries": (
        (part() + close()).replace(b"73e\r\n", b"73e \t \r\n").replace(b"73e--\r\n", b"73e--  \r\n"),
        PAYLOAD,
    ),
    "an empty file": (part(b"") + close(), b""),
    "a part without a body": (b"--" + CURL.encode() + b"\r\n" + FILE_HEADERS + b"\r\n" + close(), b""),
    "one byte": (part(b"x") + close(), b"x"),
    "only a line end": (part(b"\r\n") + close(), b"\r\n"),
    "line ends to the end": (part(b"\r\n\r\n\r") + close(), b"\r\n\r\n\r"),
    "almost a boundary": (
        part(b"\r\n--" + CURL.encode()[:-1] + b"\r\n" + CURL.encode() + b"\n--" + CURL.encode()) + close(),
        b"\r\n--" + CURL.encode()[:-1] + b"\r\n" + CURL.encode() + b"\n--" + CURL.encode(),
    ),
    "headers in other cases": (
        part(headers=b"content-TYPE: x/y\r\nCONTENT-disposition:FORM-DATA;NAME=file;FileName=db.gpg\r\n") + close(),
        PAYLOAD,
    ),
    "a folded header": (part(headers=b'Content-Disposition: form-data;\r\n\t name="file"\r\n') + close(), PAYLOAD),
    "a binary transfer encoding": (
        part(headers=FILE_HEADERS + b"Content-Transfer-Encoding: Binary\r\n") + close(),
        PAYLOAD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_file_is_read_whole_however_the_form_is_cut(name: str) -> None:
    body, payload = FORMS[name]
    found, reader = read(body)
    assert found == payload
    assert reader.done
    assert read(body, *range(len(body)))[0] == payload
    for cut in range(len(body)):
        assert read(body, cut)[0] == payload


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"\r\n--b", b"bound", b"x", b"\0"]), max_size=40),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_payload_is_the_same_at_any_cut(pieces: list[bytes], cuts: list[int]) -> None:
    payload = b"".join(pieces)
    assume(b"\r\n--bound" not in b"\r\n" + payload)
    body = part(payload, boundary="bound") + close("bound")
    assert read(body, *(cut for cut in cuts if cut < len(body)), boundary="bound")[0] == payload


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"--" + CURL.encode(), b"\r\n", b"--", b"\r", FILE_HEADERS, OTHER_HEADERS, b"a: b", b" ", b"junk"]
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, 600), max_size=8),
)  # fmt: skip
def test_the_outcome_of_any_form_does_not_depend_on_the_cuts(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"".join(pieces)
    assert outcome(body) == outcome(body, *(cut for cut in cuts if cut < len(body))) == outcome(body, *range(len(body)))


def test_the_payload_is_handed_on_at_once_and_little_is_held_back() -> None:
    reader = FormReader(CURL)
    big = os.urandom(500_000).replace(b"\r", b"r")
    assert reader.feed(part(big)[: -len(b"\r\n")]) == [big]
    assert reader.in_file
    assert reader.feed(big) == [big]
    assert reader.feed(b"x\r") == [b"x"]
    assert reader.feed(b"y") == [b"\ry"]
    assert reader.feed(b"\r\n" + close()) == []
    assert not reader.in_file
    assert reader.done


def test_the_file_name_is_known_when_the_file_begins() -> None:
    reader = FormReader(CURL)
    assert reader.filename == ""
    assert not reader.in_file
    reader.feed(part(b"x", OTHER_HEADERS))
    assert not reader.in_file
    reader.feed(b"--" + CURL.encode() + b"\r\n" + FILE_HEADERS + b"\r\n")
    assert reader.in_file
    assert reader.filename == "db.gpg"
    assert not reader.done


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        (b'filename="a b;c.gpg"', "a b;c.gpg"),
        (b'filename="a\\"b.gpg"', 'a"b.gpg'),
        (b'filename="C:\\backups\\db.gpg"', "C:\\backups\\db.gpg"),
        ('filename="żółw.gpg"'.encode(), "żółw.gpg"),
        (b"filename=plain.gpg ; x=y;", "plain.gpg"),
        (b'filename=""', ""),
        (b"x=y", ""),
    ],
)
def test_file_names_are_read_as_clients_write_them(written: bytes, read_as: str) -> None:
    _, reader = read(part(headers=b"Content-Disposition: form-data; name=file; " + written + b"\r\n") + close())
    assert reader.filename == read_as


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        (f"multipart/form-data; boundary={CURL}", CURL),
        ('multipart/form-data; boundary="a b:c=d?"', "a b:c=d?"),
        ("Multipart/Form-Data;charset=utf-8 ; BOUNDARY=----WebKitForm7MA4YWxk; ", "----WebKitForm7MA4YWxk"),
        ("multipart/form-data; boundary==_abc=", "=_abc="),
        ("multipart/form-data; boundary=" + "b" * 70, "b" * 70),
    ],
)  # fmt: skip
def test_the_boundary_is_taken_from_the_content_type(value: str, boundary: str) -> None:
    reader = FormReader.from_content_type(value)
    assert b"".join(reader.feed(part(boundary=boundary) + close(boundary))) == PAYLOAD
    reader.finish()


@pytest.mark.parametrize(
    "value",
    [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 71,
        'multipart/form-data; boundary="ends with a blank "',
        'multipart/form-data; boundary="a\r\nb"',
        'multipart/form-data; boundary="a;b"',
        "multipart/form-data; boundary=żółw",
        "multipart/form-data; boundary=a; boundary=b",
        'multipart/form-data; boundary="unclosed',
        "multipart/mixed; boundary=a",
        "application/octet-stream",
        "",
    ],
)
def test_a_content_type_without_a_usable_boundary_is_a_bad_request(value: str) -> None:
    with pytest.raises(BadRequest):
        FormReader.from_content_type(value)


NO_FILE = {
    "nothing": b"",
    "only a close": close(),
    "another part": part(headers=OTHER_HEADERS) + close(),
    "a name in another case": part(headers=b'Content-Disposition: form-data; name="File"\r\n') + close(),
    "not a form": b"\x85\x01\x0c" + b"x" * 1000,
    "the headers cut": part()[:60],
    "another boundary": part(boundary="other") + close("other"),
    "bare line feeds": (part() + close()).replace(b"\r\n", b"\n")[:30],
    "the file in the epilogue": close() + part() + close(),
}

MALFORMED = {
    "two files": part() + part() + close(),
    "no disposition": part(headers=b"Content-Type: text/plain\r\n") + close(),
    "no headers": part(headers=b"") + close(),
    "no name": part(headers=b"Content-Disposition: form-data\r\n") + close(),
    "an attachment": part(headers=b'Content-Disposition: attachment; name="file"\r\n') + close(),
    "a disposition that cannot be read": part(headers=b'Content-Disposition: form-data; name="file\r\n') + close(),
    "two names": part(headers=b"Content-Disposition: form-data; name=file; name=x\r\n") + close(),
    "two dispositions": part(headers=FILE_HEADERS + OTHER_HEADERS) + close(),
    "a line that is no header": part(headers=FILE_HEADERS + b"hello\r\n") + close(),
    "a header without a name": part(headers=FILE_HEADERS + b": x\r\n") + close(),
    "a NUL in a header": part(headers=FILE_HEADERS + b"X: a\0b\r\n") + close(),
    "a bare line feed in a header": part(headers=FILE_HEADERS + b"X: a\nb\r\n") + close(),
    "base64": part(headers=FILE_HEADERS + b"Content-Transfer-Encoding: base64\r\n") + close(),
    "a longer boundary": part().replace(b"73e\r\n", b"73ef\r\n") + close(),
    "a boundary with one dash": part() + b"--" + CURL.encode() + b"-\r\n",
    "a boundary with a bare line feed": part().replace(b"73e\r\n", b"73e\n") + close(),
    "endless white space after a boundary": part() + b"--" + CURL.encode() + b" " * 300 + b"\r\n",
    "endless headers": part(headers=FILE_HEADERS + b"X: " + b"x" * HEADER_BLOCK_BYTES + b"\r\n"),
    "headers that never end": part()[:60] + b"x" * HEADER_BLOCK_BYTES,
    "a long preamble": b"x" * FORM_OVERHEAD_BYTES + b"xx\r\n" + part() + close(),
    "a long other part": part(b"x" * FORM_OVERHEAD_BYTES, OTHER_HEADERS) + part() + close(),
    "a long epilogue": part() + close() + b"x" * FORM_OVERHEAD_BYTES,
    "a flood of parts": part(b"", OTHER_HEADERS) * 1000 + part() + close(),
    "a flood of blanks": (part(b"", OTHER_HEADERS).replace(b"73e\r\n", b"73e" + b" " * 250 + b"\r\n")) * 250 + close(),
}


@pytest.mark.parametrize("name", NO_FILE)
def test_a_form_without_a_file_is_a_bad_request(name: str) -> None:
    for cuts in ((), tuple(range(len(NO_FILE[name])))):
        with pytest.raises(BadRequest, match="no part named 'file'"):
            read(NO_FILE[name], *cuts)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_form_is_a_bad_request_however_it_is_cut(name: str) -> None:
    body = MALFORMED[name]
    for cuts in ((), tuple(range(0, len(body), 1 if len(body) < 12_000 else 97))):
        with pytest.raises(BadRequest):
            read(body, *cuts)


def test_a_form_that_stops_within_the_file_or_before_its_close_is_truncated() -> None:
    body = part() + part(b"x", OTHER_HEADERS) + close()
    begun = body.index(b"\r\n\r\n") + 4
    whole = len(body) - 2
    for stop in range(begun, whole):
        with pytest.raises(Truncated, match="stops before its closing boundary"):
            read(body[:stop])
    assert read(body[:whole])[0] == PAYLOAD


def test_other_parts_up_to_the_bound_are_skipped() -> None:
    assert read(part(b"x" * (FORM_OVERHEAD_BYTES - 1000), OTHER_HEADERS) + part() + close())[0] == PAYLOAD


@pytest.mark.parametrize(
    "hostile",
    [
        b"\r" * 4_000_000,
        b"\r\n--" * 1_000_000,
        (b"\r\n--" + CURL.encode()[:-1]) * 90_000,
        b"-" * 4_000_000,
        (b"\r\n" + b"-" * 26) * 140_000,
    ],
    ids=["CR", "line ends", "almost boundaries", "dashes", "dashes in lines"],
)
def test_hostile_payloads_cost_no_more_than_linear_time(hostile: bytes) -> None:
    body = part(hostile) + close()
    begun = time.process_time()
    assert len(read(body, *range(0, len(body), 65_536))[0]) == len(hostile)
    assert time.process_time() - begun < 2


def test_headers_that_arrive_byte_by_byte_hold_no_more_than_their_bound() -> None:
    reader = FormReader(CURL)
    reader.feed(b"--" + CURL.encode() + b"\r\n")
    for _ in range(HEADER_BLOCK_BYTES - 3):
        assert reader.feed(b"x") == []
    with pytest.raises(BadRequest, match=f"longer than {HEADER_BLOCK_BYTES} bytes"):
        reader.feed(b"x")
