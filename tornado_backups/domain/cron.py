"""Read five-field cron text, and find the days and minutes that it names.

Owns: which texts are taken, the sentences that refuse the others, and the walk from one named minute to the next or
the one before. Does not own: time zones, daylight saving and durations (``domain/windows``); all times here are naive
wall-clock times of one unnamed place. See docs/windows.md.

Single fields are expanded by croniter and remembered: a server has few distinct ones, however many windows it has.
The walk is our own: croniter's takes milliseconds and repeats or drops starts where the clock changes.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

MAX_CRON_CHARACTERS = 512
"""Longer texts are refused: all sixty minutes as a list need 169."""

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ONE_DAY = timedelta(days=1)
# 29 February is never further away than eight years (1896 to 1904), every other date less than two.
_SEARCHED_DAYS = 3000


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five places of a cron text: its numbers run from ``first`` to ``last``, ``names`` from ``first``."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    question_mark: bool = False

    @property
    def right(self) -> str:
        """Say what may stand in this field."""
        named = f" or names {self.names[0].upper()} to {self.names[-1].upper()}" if self.names else ""
        return f"it takes numbers from {self.first} to {self.last}{named}, lists (1,3), ranges (1-3) and steps (*/2)"

    def number(self, word: str) -> int:
        """Return the number that a word of this field stands for, in range or not."""
        return self.names.index(word) + self.first if word in self.names else int(word)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31, question_mark=True),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, _WEEKDAYS, question_mark=True),
)
_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY = range(5)


class _FieldFault(Exception):
    """A field that cannot be read, and what is wrong with it."""

    def __init__(self, field: _Field, what: str) -> None:
        super().__init__(what)
        self.field = field
        self.what = what


@dataclass(frozen=True, slots=True)
class Schedule:
    """The minutes that a cron text names, as sorted tuples; weekdays count from Sunday = 0.

    With ``either`` a day counts when its day of month or its weekday is named (both fields are restricted), otherwise
    when both are (at most one of them is).
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def names_day(self, day: date) -> bool:
        """Tell whether any minute of this day is named."""
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_day or by_weekday) if self.either else (by_day and by_weekday)

    def latest_until(self, bound: datetime) -> datetime | None:
        """Return the last named minute not after ``bound``; None when there is none within eight years."""
        minute = self._minute_until(bound.hour, bound.minute) if self.names_day(bound.date()) else None
        if minute is not None:
            return bound.replace(hour=minute[0], minute=minute[1], second=0, microsecond=0, fold=0)
        day = self._named_day(bound.date(), -_ONE_DAY)
        return None if day is None else datetime(day.year, day.month, day.day, self.hours[-1], self.minutes[-1])

    def earliest_after(self, bound: datetime) -> datetime | None:
        """Return the first named minute after the one that ``bound`` lies in; None when none within eight years."""
        minute = self._minute_after(bound.hour, bound.minute) if self.names_day(bound.date()) else None
        if minute is not None:
            return bound.replace(hour=minute[0], minute=minute[1], second=0, microsecond=0, fold=0)
        day = self._named_day(bound.date(), _ONE_DAY)
        return None if day is None else datetime(day.year, day.month, day.day, self.hours[0], self.minutes[0])

    def ever(self) -> bool:
        """Tell whether there is a date that this schedule names: ``0 0 31 2 *`` has none."""
        if self.either:
            return True
        return any(day <= _LONGEST_MONTHS[month - 1] for month in self.months for day in self.days)

    def _minute_until(self, hour: int, minute: int) -> tuple[int, int] | None:
        """Return the last named (hour, minute) of a day that is not after the given one."""
        place = bisect_right(self.hours, hour)
        if place and self.hours[place - 1] == hour:
            if inner := bisect_right(self.minutes, minute):
                return hour, self.minutes[inner - 1]
            place -= 1
        return (self.hours[place - 1], self.minutes[-1]) if place else None

    def _minute_after(self, hour: int, minute: int) -> tuple[int, int] | None:
        """Return the first named (hour, minute) of a day that is after the given one."""
        place = bisect_left(self.hours, hour)
        if place < len(self.hours) and self.hours[place] == hour:
            inner = bisect_right(self.minutes, minute)
            if inner < len(self.minutes):
                return hour, self.minutes[inner]
            place += 1
        return (self.hours[place], self.minutes[0]) if place < len(self.hours) else None

    def _named_day(self, day: date, step: timedelta) -> date | None:
        """Return the nearest named day before or after ``day``, whole unnamed months stepped over."""
        end = day.toordinal() + _SEARCHED_DAYS * step.days
        end = min(max(end, date.min.toordinal()), date.max.toordinal())
        while day.toordinal() != end:
            day += step
            if self.names_day(day):
                return day
        return None


