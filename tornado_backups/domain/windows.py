"""Backup windows: when they are open, when they open next, and whether a backup came in time.

Owns: the meaning of a :class:`~tornado_backups.domain.model.BackupWindow`: cron text, duration and time zone together,
daylight saving included. Does not own: reading cron text (``domain/cron``), who may upload outside a window
(``domain/permissions``), what a monitoring system is told (``domain/health``). See docs/windows.md.

Three facts carry everything here. The occurrences of one window all last equally long, so the one that started last is
also the one that ends last. Wall-clock time mapped to instants never runs backwards (:func:`_instant`). So the latest
start until an instant is the latest named wall-clock minute until a bound that :func:`_wall_bound` finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from tornado_backups.domain.cron import Schedule, parse_cron, quoted
from tornado_backups.domain.model import BackupWindow
from tornado_backups.domain.units import format_duration

MAX_DURATION = timedelta(days=3660)
"""A window that lasts longer is refused: no cron text starts more rarely than every eight years."""

_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time slot, half-open ``[start, end)``, in UTC."""

    start: datetime
    end: datetime

    def holds(self, moment: datetime) -> bool:
        """Tell whether ``moment`` lies within."""
        return self.start <= moment < self.end


class ServerZone(tzinfo):
    """The server's own time zone, as the C library knows it (``TZ``, ``/etc/localtime``), daylight saving included."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        """Return the offset of a wall-clock time, ``fold`` honoured as PEP 495 says."""
        wall = (moment or datetime.now()).replace(tzinfo=None)
        # Not astimezone(): in a skipped hour its offset differs between Python 3.11 and 3.12.
        return timedelta(seconds=wall.replace(tzinfo=UTC).timestamp() - wall.timestamp())

    def dst(self, moment: datetime | None) -> None:
        """Return None: how much of the offset is daylight saving is not known."""

    def tzname(self, moment: datetime | None) -> str:
        """Return ``local``."""
        return "local"

    def fromutc(self, moment: datetime) -> datetime:
        """Return the wall-clock time of an instant, ``fold`` set in the second pass of a doubled hour."""
        return datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


def check_window(window: BackupWindow) -> None:
    """Raise ``ValueError`` for a window that cannot be used, with a sentence on what is wrong and what would be right.

    Refused are unreadable cron text, fields out of range (with ``did you mean "…"?`` where exchanging minute and hour
    helps), dates that never come, unknown time zones, and durations of nothing, less than nothing or over ten years.
    The first ``; `` of the sentence parts what is wrong from what would be right.
    """
    parse_cron(window.cron)
    lasts = format_duration(window.duration)
    if window.duration <= timedelta(0):
        raise ValueError(f"the window lasts {lasts}; it needs a duration above zero, such as 30m or 1h30m")
    if window.duration > MAX_DURATION:
        raise ValueError(
            f"the window lasts {lasts}; {format_duration(MAX_DURATION)} is the most "
            "(a collection without windows is always open)"
        )
    _zone(window.timezone)


def occurrence(window: BackupWindow, now: datetime) -> Occurrence | None:
    """Return the occurrence open at ``now``, else the one that closed last; None when there never was one.

    Where several are open at once (a window longer than its interval) it is the one that started last.
    """
    start = _latest_start(window, now)
    return None if start is None else Occurrence(start, start + window.duration)


def last_closed(window: BackupWindow, now: datetime) -> Occurrence | None:
    """Return the occurrence that closed last, also while others are open; None when there never was one."""
    return occurrence(window, now - window.duration)


def covers(window: BackupWindow, moment: datetime, now: datetime) -> bool:
    """Tell whether ``moment`` lies in an occurrence that is open at ``now`` or in the one that closed last.

    Several may be open at once. A moment after ``now`` (the clock was set back) counts only within an open one.
    """
    found = occurrence(window, min(moment, now))
    if found is None or not found.holds(moment):
        return False
    closed = last_closed(window, now)
    return closed is None or found.start >= closed.start


def is_open(windows: Sequence[BackupWindow], now: datetime) -> bool:
    """Tell whether uploads are welcome: a window is open, or there are no windows at all."""
    if not windows:
        return True
    found = (occurrence(window, now) for window in windows)
    return any(slot is not None and slot.holds(now) for slot in found)


def next_opening(windows: Sequence[BackupWindow], now: datetime) -> datetime | None:
    """Return the first start of any window after ``now``, in UTC; None when there are no windows."""
    starts = (_earliest_start(window, now) for window in windows)
    return min((start for start in starts if start is not None), default=None)


@lru_cache(maxsize=4096)
def _schedule(cron: str) -> Schedule:
    return parse_cron(cron)


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    """Return the time zone of that IANA name; raise ``ValueError`` naming a similar one."""
    if not name:
        return ServerZone()
    from zoneinfo import ZoneInfo, available_timezones  # here, for few windows name a zone

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, not a name, a folder such as "America"
        from difflib import get_close_matches  # most configurations have no fault

        similar = get_close_matches(name, sorted(available_timezones()), n=1)
        hint = f'did you mean "{similar[0]}"? ' if similar else ""
        raise ValueError(
            f'the time zone {quoted(name)} is not known; {hint}an IANA name is right, such as "Europe/Warsaw" or "UTC"'
        ) from None


def _latest_start(window: BackupWindow, until: datetime) -> datetime | None:
    zone = _zone(window.timezone)
    wall = _schedule(window.cron).latest_until(_wall_bound(until, zone))
    return None if wall is None else _instant(wall, zone)


def _earliest_start(window: BackupWindow, after: datetime) -> datetime | None:
    zone = _zone(window.timezone)
    wall = _schedule(window.cron).earliest_after(_wall_bound(after, zone))
    return None if wall is None else _instant(wall, zone)


def _wall_bound(moment: datetime, zone: tzinfo) -> datetime:
    """Return the last wall-clock minute that has begun for the first time by ``moment``, naive.

    That is what the clock shows, but in the second pass of a doubled hour the end of the first pass.
    """
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, second=0, microsecond=0, fold=0)
    if not local.fold:
        return wall
    after = int((_offset(wall, zone, 0) - _offset(wall, zone, 1)) / _MINUTE)
    first, last = 0, after  # minutes on from wall: begun for certain, not begun for certain
    while last - first > 1:
        middle = (first + last) // 2
        if _instant(wall + middle * _MINUTE, zone) <= moment:
            first = middle
        else:
            last = middle
    return wall + first * _MINUTE


def _offset(wall: datetime, zone: tzinfo, fold: int) -> timedelta:
    return wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta(0)


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return when the clock first shows ``wall`` or more, in UTC.

    A time in a doubled hour is its first pass, one in a skipped hour the moment of the jump. Never runs backwards.
    """
    before, after = _offset(wall, zone, 0), _offset(wall, zone, 1)
    if before >= after:
        return (wall - before).replace(tzinfo=UTC)
    # Skipped: the jump lies after (wall - after) and not after (wall - before), PEP 495.
    earliest, latest = (wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC)
    while latest - earliest > _SECOND:
        middle = earliest + (latest - earliest) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == after:
            latest = middle
        else:
            earliest = middle
    return latest
