"""How large, how long, how many: every bound of the S3 store in one place.

Owns: the sizes of parts, the memory that uploads may hold together, timeouts and numbers of attempts.
Does not own: their use. Why they are as they are: docs/adr/0005-parts-and-small-data.md.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB

SMALLEST_PART_BYTES = 5 * MIB
LARGEST_PART_BYTES = 5 * GIB
MOST_PARTS = 10_000
LARGEST_OBJECT_BYTES = 5 * 1024 * GIB
"""Limits of the S3 protocol."""

_STEADY_PARTS = 4_800
_STEP_PARTS = 520


@dataclass(frozen=True, slots=True)
class S3Limits:
    """Bounds in time (seconds) and number. ``io_timeout_seconds`` bounds one file's transfer to the storage.

    A request is given up when nothing moves for ``stall_seconds``, and for as much longer as its body takes at
    ``slowest_bytes_per_second``: what the kernel has taken may still be on its way.
    """

    io_timeout_seconds: float = 7200.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    slowest_bytes_per_second: int = 128 * 1024
    complete_seconds: float = 300.0
    attempts: int = 6
    first_pause_seconds: float = 0.25
    longest_pause_seconds: float = 8.0
    keepalive_seconds: float = 12.0
    connections: int = 128
    downloads: int = 96
    list_page: int = 1000


@dataclass(frozen=True, slots=True)
class PartSizes:
    """How large the parts of one upload are, numbered from 1.

    With ``grows`` the first 4,800 have ``steady_bytes``; from there on the size doubles every 520 parts, so that 5 TiB
    fit in 10,000 parts. Without, all have it.
    """

    steady_bytes: int = SMALLEST_PART_BYTES
    grows: bool = True

    def of(self, number: int) -> int:
        """Return the size in bytes of part ``number``; raises ``ValueError`` beyond the last that can be."""
        if not 1 <= number <= MOST_PARTS:
            raise ValueError(f"an upload has at most {MOST_PARTS} parts")
        if not self.grows or number <= _STEADY_PARTS:
            return self.steady_bytes
        doublings = (number - _STEADY_PARTS - 1) // _STEP_PARTS + 1
        return min(LARGEST_PART_BYTES, self.steady_bytes << doublings)


def choose_part_sizes(expected_bytes: int | None, fixed_bytes: int = 0) -> PartSizes:
    """Return the sizes for an upload of ``expected_bytes`` (None: unknown).

    Up to 48.8 GiB of announced, or 23.4 GiB of unannounced length no part is over 5 MiB. An announced length gets parts
    of one size, which every store accepts; ``fixed_bytes`` (from the storage URL) is one size for every upload.
    """
    if fixed_bytes:
        return PartSizes(fixed_bytes, grows=False)
    if expected_bytes is None or expected_bytes <= _STEADY_PARTS * SMALLEST_PART_BYTES:
        return PartSizes()
    needed = -(-expected_bytes // MOST_PARTS)
    whole_mib = -(-needed // MIB) * MIB
    return PartSizes(min(LARGEST_PART_BYTES, max(SMALLEST_PART_BYTES, whole_mib)), grows=False)


class SpareMemory:
    """Bytes that uploads of one store may hold together beyond the one part that each has.

    With some to spare a part is filled while the one before is on its way; without, the upload waits for it, which
    costs nothing when many run at once.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._left_bytes = budget_bytes

    def take(self, size_bytes: int) -> bool:
        """Take ``size_bytes`` if that many are left."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Return what was taken."""
        self._left_bytes += size_bytes