def parse_cron(text: str) -> Schedule:
    """Read five-field cron text; raise ``ValueError`` with a sentence on what is wrong and what would be right.

    Taken are numbers, names (``MON-FRI``, ``JAN``, in any case), lists, ranges, ranges that run over the end
    (``22-2``), steps, ``7`` for Sunday, and ``?`` for ``*`` in the two day fields. Where both day fields are
    restricted a day counts when either names it, as POSIX crontab(5) says.
    """
    schedule = _parse(text)
    if not schedule.ever():
        raise ValueError(
            f"cron text {quoted(text)} names a date that does not exist (day {_listed(schedule.days)} of month "
            f"{_listed(schedule.months)}); name a day that one of its months has, such as 28"
        )
    return schedule


def quoted(text: str) -> str:
    """Return someone's text in quotes, on one line whatever it holds."""
    return json.dumps(text)


def _listed(numbers: frozenset[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def _parse(text: str) -> Schedule:
    """Read cron text without asking whether its dates exist."""
    words = _split(text)
    try:
        values = [_values(place, word) for place, word in enumerate(words)]
    except _FieldFault as fault:
        instead = _swapped(words)
        hint = f'did you mean "{instead}"?' if instead else fault.field.right
        raise ValueError(f"cron text {quoted(text)}: {fault.what}; {hint}") from None
    return Schedule(
        minutes=tuple(sorted(values[_MINUTE])),
        hours=tuple(sorted(values[_HOUR])),
        days=values[_DAY],
        months=values[_MONTH],
        weekdays=values[_WEEKDAY],
        either=not _is_star(words[_DAY]) and not _is_star(words[_WEEKDAY]),
    )


def _split(text: str) -> list[str]:
    """Return the five words of a cron text."""
    if len(text) > MAX_CRON_CHARACTERS:
        raise ValueError(f"cron text of {len(text)} characters; {MAX_CRON_CHARACTERS} at most")
    words = text.split()
    if words and words[0].startswith("@"):
        instead = _NICKNAMES.get(words[0].lower(), "0 0 * * *")
        raise ValueError(f'cron text {quoted(text)} is a nickname; write five fields, such as "{instead}"')
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"cron text {quoted(text)} has {len(words)} fields; five are right: "
            'minute hour day-of-month month day-of-week, such as "30 2 * * MON-FRI"'
        )
    return words


def _is_star(word: str) -> bool:
    """Tell whether a day field leaves its days open."""
    return any(item in ("*", "?", "*/1") for item in word.split(","))


def _swapped(words: list[str]) -> str:
    """Return the text with minute and hour exchanged where that makes it right, else an empty one."""
    numbers = [re.sub(r"^0+(?=[0-9])", "", word) for word in words]
    numbers[_MINUTE], numbers[_HOUR] = numbers[_HOUR], numbers[_MINUTE]
    try:
        for place, word in enumerate(numbers):
            _values(place, word)
    except _FieldFault:
        return ""
    return " ".join(numbers)


@lru_cache(maxsize=4096)
def _values(place: int, word: str) -> frozenset[int]:
    """Return the numbers that the field at that place names; raise :class:`_FieldFault`."""
    from croniter import CroniterBadCronError, croniter  # here, for a server without windows has no use for it

    field = _FIELDS[place]
    items = [_checked(field, item) for item in ("*" if field.question_mark and word == "?" else word).split(",")]
    lone_field = ["*"] * len(_FIELDS)
    lone_field[place] = ",".join(items)
    try:
        expanded, _ = croniter.expand(" ".join(lone_field))
    except CroniterBadCronError:
        raise _FieldFault(field, f"the {field.name} field {quoted(word)} is out of range") from None
    numbers = frozenset(value for value in expanded[place] if isinstance(value, int))
    return numbers or frozenset(range(field.first, field.last + (place != _WEEKDAY)))


def _checked(field: _Field, item: str) -> str:
    """Return one item of a list as croniter shall see it; raise :class:`_FieldFault` for a shape we do not take."""
    word = "|".join(("[0-9]+", *field.names))
    shape = re.fullmatch(rf"(?:\*|({word})(?:-({word}))?)(?:/0*[1-9][0-9]*)?", item.lower())
    if shape is None:
        raise _FieldFault(field, f"the {field.name} field holds {quoted(item)}, which is {_kind(item)}")
    low, high = shape.groups()
    if high is not None and field.number(low) == field.number(high):
        return str(low)  # croniter takes 5-5 for the whole circle
    return shape.string


def _kind(item: str) -> str:
    """Name what someone meant who knows other dialects of cron."""
    if "#" in item:
        return "the n-th weekday (#) of other cron dialects"
    if re.fullmatch(r"[0-9]*W[0-9]*|LW", item, re.IGNORECASE):
        return "the nearest weekday (W) of other cron dialects"
    if re.fullmatch(r"L-?[0-9]*|[0-9a-z]*L", item, re.IGNORECASE):
        return "the last day (L) of other cron dialects"
    return "not understood"
