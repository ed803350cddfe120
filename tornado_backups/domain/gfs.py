"""Grandfather, father, son: the newest version of each of the last hours, days, weeks, months and years.

Owns: the ``gfs`` strategy. Does not own: the other strategies and protection (``retention``).
Explained in docs/rotation.md, "gfs".

Every ``keep…`` rule looks at all versions by itself, as restic does: a version that several rules choose counts in each
of them. (borg and Proxmox skip what a finer rule has chosen already, and so keep a little more for the same numbers.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo

from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import Collection, Gfs
from tornado_backups.domain.retention import Candidate, Verdict, fifo, queue_length, stay


def grandfather_father_son(collection: Collection, rule: Gfs, candidates: Sequence[Candidate]) -> list[Verdict]:
    """Keep what the ``keep…`` rules choose of ``candidates``, never more than ``maxBackupsCount``; ascending by number.

    The newest always stays. Where the rules choose too many, the finest gives way first, its oldest choice first. A
    protected version that no rule chooses stays as long as there is room for it within ``maxBackupsCount``; it pushes
    nothing out, so that a flood of young versions cannot flush the old ones. A rule without any ``keep…`` is ``fifo``.

    Raises ``ConfigurationFault`` when the time zone is unknown: nothing can then be said, so nothing may leave.
    """
    periods = _periods(rule, _zone(collection, rule))
    if not periods:
        return fifo(collection, candidates)
    room = queue_length(collection)
    newest_first = list(reversed(candidates))
    reasons: dict[int, list[str]] = {candidate.number: ["the newest"] for candidate in newest_first[:1]}
    gave_way: dict[int, str] = {}
    for keep, count, period in periods:
        for number, label in _choose(newest_first, count, period).items():
            if number in reasons or len(reasons) < room:
                reasons.setdefault(number, []).append(f"{label} ({keep})")
            else:
                gave_way.setdefault(number, f"{label} ({keep}) gives way to maxBackupsCount ({room})")
    chosen = {number: ", ".join(words) for number, words in reasons.items()}
    spared = _spared(candidates, chosen, room)
    return [_verdict(candidate, chosen, spared, gave_way) for candidate in candidates]


_Period = Callable[[datetime], str]


def _zone(collection: Collection, rule: Gfs) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here, for most collections rotate by count

    try:
        return ZoneInfo(rule.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationFault(
            f"collection {collection.name}",
            0,
            f"strategySpec.timezone {rule.timezone!r} is no known time zone",
            "write an IANA name such as UTC or Europe/Warsaw",
        ) from None


def _periods(rule: Gfs, zone: tzinfo) -> list[tuple[str, int, _Period | None]]:
    """Return the rules in use, coarsest first, each with the name of the period a moment lies in (None: no period)."""

    def iso_week(moment: datetime) -> str:
        year, week, _ = moment.astimezone(zone).isocalendar()
        return f"{year}-W{week:02}"

    def formatted(form: str) -> _Period:
        return lambda moment: moment.astimezone(zone).strftime(form)

    rules: list[tuple[str, int, _Period | None]] = [
        ("keepYearly", rule.keep_yearly, formatted("%Y")),
        ("keepMonthly", rule.keep_monthly, formatted("%Y-%m")),
        ("keepWeekly", rule.keep_weekly, iso_week),
        ("keepDaily", rule.keep_daily, formatted("%Y-%m-%d")),
        # With the offset, so that the hour which daylight saving doubles is two hours.
        ("keepHourly", rule.keep_hourly, formatted("%Y-%m-%dT%H%z")),
        ("keepLast", rule.keep_last, None),
    ]
    return [(keep, count, period) for keep, count, period in rules if count > 0]


def _choose(newest_first: Sequence[Candidate], count: int, period: _Period | None) -> dict[int, str]:
    """Return what one rule chooses, newest first: number → label."""
    if period is None:
        return {candidate.number: f"among the last {count}" for candidate in newest_first[:count]}
    chosen: dict[str, int] = {}
    for candidate in newest_first:
        if len(chosen) == count:
            break
        chosen.setdefault(period(candidate.created_at), candidate.number)
    return {number: f"newest of {name}" for name, number in chosen.items()}


def _spared(candidates: Sequence[Candidate], chosen: dict[int, str], room: int) -> set[int]:
    """Return the protected versions that stay although no rule chooses them; in need of room, the longest protected."""
    ends = [
        (candidate.protected_until, candidate.number)
        for candidate in candidates
        if candidate.protected_until is not None and candidate.number not in chosen
    ]
    ends.sort(reverse=True)
    return {number for _, number in ends[: room - len(chosen)]}


def _verdict(candidate: Candidate, chosen: dict[int, str], spared: set[int], gave_way: dict[int, str]) -> Verdict:
    number = candidate.number
    if number in chosen:
        return stay(candidate, chosen[number])
    if number in spared:
        return Verdict(candidate, True, "protected (protectFor), no keep rule chooses it", candidate.protected_until)
    return Verdict(candidate, False, gave_way.get(number, "no keep rule chooses it"))
