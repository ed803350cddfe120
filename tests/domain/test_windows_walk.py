"""Backup windows against an independent walk, minute by minute, over years of several zones.

The walk knows nothing of offsets before and after, folds or gaps: it watches a clock on the wall, one real minute
after the other, and calls a wall-clock minute begun when the hands first pass it. Cron text is read by croniter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.domain.model import BackupWindow
from tornado_backups.domain.windows import covers, is_open, last_closed, next_opening, occurrence

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

# The first of two years each, or the only one where the clock never changes; 2024 is a leap year.
WALKS = {
    "Europe/Warsaw": 2024,
    "America/New_York": 2023,
    "Australia/Lord_Howe": 2024,
    "Asia/Kathmandu": 2024,
    "America/Sao_Paulo": 2017,
    "UTC": 2024,
}
CRONS = ("*/20 0-3,23 * * *", "30 2 * * *", "5 0 31 * MON", "15,45 0-3 * 2-4,10,11 *", "0 1 29 2 *", "10 */5 1-7 * SUN")


def begun_minutes(zone: str, start: datetime, end: datetime) -> Iterator[tuple[int, datetime]]:
    """Yield every wall-clock minute that begins for the first time, after the number of real minutes since ``start``.

    One that is skipped begins with the one after it. Only the digits of the times yielded count.
    """
    place = ZoneInfo(zone)
    # Where the hands were put back shortly before the start, they had already been further.
    latest = max(place.fromutc((start - hours * HOUR - MINUTE).replace(tzinfo=place)) for hours in range(26))
    clock = start.replace(tzinfo=place)  # with the digits of UTC, as fromutc() wants them
    for passed in range((end - start) // MINUTE):
        shown = place.fromutc(clock)
        while latest < shown:
            latest += MINUTE
            yield passed, latest
        clock += MINUTE


def matcher(text: str) -> Callable[[datetime], bool]:
    """Return whether a wall-clock minute is named, by the sets that croniter makes of the text."""
    wide = [range(60), range(24), range(1, 32), range(1, 13), range(7)]
    expanded, _ = croniter.expand(text)
    minutes, hours, days, months, weekdays = (
        frozenset(every if values == ["*"] else values) for every, values in zip(wide, expanded, strict=True)
    )
    either = expanded[2] != ["*"] and expanded[4] != ["*"]

    def names(wall: datetime) -> bool:
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        by_day, by_weekday = wall.day in days, (wall.weekday() + 1) % 7 in weekdays
        return by_day or by_weekday if either else by_day and by_weekday

    return names


@cache
def walked_starts(zone: str) -> dict[str, list[datetime]]:
    """Return the starts of every text of CRONS over the walk, one for each real minute."""
    first, end = walk_of(zone)
    named = {cron: matcher(cron) for cron in CRONS}
    starts: dict[str, list[datetime]] = {cron: [] for cron in CRONS}
    for passed, wall in begun_minutes(zone, first, end):
        if wall.minute % 5:
            continue  # no text of CRONS names it
        for cron in CRONS:
            if named[cron](wall) and starts[cron][-1:] != [first + passed * MINUTE]:
                starts[cron].append(first + passed * MINUTE)
    return starts


def walk_of(zone: str) -> tuple[datetime, datetime]:
    years = 1 if zone in ("UTC", "Asia/Kathmandu") else 2
    return datetime(WALKS[zone], 1, 1, tzinfo=UTC), datetime(WALKS[zone] + years, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("zone", WALKS)
@pytest.mark.parametrize("cron", CRONS)
def test_years_of_starts_are_those_that_a_walk_along_the_wall_clock_meets(zone: str, cron: str) -> None:
    window = BackupWindow(cron, MINUTE, zone)
    first, end = walk_of(zone)
    found, now = [], next_opening([window], first - timedelta(microseconds=1))
    while now is not None and now < end:
        found.append(now)
        now = next_opening([window], now)
    assert found == walked_starts(zone)[cron]


@given(
    st.sampled_from(sorted(WALKS)),
    st.sampled_from(CRONS[:4]),
    st.integers(1, 4000),
    st.integers(60 * 24 * 70, 60 * 24 * 360),
    st.integers(-5000, 100),
)
@settings(max_examples=250, deadline=None)
def test_open_closed_and_in_time_are_what_the_list_of_walked_slots_says(
    zone: str, cron: str, duration_minutes: int, now_minutes: int, moment_minutes: int
) -> None:
    duration = duration_minutes * MINUTE
    window = BackupWindow(cron, duration, zone)
    now = datetime(WALKS[zone], 1, 1, tzinfo=UTC) + now_minutes * MINUTE
    moment = now + moment_minutes * MINUTE
    begun = [start for start in walked_starts(zone)[cron] if start <= now]
    open_starts = [start for start in begun if now < start + duration]
    closed_starts = [start for start in begun if start + duration <= now]
    if not closed_starts:
        return  # its last occurrence lies before the walk
    closed, newest = last_closed(window, now), occurrence(window, now)
    assert closed is not None
    assert closed.start == closed_starts[-1]
    assert newest is not None
    assert newest.start == begun[-1]
    assert newest.end == begun[-1] + duration
    assert is_open([window], now) == bool(open_starts)
    counted = [closed_starts[-1], *open_starts]
    assert covers(window, moment, now) == any(start <= moment < start + duration for start in counted)


@st.composite
def cron_texts(draw: st.DrawFn) -> str:
    """Cron text in which every kind of item occurs, and days that exist."""
    numbers = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]
    words = []
    for low, high in numbers:
        first = draw(st.integers(low, high))
        last = draw(st.integers(low, high - 1).filter(lambda last, first=first: last not in (first, first - 1)))
        step = draw(st.integers(2, 30))  # */1 is * for us, and not quite for croniter
        words.append(draw(st.sampled_from(["*", f"*/{step}", f"{first}", f"{first},{last}", f"{first}-{last}"])))
    return " ".join(words)


@given(cron_texts(), st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)))
@settings(max_examples=80, deadline=None)
def test_without_daylight_saving_the_starts_are_croniters(text: str, now: datetime) -> None:
    peer = croniter(text, now.replace(microsecond=0))
    window = BackupWindow(text, MINUTE, "UTC")
    found: datetime | None = now.replace(microsecond=0, tzinfo=UTC)
    for _ in range(5):
        assert found is not None
        found = next_opening([window], found)
        assert found == peer.get_next(datetime).replace(tzinfo=UTC)


@given(
    st.sampled_from(sorted(WALKS)),
    cron_texts(),
    st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1))
    | st.sampled_from(
        [
            datetime(2025, 3, 30, 1),  # Warsaw, forward and back
            datetime(2025, 10, 26, 1),
            datetime(2025, 3, 9, 7),  # New York
            datetime(2025, 11, 2, 6),
            datetime(2025, 4, 5, 15),  # Lord Howe, half an hour back and forward
            datetime(2025, 10, 4, 15, 30),
            datetime(2018, 2, 18, 2),  # São Paulo, at midnight back and forward
            datetime(2018, 11, 4, 3),
        ]
    ),
)
@settings(max_examples=100, deadline=None)
def test_any_day_of_any_window_is_what_a_walk_along_the_wall_clock_meets(
    zone: str, text: str, around: datetime
) -> None:
    window = BackupWindow(text, MINUTE, zone)
    first = around.replace(second=0, microsecond=0, tzinfo=UTC) - timedelta(hours=6)
    end, named = first + 14 * HOUR, matcher(text)
    met = dict.fromkeys(passed for passed, wall in begun_minutes(zone, first, end) if named(wall))
    walked = [first + passed * MINUTE for passed in met]
    found, now = [], next_opening([window], first - timedelta(microseconds=1))
    while now is not None and now < end:
        found.append(now)
        assert occurrence(window, now + timedelta(seconds=59)) == occurrence(window, now)
        now = next_opening([window], now)
    assert found == walked
    for minutes in range(0, 14 * 60, 17):
        moment = first + minutes * MINUTE
        slot = occurrence(window, moment)
        assert slot is not None
        before = bisect_right(walked, moment)
        assert slot.start == walked[before - 1] if before else slot.start < first
