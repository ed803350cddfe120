"""Bytes of running uploads on their way to hashing and storage, gathered so that few thread calls carry them.

Owns: how much one upload holds before it passes it on, and that all uploads together hold no more than a fixed sum.
Does not own: what happens to what is passed on (``services/running_upload``). Figures are in docs/performance.md.
"""

from __future__ import annotations

LARGEST_BYTES = 1024 * 1024
"""What one upload gathers while few run: a thread call costs as much as hashing a tenth of it."""

SMALLEST_BYTES = 64 * 1024
SUM_BYTES = 4 * 1024 * 1024
"""What all uploads together gather, as long as that leaves each :data:`SMALLEST_BYTES`."""

_TRICKLE_BYTES = 16 * 1024


class Shares:
    """Divides :data:`SUM_BYTES` among the uploads that run; a hundred slow ones need no more memory than eight."""

    def __init__(self) -> None:
        self._holders: set[object] = set()

    def join(self, upload: object) -> None:
        """Count one more upload."""
        self._holders.add(upload)

    def leave(self, upload: object) -> None:
        """Count it no more; repeatable."""
        self._holders.discard(upload)

    @property
    def each_bytes(self) -> int:
        """How much an upload may gather now."""
        return max(SMALLEST_BYTES, min(LARGEST_BYTES, SUM_BYTES // max(1, len(self._holders))))


class Gathered:
    """Pieces in order: large ones are kept as they came, the drops of a slow client are joined."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._pieces: list[bytes] = []
        self._drops = bytearray()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size_bytes += len(data)
        if len(data) < _TRICKLE_BYTES:
            self._drops += data
            return
        self._join_drops()
        self._pieces.append(data)

    def take(self) -> list[bytes]:
        """Return everything in order and hold nothing any more."""
        self._join_drops()
        pieces, self._pieces, self.size_bytes = self._pieces, [], 0
        return pieces

    def _join_drops(self) -> None:
        if self._drops:
            self._pieces.append(bytes(self._drops))
            self._drops.clear()
