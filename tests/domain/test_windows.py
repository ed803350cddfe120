"""Backup windows: refusals, half-open slots, several and overlapping ones, and both changes of the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from tornado_backups.domain.model import BackupWindow
from tornado_backups.domain.windows import (
    MAX_DURATION,
    Occurrence,
    ServerZone,
    check_window,
    covers,
    is_open,
    last_closed,
    next_opening,
    occurrence,
)

WARSAW = ZoneInfo("Europe/Warsaw")
HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def warsaw(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=WARSAW, fold=fold).astimezone(UTC)


def nightly(duration: timedelta = HOUR, zone: str = "UTC") -> BackupWindow:
    return BackupWindow("0 2 * * *", duration, zone)


@pytest.fixture
def server_in_warsaw(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The C library's own zone is Europe/Warsaw."""
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Europe/Warsaw")
        time.tzset()
        yield
    time.tzset()


# -- checking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        (BackupWindow("00 30 * * *", HOUR), 'the hour field "30" is out of range; did you mean "30 0 * * *"?'),
        (BackupWindow("0 0 31 2 *", HOUR), "names a date that does not exist"),
        (nightly(timedelta(0)), "the window lasts 0s; it needs a duration above zero, such as 30m or 1h30m"),
        (nightly(timedelta(minutes=-5)), "the window lasts -5m; it needs a duration above zero"),
        (nightly(MAX_DURATION + HOUR), "the window lasts 3660d1h; 3660d is the most"),
        (
            nightly(zone="Europe/Warszawa"),
            'the time zone "Europe/Warszawa" is not known; did you mean "Europe/Warsaw"?',
        ),
        (nightly(zone="America"), 'the time zone "America" is not known'),
        (nightly(zone="../../etc/passwd"), "an IANA name is right, such as"),
        (nightly(zone="x\0\n"), 'the time zone "x\\u0000\\n" is not known; an IANA name is right'),
    ],
)
def test_a_window_is_refused_with_what_is_wrong_and_what_would_be_right(window: BackupWindow, sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:
        check_window(window)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("zone", ["", "UTC", "Europe/Warsaw", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_a_window_in_a_known_zone_is_taken(zone: str) -> None:
    check_window(nightly(MAX_DURATION, zone))


# -- slots -----------------------------------------------------------------------------------------------------------


def test_a_window_is_half_open() -> None:
    window = nightly()
    assert not is_open([window], utc("2025-06-06T01:59:59.999999"))
    assert is_open([window], utc("2025-06-06T02:00"))
    assert is_open([window], utc("2025-06-06T02:59:59.999999"))
    assert not is_open([window], utc("2025-06-06T03:00"))


def test_the_occurrence_is_the_open_one_and_after_it_the_one_that_closed_last() -> None:
    slot = Occurrence(utc("2025-06-06T02:00"), utc("2025-06-06T03:00"))
    assert occurrence(nightly(), utc("2025-06-06T02:30")) == slot
    assert occurrence(nightly(), utc("2025-06-06T23:00")) == slot
    assert occurrence(nightly(), utc("2025-06-07T01:59:59")) == slot
    assert last_closed(nightly(), utc("2025-06-07T02:59:59")) == slot
    assert last_closed(nightly(), utc("2025-06-07T03:00")) != slot


def test_now_may_be_given_in_any_zone() -> None:
    now = utc("2025-06-06T02:30").astimezone(timezone(timedelta(hours=-7)))
    assert occurrence(nightly(), now) == Occurrence(utc("2025-06-06T02:00"), utc("2025-06-06T03:00"))


def test_a_window_may_run_across_midnight_month_end_and_year_end() -> None:
    window = BackupWindow("30 23 31 12 *", 2 * HOUR, "UTC")
    assert is_open([window], utc("2026-01-01T01:29"))
    assert not is_open([window], utc("2026-01-01T01:30"))


def test_any_of_several_windows_opens_a_collection_and_none_leaves_it_open() -> None:
    windows = [nightly(), BackupWindow("0 14 * * MON-FRI", HOUR, "UTC")]
    assert is_open(windows, utc("2025-06-06T14:30"))  # a Friday
    assert not is_open(windows, utc("2025-06-07T14:30"))
    assert is_open([], utc("2025-06-07T14:30"))


def test_the_next_opening_is_the_first_start_of_any_window() -> None:
    windows = [nightly(), BackupWindow("0 14 * * MON-FRI", HOUR, "UTC")]
    assert next_opening(windows, utc("2025-06-06T03:00")) == utc("2025-06-06T14:00")
    assert next_opening(windows, utc("2025-06-06T14:00")) == utc("2025-06-07T02:00")
    assert next_opening([], utc("2025-06-06T03:00")) is None


def test_nothing_happened_before_the_calendar_and_nothing_comes_after_it() -> None:
    assert occurrence(nightly(), datetime.min.replace(tzinfo=UTC)) is None
    assert not is_open([nightly()], datetime.min.replace(tzinfo=UTC))
    assert next_opening([nightly()], datetime.max.replace(tzinfo=UTC)) is None


# -- in time ---------------------------------------------------------------------------------------------------------


def test_a_version_is_in_time_until_the_next_occurrence_has_closed() -> None:
    moment = utc("2025-06-06T02:10")
    assert covers(nightly(), moment, utc("2025-06-06T02:10"))
    assert covers(nightly(), moment, utc("2025-06-07T01:00"))
    assert covers(nightly(), moment, utc("2025-06-07T02:59:59"))
    assert not covers(nightly(), moment, utc("2025-06-07T03:00"))


def test_a_version_outside_every_occurrence_is_not_in_time() -> None:
    assert not covers(nightly(), utc("2025-06-06T03:00"), utc("2025-06-06T03:10"))
    assert not covers(nightly(), utc("2025-06-06T01:59"), utc("2025-06-06T02:10"))


def test_with_a_window_longer_than_its_interval_every_open_occurrence_and_the_last_closed_one_count() -> None:
    window = BackupWindow("0 0 * * *", timedelta(hours=60), "UTC")
    now = utc("2025-06-06T12:00")  # open since the 5th and the 6th; that of the 4th closes at this moment
    assert occurrence(window, now) == Occurrence(utc("2025-06-06T00:00"), utc("2025-06-08T12:00"))
    assert last_closed(window, now) == Occurrence(utc("2025-06-04T00:00"), utc("2025-06-06T12:00"))
    assert covers(window, utc("2025-06-05T18:00"), now)
    assert covers(window, utc("2025-06-06T11:00"), now)
    assert covers(window, utc("2025-06-04T00:00"), now)
    assert not covers(window, utc("2025-06-03T23:59"), now)


def test_a_window_that_is_always_open_still_goes_stale() -> None:
    always = BackupWindow("0 0 * * *", timedelta(days=1), "UTC")
    assert covers(always, utc("2025-06-05T00:00"), utc("2025-06-06T12:00"))
    assert not covers(always, utc("2025-06-04T23:59"), utc("2025-06-06T12:00"))


def test_after_the_clock_was_set_back_a_version_from_the_future_counts_within_an_open_occurrence_only() -> None:
    assert covers(nightly(), utc("2025-06-06T02:40"), utc("2025-06-06T02:10"))
    assert not covers(nightly(), utc("2025-06-07T02:40"), utc("2025-06-06T02:10"))


def test_in_the_first_occurrence_of_all_there_is_none_that_closed_before() -> None:
    assert covers(BackupWindow("0 2 * * *", 4 * HOUR, "UTC"), utc("0001-01-01T03:00"), utc("0001-01-01T05:00"))


# -- daylight saving -------------------------------------------------------------------------------------------------


def test_a_start_in_the_skipped_hour_falls_on_the_moment_the_clock_jumps() -> None:
    window = BackupWindow("30 2 * * *", HOUR, "Europe/Warsaw")
    jump = utc("2025-03-30T01:00")  # 02:00 becomes 03:00
    assert occurrence(window, utc("2025-03-30T12:00")) == Occurrence(jump, jump + HOUR)
    assert next_opening([window], utc("2025-03-30T00:59")) == jump
    assert not is_open([window], jump - timedelta(seconds=1))
    assert is_open([window], jump)


def test_several_starts_in_the_skipped_hour_are_one_occurrence() -> None:
    window = BackupWindow("*/15 * * * *", timedelta(minutes=5), "Europe/Warsaw")
    starts, now = [], warsaw("2025-03-30T01:30")
    for _ in range(4):
        now = next_opening([window], now) or now
        starts.append(now.astimezone(WARSAW).strftime("%H:%M"))
    assert starts == ["01:45", "03:00", "03:15", "03:30"]


def test_a_start_in_the_doubled_hour_counts_once_the_first_time() -> None:
    window = BackupWindow("30 2 * * *", HOUR, "Europe/Warsaw")
    first = warsaw("2025-10-26T02:30", fold=0)
    assert first == utc("2025-10-26T00:30")
    assert occurrence(window, utc("2025-10-26T12:00")) == Occurrence(first, first + HOUR)
    assert not is_open([window], warsaw("2025-10-26T02:30", fold=1))
    assert next_opening([window], first) == warsaw("2025-10-27T02:30")


def test_in_the_second_pass_of_the_doubled_hour_the_latest_start_is_the_last_of_the_first_pass() -> None:
    window = BackupWindow("*/20 * * * *", timedelta(minutes=5), "Europe/Warsaw")
    for minute in (0, 5, 30, 59):
        now = warsaw(f"2025-10-26T02:{minute:02}", fold=1)
        assert occurrence(window, now) == Occurrence(utc("2025-10-26T00:40"), utc("2025-10-26T00:45"))
        assert next_opening([window], now) == utc("2025-10-26T02:00")


def test_durations_are_elapsed_time_on_days_of_23_and_25_hours() -> None:
    window = BackupWindow("0 0 * * *", timedelta(hours=6), "Europe/Warsaw")
    spring, autumn = warsaw("2025-03-30T00:00"), warsaw("2025-10-26T00:00")
    assert occurrence(window, utc("2025-03-30T12:00")) == Occurrence(spring, warsaw("2025-03-30T07:00"))
    assert occurrence(window, utc("2025-10-26T12:00")) == Occurrence(autumn, warsaw("2025-10-26T05:00"))


def test_a_start_on_a_skipped_day_falls_on_the_moment_the_clock_jumps() -> None:
    window = BackupWindow("0 8 30 12 *", HOUR, "Pacific/Apia")  # Samoa went from the 29th to the 31st in 2011
    assert next_opening([window], utc("2011-12-25T00:00")) == utc("2011-12-30T10:00")


# -- the server's own zone -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server_in_warsaw")
@pytest.mark.parametrize("around", ["2025-03-30T01:00", "2025-10-26T01:00", "2025-06-06T12:00"])
def test_without_a_time_zone_the_servers_own_counts_through_both_changes_of_the_clock(around: str) -> None:
    own = BackupWindow("*/20 1-4 * * *", timedelta(minutes=5))
    named = BackupWindow("*/20 1-4 * * *", timedelta(minutes=5), "Europe/Warsaw")
    for minute in range(-240, 240, 7):
        now = utc(around) + timedelta(minutes=minute)
        assert occurrence(own, now) == occurrence(named, now)
        assert next_opening([own], now) == next_opening([named], now)


@pytest.mark.usefixtures("server_in_warsaw")
def test_the_servers_own_zone_is_a_time_zone_like_any_other() -> None:
    zone = ServerZone()
    moment = datetime(2025, 6, 6, 12, tzinfo=zone)
    assert moment.utcoffset() == 2 * HOUR
    assert zone.utcoffset(None) in (HOUR, 2 * HOUR)
    skipped = datetime(2025, 3, 30, 2, 30, tzinfo=zone)  # PEP 495: the offset before, and with fold the one after
    assert (skipped.utcoffset(), skipped.replace(fold=1).utcoffset()) == (HOUR, 2 * HOUR)
    assert moment.dst() is None
    assert moment.tzname() == "local"
    assert moment.astimezone(UTC) == utc("2025-06-06T10:00")
