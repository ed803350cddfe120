"""One object on its way out of a folder of files.

Owns: the buffers of a download: while one is used, one is hashed and the next are read. Does not own: how a file is
found and opened (``storage/local``, ``storage/local_files``) or the threads (``storage/local_threads``).
Explained in docs/storage.md; figures in docs/performance.md.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from functools import partial

from tornado_backups.domain.errors import ObjectDamaged
from tornado_backups.ports import Digest
from tornado_backups.storage import local_files
from tornado_backups.storage.local_threads import LocalThreads
from tornado_backups.storage.shares import share
from tornado_backups.storage.strand import Strand
from tornado_backups.workers import Promise

BUFFER_BYTES = 768 * 1024
"""What is read and hashed in one thread call, while few are reading (docs/performance.md)."""

BUFFERS = 4
"""One that is used, one that is hashed, one that is read, one in hand: the pauses of disk and client do not add up."""


class SourceRoom:
    """What all sources of one store use: its threads, and how many they are."""

    def __init__(self, threads: LocalThreads) -> None:
        self.threads = threads
        self.reading = 0

    @property
    def buffer_bytes(self) -> int:
        """How much one source reads at a time now."""
        return share(BUFFER_BYTES, self.reading)


class LocalSource:
    """Reads ``length`` bytes from ``start`` of an open file, which it closes; used by one task."""

    def __init__(
        self, room: SourceRoom, key: str, descriptor: int, start: int, length: int, digest: Digest | None
    ) -> None:
        self._room = room
        self._key = key
        self._descriptor = descriptor
        self._position, self._end = start, start + length
        self._digest = digest
        self._hashing = Strand()
        self._asked = 0
        # Buffers are anonymous maps, which go back to the system whole.
        self._used: mmap.mmap | None = None
        self._flights: deque[tuple[asyncio.Future[None], mmap.mmap, int]] = deque()
        self._closed = False
        room.reading += 1

    async def next(self) -> memoryview:
        """Return the next bytes, which the digest has been fed by then; empty at the end.

        They are good until the next call of any method. Raises ``ObjectDamaged`` when the file has become shorter.
        """
        spare, self._used = self._used, None
        while self._position < self._end and len(self._flights) < BUFFERS:
            self._take_off(spare)
            spare = None
        if not self._flights:
            return memoryview(b"")
        flight, buffer, count = self._flights[0]
        await asyncio.shield(flight)  # never cancelled: a call that is dropped would hold up those behind it
        self._flights.popleft()
        self._used = buffer
        return memoryview(buffer)[:count]

    def close(self) -> None:
        """Close the file once no thread reads it any more: its number must not be used again under one."""
        self._room.reading -= 1
        self._closed = True
        if self._flights:  # their promises are kept in order, each after it has read
            self._flights[-1][0].add_done_callback(lambda done: os.close(self._descriptor))
        else:
            os.close(self._descriptor)

    def _take_off(self, buffer: mmap.mmap | None) -> None:
        most = self._room.buffer_bytes
        count = min(most, self._end - self._position)
        if buffer is None or not count <= len(buffer) <= most:  # the share has changed: others came, or left
            buffer = mmap.mmap(-1, count)
        job = partial(self._fill, self._asked, memoryview(buffer)[:count], self._position)
        flight = self._room.threads.data_promised(job)
        self._asked += 1
        self._flights.append((flight, buffer, count))
        self._position += count

    # -- in threads --------------------------------------------------------------------------------------------------

    def _fill(self, number: int, view: memoryview, offset: int, promise: Promise[None]) -> None:
        """Read into ``view`` while the bytes before are hashed; it is hashed after them, here or where they are."""
        failure: BaseException | None = None
        try:
            if not self._closed:
                self._read(view, offset)
        except BaseException as error:
            failure = error
        self._hashing.bring(number, partial(self._hash, view, promise, failure))

    def _hash(self, view: memoryview, promise: Promise[None], failure: BaseException | None) -> None:
        try:
            if failure is None and not self._closed and self._digest is not None:
                self._digest.update(view)
        except BaseException as error:
            failure = error
        promise.give(None) if failure is None else promise.fail(failure)

    def _read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            with local_files.translated("read", self._key):
                count = os.preadv(self._descriptor, [view[done:]], offset + done)
            if not count:
                raise ObjectDamaged("read", self._key, f"the file ends at {offset + done} while it is being read")
            done += count
