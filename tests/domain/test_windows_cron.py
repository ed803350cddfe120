"""Cron text: what is taken, what is refused and with which words, and the walk along the minutes it names."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.domain.cron import MAX_CRON_CHARACTERS, Schedule, parse_cron


@pytest.mark.parametrize(
    ("field", "place", "numbers"),
    [
        ("*", 0, range(60)),
        ("*/20", 0, [0, 20, 40]),
        ("5/20", 0, [5, 25, 45]),
        ("59/20", 0, [59]),
        ("10-30/10", 0, [10, 20, 30]),
        ("1,2,40-42", 0, [1, 2, 40, 41, 42]),
        ("005", 0, [5]),
        ("*/90", 0, [0]),
        ("*", 1, range(24)),
        ("22-2", 1, [22, 23, 0, 1, 2]),
        ("5-5", 1, [5]),
        ("05-5/2", 1, [5]),
        ("?", 2, range(1, 32)),
        ("31", 2, [31]),
        ("28-3", 2, [28, 29, 30, 31, 1, 2, 3]),
        ("JAN,mar-May", 3, [1, 3, 4, 5]),
        ("nov-feb", 3, [11, 12, 1, 2]),
        ("3-mar", 3, [3]),
        ("*/5", 3, [1, 6, 11]),
        ("?", 4, range(7)),
        ("MON-FRI", 4, range(1, 6)),
        ("fri-mon", 4, [5, 6, 0, 1]),
        ("7", 4, [0]),
        ("0-7", 4, range(7)),
        ("5-7", 4, [5, 6, 0]),
        ("*/2", 4, [0, 2, 4, 6]),
    ],
)
def test_a_field_names_these_numbers(field: str, place: int, numbers: list[int]) -> None:
    words = ["*"] * 5
    words[place] = field
    schedule = parse_cron(" ".join(words))
    taken = (schedule.minutes, schedule.hours, schedule.days, schedule.months, schedule.weekdays)
    assert set(taken[place]) == set(numbers)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("00 30 * * *", 'cron text "00 30 * * *": the hour field "30" is out of range; did you mean "30 0 * * *"?'),
        ("0 24 * * MON-FRI", 'the hour field "24" is out of range; did you mean "24 0 * * MON-FRI"?'),
        ("05 20-25 * * *", 'the hour field "20-25" is out of range; did you mean "20-25 5 * * *"?'),
        ("61 25 * * *", 'the minute field "61" is out of range; it takes numbers from 0 to 59, lists'),
        ("* 60 * * *", 'the hour field "60" is out of range; it takes numbers from 0 to 23, lists'),
        ("0 30 32 * *", 'the hour field "30" is out of range; it takes numbers from 0 to 23, lists'),
        ("0 0 0 * *", 'the day-of-month field "0" is out of range; it takes numbers from 1 to 31, lists'),
        ("0 0 * 13 *", 'the month field "13" is out of range; it takes numbers from 1 to 12 or names JAN to DEC'),
        ("0 0 * 0 *", 'the month field "0" is out of range'),
        ("0 0 * * 8", 'the day-of-week field "8" is out of range; it takes numbers from 0 to 7 or names SUN to SAT'),
        ("0 0 L * *", 'the day-of-month field holds "L", which is the last day (L) of other cron dialects; it takes'),
        ("0 0 L-3 * *", 'holds "L-3", which is the last day (L)'),
        ("0 0 * * 5L", 'the day-of-week field holds "5L", which is the last day (L)'),
        ("0 0 * * friL", 'holds "friL", which is the last day (L)'),
        ("0 0 15W * *", 'the day-of-month field holds "15W", which is the nearest weekday (W)'),
        ("0 0 LW * *", 'holds "LW", which is the nearest weekday (W)'),
        ("0 0 * * MON#2", 'the day-of-week field holds "MON#2", which is the n-th weekday (#)'),
        ("h 0 * * *", 'the minute field holds "h", which is not understood'),
        ("? 0 * * *", 'the minute field holds "?", which is not understood'),
        ("0 0 ?/2 * *", 'the day-of-month field holds "?/2", which is not understood'),
        ("*/0 0 * * *", 'the minute field holds "*/0", which is not understood'),
        ("-5 0 * * *", 'the minute field holds "-5", which is not understood'),
        ("1,,2 0 * * *", 'the minute field holds "", which is not understood'),
        ("0 0 * MOO *", 'the month field holds "MOO", which is not understood'),
        ("0 0 ١ * *", 'the day-of-month field holds "\\u0661", which is not understood'),
        ("0 0 * MON *", 'the month field holds "MON", which is not understood'),
        ("@daily", 'cron text "@daily" is a nickname; write five fields, such as "0 0 * * *"'),
        ("@Weekly", 'such as "0 0 * * 0"'),
        ("@every 1h", 'cron text "@every 1h" is a nickname; write five fields'),
        ("", "has 0 fields; five are right: minute hour day-of-month month day-of-week"),
        ("0 0 * *", "has 4 fields; five are right"),
        ("0 0 0 * * *", 'cron text "0 0 0 * * *" has 6 fields; five are right'),
        ("0 0 0 * * * 2030", "has 7 fields; five are right"),
        ("0 0\n* *", 'cron text "0 0\\n* *" has 4 fields'),
        ("0 0 31 2 *", "names a date that does not exist (day 31 of month 2); name a day that one of its months has"),
        ("0 0 30 FEB ?", "names a date that does not exist (day 30 of month 2)"),
        ("0 0 31 4,6,9,11 *", "names a date that does not exist (day 31 of month 4,6,9,11)"),
        ("0 0 1 1 *" + " " * MAX_CRON_CHARACTERS, f"cron text of 521 characters; {MAX_CRON_CHARACTERS} at most"),
    ],
)
def test_cron_text_is_refused_with_what_is_wrong_and_what_would_be_right(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_cron(text)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 30,31 2,3 *", "0 0 31 2 MON"])
def test_rare_dates_that_do_come_are_taken(text: str) -> None:
    assert parse_cron(text).ever()


def test_two_restricted_day_fields_name_a_day_when_either_does() -> None:
    either = parse_cron("0 0 13 * FRI")
    assert either.names_day(date(2025, 6, 13))  # a Friday
    assert either.names_day(date(2025, 6, 6))  # another Friday
    assert either.names_day(date(2025, 5, 13))  # a Tuesday
    assert not either.names_day(date(2025, 6, 12))


@pytest.mark.parametrize("open_field", ["*", "?", "*/1"])
def test_an_open_day_field_leaves_the_choice_to_the_other(open_field: str) -> None:
    fridays = parse_cron(f"0 0 {open_field} * FRI")
    assert fridays.names_day(date(2025, 6, 6))
    assert not fridays.names_day(date(2025, 6, 7))


def test_sunday_is_both_zero_and_seven() -> None:
    assert parse_cron("0 0 * * 0") == parse_cron("0 0 * * 7") == parse_cron("0 0 * * sun")


def test_the_walk_goes_back_to_the_last_named_minute_of_a_day_and_of_an_earlier_day() -> None:
    schedule = parse_cron("15,45 8,20 * * *")
    noon = datetime(2025, 6, 6, 12, 0)
    assert schedule.latest_until(noon) == datetime(2025, 6, 6, 8, 45)
    assert schedule.latest_until(datetime(2025, 6, 6, 8, 45, 59)) == datetime(2025, 6, 6, 8, 45)
    assert schedule.latest_until(datetime(2025, 6, 6, 8, 20)) == datetime(2025, 6, 6, 8, 15)
    assert schedule.latest_until(datetime(2025, 6, 6, 20, 14)) == datetime(2025, 6, 6, 8, 45)
    assert schedule.latest_until(datetime(2025, 6, 6, 8, 14)) == datetime(2025, 6, 5, 20, 45)
    assert schedule.earliest_after(noon) == datetime(2025, 6, 6, 20, 15)
    assert schedule.earliest_after(datetime(2025, 6, 6, 20, 15, 30)) == datetime(2025, 6, 6, 20, 45)
    assert schedule.earliest_after(datetime(2025, 6, 6, 8, 45)) == datetime(2025, 6, 6, 20, 15)
    assert schedule.earliest_after(datetime(2025, 6, 6, 20, 45)) == datetime(2025, 6, 7, 8, 15)


def test_the_twenty_ninth_of_february_is_found_over_a_century_without_leap_year() -> None:
    schedule = parse_cron("30 4 29 2 *")
    assert schedule.earliest_after(datetime(1896, 3, 1)) == datetime(1904, 2, 29, 4, 30)
    assert schedule.latest_until(datetime(1904, 2, 29, 4, 29)) == datetime(1896, 2, 29, 4, 30)


def test_the_walk_ends_at_the_ends_of_the_calendar() -> None:
    schedule = parse_cron("0 12 * * *")
    assert schedule.latest_until(datetime.min) is None
    assert schedule.earliest_after(datetime.max) is None


def test_a_schedule_that_names_no_date_finds_none() -> None:
    never = Schedule((0,), (0,), frozenset({31}), frozenset({2}), frozenset(range(7)), either=False)
    assert never.latest_until(datetime(2025, 1, 1)) is None
    assert never.earliest_after(datetime(2025, 1, 1)) is None


@given(st.text(alphabet="0123456789*/-,?LW#@ hrMONFRIjan\n١", max_size=40) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_either_a_schedule_or_refused_in_one_line(text: str) -> None:
    try:
        schedule = parse_cron(text)
    except ValueError as refusal:
        sentence = str(refusal)
    else:
        start = schedule.earliest_after(datetime(2025, 1, 1))
        assert start is not None
        assert schedule.latest_until(start) == start
        assert schedule.latest_until(start + timedelta(minutes=1) - timedelta(microseconds=1)) == start
        return
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 700
