"""How large a version must be, judged by those before it.

Owns: the one arithmetic that the health check (``domain/health``) and rotation (``domain/rotation``) must agree on.
Does not own: what either does with it. See docs/rotation.md and docs/windows.md.
"""

from __future__ import annotations

from collections.abc import Sequence

COMPARED_VERSIONS = 5
"""How many earlier versions are looked at, at most."""


def trend_minimum(min_size_ratio: float, earlier_newest_first: Sequence[int]) -> float | None:
    """Return the least size in bytes that follows the trend, None when nothing is asked or nothing came before.

    It is ``min_size_ratio`` times the median of the up to five newest of ``earlier_newest_first`` (sizes in bytes of
    the versions before the one to judge). A version holds when its size is not below it.
    """
    compared = earlier_newest_first[:COMPARED_VERSIONS]
    if min_size_ratio <= 0 or not compared:
        return None
    return min_size_ratio * median(compared)


def median(sizes: Sequence[int]) -> float:
    """Return the middle one of ``sizes``, of an even number the mean of the middle two; 0 when there are none.

    Not ``statistics.median``: importing that brings fractions, decimal and random into memory.
    """
    ordered = sorted(sizes)
    middle = len(ordered) // 2
    if not ordered:
        return 0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
