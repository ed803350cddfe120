"""How much memory one transfer of a local file may hold, so that all together hold little.

Owns: sizes of buffers. Does not own: the buffers (``storage/local_sink``, ``storage/local_source``). The sizes were
chosen by measuring: docs/performance.md.
"""

from __future__ import annotations

SUM_BYTES = 4 * 1024 * 1024
"""One buffer of each upload together, and one of each download: when many run each has a share of this."""

SMALLEST_SHARE_BYTES = 64 * 1024


def share(most_bytes: int, sharers: int) -> int:
    """Return the size of a buffer of each of ``sharers``, in bytes: ``most_bytes`` while the sum allows it.

    A multiple of the least share, which is one of every disk's blocks.
    """
    fair = SUM_BYTES // max(1, sharers)
    return max(SMALLEST_SHARE_BYTES, min(most_bytes, fair - fair % SMALLEST_SHARE_BYTES))
