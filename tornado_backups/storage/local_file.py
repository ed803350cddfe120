"""One file written from its beginning to its end, past the page cache where that is cheaper.

Owns: how bytes get from memory to a descriptor. Does not own: names, folders, fsync (``storage/local_sink``).
Explained in docs/storage.md; figures in docs/performance.md.

A backup is written once and seldom read soon. Through the page cache it costs a copy, pages taken from whoever else
could use them, and write-back at the end; with ``O_DIRECT`` (open(2)) the disk takes it from our own buffer.
"""

from __future__ import annotations

import errno
import fcntl
import os

BLOCK_BYTES = 4096
"""Address, offset and length of what goes past the page cache are multiples of this: no disk has larger sectors."""

SMALLEST_DIRECT_BYTES = 256 * 1024
"""Less than this is left to the page cache, which makes one write of many small ones."""

WRITE_BACK_BYTES = 8 * 1024 * 1024
"""How much goes into the page cache before the kernel is asked to begin putting it on the disk."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_NOT_HERE = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class AppendedFile:
    """Appends to an open, empty file. Takes over the descriptor; not safe to be used by two threads at a time."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._size_bytes = 0
        self._advised_bytes = 0
        self._direct_possible = bool(_DIRECT)
        self._direct = False

    def append(self, data: memoryview) -> None:
        """Write all of ``data``; raises ``OSError``, and then it is unknown how much was written.

        Goes past the page cache when ``data`` begins at a block's address (a map does) and is large; what is no whole
        block at its end does not.
        """
        while data:
            straight = self._straight_bytes(len(data))
            self._set_direct(bool(straight))
            try:
                count = os.write(self.descriptor, data[:straight] if straight else data)
            except OSError as error:
                if not straight or error.errno not in _NOT_HERE:
                    raise
                self._direct_possible = False  # this file system, or the memory's alignment, does not allow it
                continue
            self._size_bytes += count
            data = data[count:]
            if not straight and self._size_bytes - self._advised_bytes >= WRITE_BACK_BYTES:
                self._begin_write_back()

    def close(self) -> None:
        """Close; may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _straight_bytes(self, size_bytes: int) -> int:
        if not self._direct_possible or self._size_bytes % BLOCK_BYTES or size_bytes < SMALLEST_DIRECT_BYTES:
            return 0
        return size_bytes - size_bytes % BLOCK_BYTES

    def _set_direct(self, direct: bool) -> None:
        if direct == self._direct:
            return
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | _DIRECT if direct else flags & ~_DIRECT)
        except OSError as error:
            if not direct or error.errno not in _NOT_HERE:
                raise
            self._direct_possible = False
            return
        self._direct = direct

    def _begin_write_back(self) -> None:
        # On Linux DONTNEED starts writing dirty pages and drops clean ones. Each stretch is named twice, first dirty
        # and then clean: the last fsync has little left to do, and a backup, seldom read soon, displaces no other page.
        if hasattr(os, "posix_fadvise"):
            begin = max(0, self._advised_bytes - WRITE_BACK_BYTES)
            self._advised_bytes = self._size_bytes
            os.posix_fadvise(self.descriptor, begin, self._size_bytes - begin, os.POSIX_FADV_DONTNEED)
