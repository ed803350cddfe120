"""The memory in which an upload's parts are gathered.

Owns: one buffer that every upload has, and one more while the store has memory to spare. Does not own: how much there
is to spare (``storage/s3_limits``), or what is in the buffers (``storage/s3_upload``).
"""

from __future__ import annotations

import contextlib
import mmap

from tornado_backups.storage.s3_limits import SpareMemory


class PartBuffers:
    """The one or two buffers of an upload, used again from part to part.

    Anonymous maps, for they go back to the system at once and whole; freed heap blocks of this size stay with the
    process (docs/adr/0005-parts-and-small-data.md).
    """

    def __init__(self, spare: SpareMemory) -> None:
        self._spare = spare
        self._spare_bytes = 0
        self._free: list[mmap.mmap] = []
        self._all: list[mmap.mmap] = []

    def first(self, size_bytes: int) -> mmap.mmap:
        """Return a buffer that every upload may have; none of ours may be in use."""
        if not self._free or len(self._free[-1]) < size_bytes:
            self.close()
            return self._new(size_bytes)
        return self._free.pop()

    def second(self, size_bytes: int) -> mmap.mmap | None:
        """Return a buffer besides the one in use, or None when the store has no memory to spare."""
        if self._free and len(self._free[-1]) >= size_bytes:
            return self._free.pop()
        self._forget(self._free)
        self._free = []
        self._spare.give_back(self._spare_bytes)
        self._spare_bytes = 0
        if not self._spare.take(size_bytes):
            return None
        self._spare_bytes = size_bytes
        return self._new(size_bytes)

    def landed(self, buffer: mmap.mmap) -> None:
        """Take back a buffer whose part has arrived."""
        self._free.append(buffer)

    def close(self) -> None:
        """Give all memory back."""
        self._forget(self._all)
        self._all, self._free = [], []
        self._spare.give_back(self._spare_bytes)
        self._spare_bytes = 0

    def _new(self, size_bytes: int) -> mmap.mmap:
        buffer = mmap.mmap(-1, size_bytes)
        self._all.append(buffer)
        return buffer

    def _forget(self, buffers: list[mmap.mmap]) -> None:
        for buffer in buffers:
            with contextlib.suppress(BufferError):  # still seen by a request that is being cancelled: freed with it
                buffer.close()
        self._all = [buffer for buffer in self._all if not buffer.closed]
