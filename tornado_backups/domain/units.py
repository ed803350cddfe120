"""Sizes and durations as people write them.

Owns: reading and writing ``1M``, ``1.5G``, ``1h30m``, ``5d``. Does not own: which setting or field a value stands in;
callers put that before the sentence of the ``ValueError``. Explained in docs/rotation.md, "Sizes and durations".
"""

from __future__ import annotations

import re
from datetime import timedelta

_SIZE = re.compile(r"(?P<number>[0-9]{1,30}(?:\.[0-9]{1,30})?) ?(?:(?P<unit>[KMGTPE])(?:I?B?)|B)?", re.IGNORECASE)
_SIZE_UNITS = ("B", "K", "M", "G", "T", "P", "E")
_LARGEST_SIZE = 2**63 - 1

_DURATION_PART = re.compile(r"(?P<number>[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(?P<unit>ns|us|µs|μs|ms|s|m|h|d|w)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_DECIMALS = 30  # as many as the patterns let through
_SCALE: int = 10**_DECIMALS
_LONGEST_DURATION = timedelta(days=36500)
_LONGEST_TEXT = 64


def parse_size(text: str | int) -> int:
    """Return the bytes that ``text`` means; units are powers of 1024, a bare number is bytes.

    ``K``, ``KB``, ``Ki`` and ``KiB`` are the same, in either case, as in the Go server's files; fractions are rounded
    down to whole bytes (``1.5K`` is 1536). Raises ``ValueError`` for anything else, and above 2⁶³ − 1 bytes.
    """
    match = None if isinstance(text, bool) else _SIZE.fullmatch(_shortened(str(text)))
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a size; write a number with B, K, M, G or T, such as 500M or 1.5G")
    power = _SIZE_UNITS.index((match["unit"] or "B").upper())
    size_bytes = (_scaled(match["number"]) << (10 * power)) // _SCALE
    if size_bytes > _LARGEST_SIZE:
        raise ValueError(f"{_quoted(text)} is too large a size; the largest is 8191P")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` in the largest unit that leaves a number of at least 1, with at most two decimals.

    :func:`parse_size` reads it back: exactly when no decimal was cut off, else to within one percent. Rounding is
    downwards, so that a limit is never shown larger than it is.
    """
    if size_bytes < 0:
        return f"-{format_size(-size_bytes)}"
    power = 0
    while power < len(_SIZE_UNITS) - 1 and size_bytes >= 1024 ** (power + 1):
        power += 1
    hundredths = size_bytes * 100 // 1024**power
    return f"{hundredths // 100}{f'.{hundredths % 100:02}'.rstrip('0').rstrip('.')}{_SIZE_UNITS[power]}"


def parse_duration(text: str) -> timedelta:
    """Return the duration written Go style (``90s``, ``30m``, ``1h30m``, ``0h05m0s``, ``1.5h``), with ``d`` and ``w``.

    A day is 24 hours, a week 7 days; ``0`` needs no unit; parts below a microsecond are dropped. Raises ``ValueError``
    for anything else, for negative ones, and above 36500 days (so that adding one to a date cannot overflow).
    """
    shortened = _shortened(str(text))
    if shortened.startswith("-"):
        raise ValueError(f"{_quoted(text)} is negative; a duration is 0 or more, such as 90s, 1h30m or 5d")
    microseconds = _microseconds(shortened.removeprefix("+"))
    if microseconds is None:
        raise ValueError(
            f"{_quoted(text)} is not a duration; write numbers with w, d, h, m, s or ms, such as 90s, 1h30m or 5d"
        )
    if microseconds > _LONGEST_DURATION // timedelta(microseconds=1):
        raise ValueError(f"{_quoted(text)} is too long a duration; the longest is 36500d")
    return timedelta(microseconds=microseconds)


def format_duration(duration: timedelta) -> str:
    """Return ``duration`` in days and the Go units, exact to the microsecond: ``5d``, ``1h30m``, ``1.5s``, ``0s``.

    :func:`parse_duration` reads it back unchanged, unless it is negative (written with a leading ``-``).
    """
    if duration < timedelta(0):
        return f"-{format_duration(-duration)}"
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{duration.microseconds:06}".rstrip("0").rstrip(".")
    parts = [(duration.days, "d"), (hours, "h"), (minutes, "m")]
    written = "".join(f"{number}{unit}" for number, unit in parts if number)
    return f"{written}{seconds}{fraction}s" if seconds or fraction or not written else written


def _microseconds(text: str) -> int | None:
    """Add up the parts of an unsigned duration; None when it is not made of parts."""
    if text == "0":
        return 0
    total, end = 0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end:
            return None
        total, end = total + _scaled(part["number"]) * _NANOSECONDS[part["unit"]], part.end()
    return total // (1000 * _SCALE) if end == len(text) > 0 else None


def _scaled(number: str) -> int:
    """Return a decimal number times ten to the power of ``_DECIMALS``, exactly."""
    whole, _, fraction = number.partition(".")
    return int(whole + fraction.ljust(_DECIMALS, "0"))


def _shortened(text: str) -> str:
    """Cut ``text`` to one character more than any value can have, which keeps matching and messages bounded."""
    return text.strip()[: _LONGEST_TEXT + 1]


def _quoted(text: str | int) -> str:
    return repr(text if len(str(text)) <= _LONGEST_TEXT else _shortened(str(text)) + "…")
