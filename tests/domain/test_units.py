"""Sizes and durations: what is read, what is refused with which words, and that writing reads back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_backups.domain.units import format_duration, format_size, parse_duration, parse_size

M = 1024**2


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("17", 17),
        (17, 17),
        ("17B", 17),
        ("1K", 1024),
        ("1k", 1024),
        ("1KB", 1024),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("500M", 500 * M),
        ("1.5G", 1536 * M),
        ("2 T", 2 * 1024**4),
        (" 1M ", M),
        ("1P", 1024**5),
        ("7E", 7 * 1024**6),
        ("0.5K", 512),
        ("1.0009K", 1024),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "-1M",
        "1X",
        "1MM",
        "1,5G",
        "1e3",
        ".5M",
        "1.M",
        "1  M",
        "1M 2",
        "one",
        "∞",
        "١M",
        "1B B",
        -5,
        True,
    ],
)
def test_what_is_no_size_is_refused_and_told_how_one_looks(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"is not a size; write a number with B, K, M, G or T, such as 500M or 1\.5G"):
        parse_size(text)


def test_a_size_beyond_63_bits_is_refused() -> None:
    assert parse_size("8191P") == 8191 * 1024**5
    for text in ("8192P", "8E", 2**63):
        with pytest.raises(ValueError, match="is too large a size; the largest is 8191P"):
            parse_size(text)


@pytest.mark.parametrize("parse", [parse_size, parse_duration])
@pytest.mark.parametrize("text", ["9" * 100_000, "9" * 100_000 + "h", "1h" * 50_000])
def test_an_endless_text_is_refused_in_a_short_sentence(parse, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (M - 1, "1023.99K"),
        (M + M // 20, "1.04M"),
        (500 * M, "500M"),
        (3 * 1024**4, "3T"),
        (5000 * 1024**6, "5000E"),
        (-1536, "-1.5K"),
    ],
)
def test_a_size_is_written_in_the_largest_fitting_unit_and_never_rounded_up(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 2**63 - 1))
def test_a_written_size_reads_back_to_within_one_percent_from_below(size_bytes: int) -> None:
    read = parse_size(format_size(size_bytes))
    assert read <= size_bytes
    assert size_bytes - read <= size_bytes / 100


@given(st.integers(1, 1023), st.integers(0, 5))
def test_a_whole_size_reads_back_exactly(number: int, power: int) -> None:
    assert parse_size(format_size(number * 1024**power)) == number * 1024**power


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("0h05m0s", timedelta(minutes=5)),
        ("1.5h", timedelta(minutes=90)),
        (".5h", timedelta(minutes=30)),
        ("1.h", timedelta(hours=1)),
        ("500ms", timedelta(milliseconds=500)),
        ("5d", timedelta(days=5)),
        ("2w", timedelta(weeks=2)),
        ("1w2d3h4m5s6ms7us", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5, milliseconds=6, microseconds=7)),
        ("7µs", timedelta(microseconds=7)),
        ("7μs", timedelta(microseconds=7)),
        ("1999ns", timedelta(microseconds=1)),
        ("30m1h", timedelta(minutes=90)),
        ("+1h", timedelta(hours=1)),
        (" 1h ", timedelta(hours=1)),
        ("8760h", timedelta(days=365)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_a_duration_is_read_go_style_with_days_and_weeks(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1H", "1 h", "1h 30m", "1y", "1h30", "s1", "1,5h", ".h", "+", "1e2s", "١h"]
)
def test_what_is_no_duration_is_refused_and_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write numbers with w, d, h, m, s or ms, such as 90s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["-1h", "-0", "-"])
def test_a_negative_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is negative; a duration is 0 or more"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "36500d1us", "999999999999999999w"])
def test_a_duration_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is too long a duration; the longest is 36500d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(days=5), "5d"),
        (timedelta(hours=26), "1d2h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=1, seconds=1), "1h1s"),
        (timedelta(milliseconds=500), "0.5s"),
        (timedelta(hours=1, microseconds=10), "1h0.00001s"),
        (-timedelta(minutes=90), "-1h30m"),
    ],
)
def test_a_duration_is_written_without_empty_parts(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36500)))
def test_a_written_duration_reads_back_exactly(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=30))
def test_any_text_is_either_read_as_nothing_negative_or_refused(text: str) -> None:
    for parse, nothing in ((parse_size, 0), (parse_duration, timedelta(0))):
        try:
            read = parse(text)
        except ValueError:
            continue
        assert read >= nothing
