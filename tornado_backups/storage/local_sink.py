"""One object on its way into a folder of files.

Owns: the order *write, fsync, rename, fsync of the folders* that makes a completed object survive a power cut, and the
three buffers of an upload: while two are written and hashed, the third is filled.
Does not own: how a file is written (``storage/local_file``), folders (``storage/local_files``), the threads
(``storage/local_threads``). Explained in docs/storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tornado_backups.domain.errors import StorageUnavailable
from tornado_backups.ports import Digest
from tornado_backups.storage import local_files
from tornado_backups.storage.local_file import AppendedFile
from tornado_backups.storage.local_threads import LocalThreads
from tornado_backups.storage.shares import SMALLEST_SHARE_BYTES, share
from tornado_backups.storage.strand import Strand
from tornado_backups.workers import Promise

BUFFER_BYTES = 1536 * 1024
"""What one upload gathers, while few run, before it is hashed and written (docs/performance.md)."""

FIRST_BYTES = 256 * 1024
"""What an upload gathers at first; twice as much each time, so that slow uploads leave the memory to fast ones."""


class SinkRoom:
    """What all sinks of one store use: its folder, its threads, and what they know of each other."""

    def __init__(self, root: Path, threads: LocalThreads) -> None:
        self.root = root
        self.threads = threads
        self.durable_folders: set[str] = set()
        self.filling: set[LocalSink] = set()

    @property
    def buffer_bytes(self) -> int:
        """How much one sink gathers now before it goes to the threads."""
        return share(BUFFER_BYTES, len(self.filling))


class LocalSink:
    """An :class:`~tornado_backups.ports.UploadSink`: a temporary file in the version's folder, renamed when complete.

    Each buffer is hashed and written at once, in two threads, and both in the order of the buffers. A cancelled caller
    leaves its calls running; after :meth:`abort` began none makes anything any more.
    """

    def __init__(self, room: SinkRoom, key: str, segments: tuple[str, ...], digest: Digest | None) -> None:
        self._room = room
        self._key = key
        self._segments = segments
        self._temporary = f"{local_files.temporary_prefix(segments[-1])}{secrets.token_hex(8)}.part"
        self._digest = digest
        self._lock = threading.Lock()
        self._hashing = Strand()
        self._writing = Strand()
        self._asked = 0
        # Anonymous maps: they begin at a block's address, cost memory only where they were filled, and go back whole.
        self._buffers: list[mmap.mmap] = []
        self._filling: mmap.mmap | None = None
        self._filled_bytes = 0
        self._full_bytes = 0
        self._grown_bytes = FIRST_BYTES
        self._fed_bytes = 0
        self._flights: deque[asyncio.Future[None]] = deque()
        self._file: AppendedFile | None = None
        self._made_temporary = False
        self._made_object = False
        self._ended = ""
        room.filling.add(self)

    def room(self) -> memoryview:
        """See ``UploadSink``: what is left of the buffer that is being filled, never empty before the end."""
        if self._ended:
            return memoryview(b"")
        if self._filling is None:
            self._filling = self._buffers.pop() if self._buffers else mmap.mmap(-1, BUFFER_BYTES)
            self._filled_bytes = self._fed_bytes = 0
            self._full_bytes = min(self._grown_bytes, self._room.buffer_bytes)
        return memoryview(self._filling)[self._filled_bytes : self._full_bytes]

    async def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; waits, once a buffer is full, until no more than one before it is on its way."""
        if isinstance(data, memoryview) and data.obj is self._filling:
            await self._filled(len(data))
            return
        rest = memoryview(data)
        while rest:
            await self._refuse_once_landed()
            room = self.room()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            await self._filled(count)

    async def _filled(self, count: int) -> None:
        self._filled_bytes += count
        if self._filled_bytes >= self._full_bytes:
            await self._take_off()

    async def settle(self) -> None:
        """Feed the digest what is gathered: a little at once, more in the thread that then writes it."""
        if self._filled_bytes - self._fed_bytes >= SMALLEST_SHARE_BYTES:
            await self._take_off()
        await self._landed()
        if self._filling is not None:
            self._feed(memoryview(self._filling)[self._fed_bytes : self._filled_bytes])
            self._fed_bytes = self._filled_bytes

    async def _landed(self, but: int = 0) -> None:
        """Wait until no more than ``but`` buffers are on their way; raises, again and again, what went wrong."""
        while len(self._flights) > but:
            await asyncio.shield(self._flights[0])
            self._flights.popleft()

    async def _refuse_once_landed(self) -> None:
        """Raise why the upload has ended: what went wrong first says most."""
        if self._ended:
            await self._landed()
            self._refuse_if_ended("write")

    async def _take_off(self) -> None:
        await self._landed(but=1)
        await self._refuse_once_landed()
        buffer, self._filling = self._filling, None
        if buffer is not None:
            view = memoryview(buffer)[: self._filled_bytes]
            landing = _Landing(partial(self._buffers.append, buffer))
            hashing = partial(landing.part, self._hashing, self._asked, partial(self._feed, view[self._fed_bytes :]))
            writing = partial(landing.part, self._writing, self._asked, partial(self._write, view))
            flight = self._room.threads.data_promised(hashing, writing)
            self._flights.append(flight)
            self._asked += 1
            self._grown_bytes = min(2 * self._grown_bytes, BUFFER_BYTES)
            self._filled_bytes = self._fed_bytes = 0

    def _feed(self, view: memoryview) -> None:
        if self._digest is not None and view:
            self._digest.update(view)

    async def complete(self) -> None:
        """Make the object exist: fsync, rename, fsync of every folder that gained an entry.

        A failed fsync is final: the kernel may have dropped the bytes and would call a second one a success.
        """
        await self._landed()
        self._room.filling.discard(self)
        await self._room.threads.slow(self._publish)
        self._let_go()

    async def abort(self) -> None:
        """Remove the temporary file or the completed object, and the folder this empties; repeatable."""
        self._room.filling.discard(self)
        if self._flights:
            # Waited for and never cancelled: a call that is dropped would hold up those behind it. What they met is
            # of no interest any more.
            await asyncio.wait(self._flights)
            self._flights.clear()
        try:
            await self._room.threads.slow(self._undo)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Hold no memory any more; a thread or a stream that still looks at some keeps that alive by itself."""
        self._filling, self._filled_bytes, self._fed_bytes = None, 0, 0
        self._buffers.clear()

    # -- in threads --------------------------------------------------------------------------------------------------

    def _write(self, view: memoryview) -> None:
        with self._lock, local_files.translated("write", self._key):
            self._refuse_if_ended("write")
            try:
                self._opened().append(view)
            except BaseException:
                self._ended = "a write failed"
                raise

    def _refuse_if_ended(self, operation: str) -> None:
        if self._ended:
            raise StorageUnavailable(operation, self._key, f"the upload has ended: {self._ended}")

    def _opened(self) -> AppendedFile:
        if self._file is None:
            self._made_temporary = True
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made: list[str] = []
            with local_files.folder(self._room.root, self._segments[:-1], made) as opened:
                descriptor = os.open(self._temporary, flags, local_files.FILE_MODE, dir_fd=opened[-1])
            self._file = AppendedFile(descriptor)
            if self._segments[0] in made:
                self._room.durable_folders.discard(self._segments[0])
        return self._file

    def _publish(self) -> None:
        with self._lock, local_files.translated("complete", self._key):
            self._refuse_if_ended("complete")
            self._ended = "it did not complete"
            file = self._opened()
            if self._filling is not None:
                view = memoryview(self._filling)[: self._filled_bytes]
                self._feed(view[self._fed_bytes :])
                file.append(view)
            os.fsync(file.descriptor)
            file.close()
            with local_files.folder(self._room.root, self._segments[:-1]) as opened:
                self._rename(opened[-1])
                self._sync_folders(opened)
            self._ended = "it is complete"

    def _rename(self, parent: int) -> None:
        name = self._segments[-1]
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            raise StorageUnavailable("complete", self._key, "an object of that key exists already")
        self._made_object = True
        os.rename(self._temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _sync_folders(self, opened: list[int]) -> None:
        """Sync from the object's folder upwards; the root only when the collection's folder is not known durable."""
        collection = self._segments[0]
        known = len(opened) > 1 and collection in self._room.durable_folders
        for descriptor in reversed(opened[1:] if known else opened):
            local_files.sync_folder(descriptor)
        self._room.durable_folders.add(collection)

    def _undo(self) -> None:
        with self._lock, local_files.translated("abort", self._key):
            self._ended = "it was aborted"
            if self._file is not None:
                self._file.close()
            if self._made_temporary:
                local_files.remove(self._room.root, self._segments, keep_object=not self._made_object)
                self._made_temporary = False


class _Landing:
    """The two parts of a buffer's flight, hash and write, side by side: it has landed once both are done."""

    def __init__(self, landed: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._left = 2
        self._failure: BaseException | None = None
        self._landed = landed

    def part(self, strand: Strand, number: int, work: Callable[[], None], promise: Promise[None]) -> None:
        """Do one of them in its strand."""
        strand.bring(number, partial(self._do, work, promise))

    def _do(self, work: Callable[[], None], promise: Promise[None]) -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failure = error
        with self._lock:
            self._left -= 1
            self._failure = self._failure or failure
            if self._left:
                return
        if self._failure is None:
            self._landed()
            promise.give(None)
        else:
            promise.fail(self._failure)
