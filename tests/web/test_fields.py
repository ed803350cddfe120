"""Header fields, read and written: examples of the RFCs, and what clients really send."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from tornado_backups.domain.errors import BadRequest, RangeNotSatisfiable
from tornado_backups.web.fields import (
    ByteRange,
    content_disposition,
    declared_digest,
    declared_form_digest,
    etag_for,
    etag_matches,
    http_date,
    if_range_matches,
    parse_range,
    repr_digest,
)

SHA = hashlib.sha256(b"backup").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
B64 = base64.b64encode(bytes.fromhex(SHA)).decode()
NOON = datetime(2024, 5, 1, 12, 30, 15, 999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "size", "start", "length"),
    [
        ("bytes=0-499", 10_000, 0, 500),
        ("bytes=500-999", 10_000, 500, 500),
        ("bytes=9500-", 10_000, 9500, 500),
        ("bytes=-500", 10_000, 9500, 500),
        ("bytes=0-0", 10_000, 0, 1),
        ("bytes=9999-9999", 10_000, 9999, 1),
        ("bytes=-1", 10_000, 9999, 1),
        ("bytes=9000-99999", 10_000, 9000, 1000),
        ("bytes=-99999", 10_000, 0, 10_000),
        ("bytes=0-", 1, 0, 1),
        ("Bytes= 5-6 , ", 10, 5, 2),
        ("bytes=,5-6", 10, 5, 2),
        ("bytes=0-" + "9" * 5000, 10, 0, 10),
        ("bytes=" + "0" * 5000 + "3-4", 10, 3, 2),
        ("bytes=-" + "9" * 5000, 10, 0, 10),
    ],
)
def test_one_range_is_cut_to_the_object(value: str, size: int, start: int, length: int) -> None:
    assert parse_range(value, size) == ByteRange(start, length)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=0-1,3-4",
        "items=0-5",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1.5-2",
        "bytes=٣-٤",
        "bytes=--1",
        "bytes 0-5",
        "bytes=0x1-2",
    ],
)
def test_a_range_that_is_malformed_or_not_one_is_ignored(value: str) -> None:
    assert parse_range(value, 10) is None


def test_a_range_of_an_empty_object_is_ignored() -> None:
    assert parse_range("bytes=0-", 0) is None
    assert parse_range("bytes=-5", 0) is None


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_a_range_without_a_byte_of_the_object_is_not_satisfiable(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(value, 10)
    assert caught.value.size_bytes == 10
    assert len(caught.value.sentence) < 200


def test_content_range_counts_from_zero_and_includes_the_last() -> None:
    assert ByteRange(500, 500).content_range(10_000) == "bytes 500-999/10000"


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 50)), st.integers(1, 40))
def test_a_range_selects_what_a_slice_would(first: int, last: int | None, size: int) -> None:
    data = bytes(range(size))
    value = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert parse_range(value, size) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(value, size)
    else:
        found = parse_range(value, size)
        assert found is not None
        assert data[found.start : found.start + found.length] == data[first : None if last is None else last + 1]


@given(st.text("bytes=-0123456789, \t", max_size=30))
def test_any_range_is_within_the_object_or_refused(value: str) -> None:
    try:
        found = parse_range("bytes=" + value, 10)
    except RangeNotSatisfiable:
        return
    assert found is None or (found.start >= 0 and found.length > 0 and found.start + found.length <= 10)


def test_if_range_wants_the_same_strong_tag_or_the_same_date() -> None:
    etag = etag_for(SHA)
    assert if_range_matches(f" {etag} ", etag, NOON)
    assert not if_range_matches(f"W/{etag}", etag, NOON)
    assert not if_range_matches(etag_for(OTHER), etag, NOON)
    assert if_range_matches("Wed, 01 May 2024 12:30:15 GMT", etag, NOON)
    assert not if_range_matches("Wed, 01 May 2024 12:30:16 GMT", etag, NOON)
    assert not if_range_matches('""', "", NOON)
    assert not if_range_matches("", "", NOON)


def test_if_none_match_compares_weakly_and_takes_lists_and_a_star() -> None:
    etag = etag_for(SHA)
    assert etag_matches(etag, etag)
    assert etag_matches(f'"a", W/{etag} ,"b,c"', etag)
    assert etag_matches(" * ", etag)
    assert not etag_matches(f'"x{SHA}"', etag)
    assert not etag_matches(SHA, etag)
    assert not etag_matches("", etag)
    assert not etag_matches('""', "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Digest": f"sha-256=:{B64}:"},
        {"Repr-Digest": f"sha-256=:{B64}:"},
        {"X-Content-Sha256": SHA},
        {"x-content-sha256": f" {SHA.upper()} "},
        {"content-digest": f"  sha-512=:{'A' * 86}==: ,\tsha-256=:{B64}:"},
        {"Content-Digest": f"sha-256=:{B64.rstrip('=')}:"},
        {"Content-Digest": f'sha-256=:{B64}:;q=0.5; v="a\\"b,c";x;y=:AA==:, md5=:AAAA:'},
        {"Content-Digest": f"sha-256=:{B64}:, sha-256=:{B64}:"},
        {"Content-Digest": f"sha-256=:{B64}:", "Repr-Digest": f"sha-256=:{B64}:", "X-Content-Sha256": SHA},
    ],
)
def test_a_declared_digest_is_read_as_lower_case_hex(headers: dict[str, str]) -> None:
    assert declared_digest(HTTPHeaders(headers).get) == SHA


@pytest.mark.parametrize("headers", [{}, {"Content-Digest": ""}, {"Repr-Digest": "sha-512=:AAAA:, md5=:AA==:"}])
def test_without_a_sha256_nothing_is_promised(headers: dict[str, str]) -> None:
    assert declared_digest(HTTPHeaders(headers).get) is None


@pytest.mark.parametrize(
    "value",
    [
        "sha-256",
        f"sha-256={B64}",
        f"SHA-256=:{B64}:",
        f"sha-256=:{B64}",
        f"sha-256=:{B64}:,",
        f",sha-256=:{B64}:",
        f"sha-256=:{B64}: md5=:AA==:",
        f"sha-256=:{B64}:;",
        f"sha-256=:{B64[:-8]}:",
        f"sha-256=:{B64}AAAA:",
        "sha-256=::",
        "sha-256=:A:",
        "sha-256=:A=A=:",
        f"sha-256=:{SHA}:",
        "sha-512=1",
        f"sha-256=:{B64}:, sha-256=:{base64.b64encode(bytes(32)).decode()}:",
    ],
)
@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
def test_a_malformed_digest_is_a_bad_request(name: str, value: str) -> None:
    with pytest.raises(BadRequest):
        declared_digest(HTTPHeaders({name: value}).get)


@pytest.mark.parametrize("value", ["", "abc", SHA[:-1], SHA + "0", SHA[:-1] + "g", f"{SHA},{SHA}", f"sha256:{SHA}"])
def test_a_malformed_hex_digest_is_a_bad_request(value: str) -> None:
    for read in (declared_digest, declared_form_digest):
        with pytest.raises(BadRequest, match="64 hexadecimal digits"):
            read(HTTPHeaders({"X-Content-Sha256": value}).get)


def test_digests_that_disagree_are_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="disagree"):
        declared_digest({"Content-Digest": f"sha-256=:{B64}:", "X-Content-Sha256": OTHER}.get)
    with pytest.raises(BadRequest, match="disagree"):
        declared_digest({"Content-Digest": f"sha-256=:{B64}:", "Repr-Digest": repr_digest(OTHER)}.get)


def test_a_form_may_only_promise_the_digest_of_its_file() -> None:
    assert declared_form_digest({"X-Content-Sha256": SHA}.get) == SHA
    assert declared_form_digest({}.get) is None
    for name in ("Content-Digest", "Repr-Digest"):
        with pytest.raises(BadRequest, match=f"{name} covers the whole form"):
            declared_form_digest({name: f"sha-256=:{B64}:", "X-Content-Sha256": SHA}.get)


def test_a_long_hostile_digest_is_read_in_linear_time() -> None:
    assert declared_digest({"Content-Digest": ",".join(["a=::"] * 200_000)}.get) is None
    with pytest.raises(BadRequest):
        declared_digest({"Content-Digest": "sha-256=:" + "A" * 500_000}.get)


@given(st.text(max_size=60))
def test_any_digest_is_read_or_a_bad_request(value: str) -> None:
    for text in (value, "sha-256=" + value, f"sha-256=:{B64}:" + value):
        try:
            found = declared_digest({"Repr-Digest": text}.get)
        except BadRequest:
            continue
        assert found in (None, SHA) or len(str(found)) == 64


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_that_we_send_is_one_that_we_read(digest: bytes) -> None:
    assert declared_digest({"Repr-Digest": repr_digest(digest.hex())}.get) == digest.hex()


def test_an_unknown_sha256_gives_no_tag_and_no_digest() -> None:
    assert etag_for("") == repr_digest("") == ""
    assert etag_for(SHA) == f'"{SHA}"'


@pytest.mark.parametrize(
    ("filename", "field"),
    [
        ("db-v1.gpg", 'attachment; filename="db-v1.gpg"'),
        ("my db;1.gpg", 'attachment; filename="my db;1.gpg"'),
        ("żółw.gpg", "attachment; filename=\"___w.gpg\"; filename*=UTF-8''%C5%BC%C3%B3%C5%82w.gpg"),
        ('a"b\\c%41', "attachment; filename=\"a_b_c_41\"; filename*=UTF-8''a%22b%5Cc%2541"),
        ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
    ],
)
def test_a_file_name_is_written_for_old_and_new_clients(filename: str, field: str) -> None:
    assert content_disposition(filename) == field


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_file_name_is_one_safe_header_line_that_reads_back(filename: str) -> None:
    field = content_disposition(filename)
    assert field.isascii()
    assert field.isprintable()
    plain, _, extended = field.removeprefix('attachment; filename="').partition("\"; filename*=UTF-8''")
    assert (unquote(extended) if extended else plain.removesuffix('"')) == filename


def test_dates_are_in_gmt_whatever_the_zone() -> None:
    assert http_date(NOON) == "Wed, 01 May 2024 12:30:15 GMT"
    assert http_date(NOON.astimezone(timezone(timedelta(hours=5)))) == "Wed, 01 May 2024 12:30:15 GMT"
