"""One object on its way into a folder of files.

Owns: the order *write, fsync, rename, fsync of the folders* that makes a completed object survive a power cut, and how
much is gathered before a thread hashes and writes it.
Does not own: single file operations (``storage/local_files``), the threads (``storage/local_threads``). Explained in
docs/storage.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from pathlib import Path

from tornado_backups.domain.errors import StorageUnavailable
from tornado_backups.ports import Digest
from tornado_backups.storage import local_files
from tornado_backups.storage.local_threads import LocalThreads

GATHERED_BYTES = 1024 * 1024
"""What a sink gathers, while few run, before it is hashed and written in one thread call (docs/performance.md)."""

SUM_BYTES = 4 * 1024 * 1024
"""What all sinks together gather, and all readers read at once: when many run each has a share of this."""

SMALLEST_SHARE_BYTES = 64 * 1024

WRITE_BACK_BYTES = 8 * 1024 * 1024
"""How much is written before the kernel is asked to begin putting it on the disk."""


def share(most_bytes: int, sharers: int) -> int:
    """Return how much each of ``sharers`` may hold: ``most_bytes`` while that does not exceed the sum."""
    return max(SMALLEST_SHARE_BYTES, min(most_bytes, SUM_BYTES // max(1, sharers)))


class SinkRoom:
    """What all sinks of one store use: its folder, its threads, and what they know of each other."""

    def __init__(self, root: Path, threads: LocalThreads) -> None:
        self.root = root
        self.threads = threads
        self.durable_folders: set[str] = set()
        self.gathering: set[LocalSink] = set()

    @property
    def gathered_bytes(self) -> int:
        """How much one sink gathers now before it goes to a thread."""
        return share(GATHERED_BYTES, len(self.gathering))


class LocalSink:
    """An :class:`~tornado_backups.ports.UploadSink`: a temporary file in the version's folder, renamed when complete.

    A lock orders the thread calls, for a cancelled caller leaves its call running; after :meth:`abort` began no call
    makes anything any more.
    """

    def __init__(self, room: SinkRoom, key: str, segments: tuple[str, ...], digest: Digest | None) -> None:
        self._room = room
        self._key = key
        self._segments = segments
        self._temporary = f"{local_files.temporary_prefix(segments[-1])}{secrets.token_hex(8)}.part"
        self._digest = digest
        self._lock = threading.Lock()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._digested = 0
        self._descriptor = -1
        self._written_bytes = 0
        self._advised_bytes = 0
        self._made_temporary = False
        self._made_object = False
        self._ended = ""
        room.gathering.add(self)

    async def write(self, data: bytes) -> None:
        """Take the next bytes; goes to a thread once enough are gathered."""
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= self._room.gathered_bytes:
            await self._room.threads.data(self._flush)

    async def settle(self) -> None:
        """Feed the digest what is gathered: a little at once, more in the thread that then writes it."""
        if self._gathered_bytes >= SMALLEST_SHARE_BYTES:
            await self._room.threads.data(self._flush)
            return
        for chunk in self._gathered[self._digested :]:
            self._feed(chunk)
        self._digested = len(self._gathered)

    def _feed(self, chunk: bytes) -> None:
        if self._digest is not None:
            self._digest.update(chunk)

    async def complete(self) -> None:
        """Make the object exist: fsync, rename, fsync of every folder that gained an entry.

        A failed fsync is final: the kernel may have dropped the bytes and would call a second one a success.
        """
        self._room.gathering.discard(self)
        await self._room.threads.slow(self._publish)

    async def abort(self) -> None:
        """Remove the temporary file or the completed object, and the folder this empties; repeatable."""
        self._room.gathering.discard(self)
        await self._room.threads.slow(self._undo)

    def _flush(self) -> None:
        with self._lock, local_files.translated("write", self._key):
            self._refuse_if_ended("write")
            try:
                self._write_gathered()
            except BaseException:
                self._ended = "a write failed"
                raise

    def _refuse_if_ended(self, operation: str) -> None:
        if self._ended:
            raise StorageUnavailable(operation, self._key, f"the upload has ended: {self._ended}")

    def _write_gathered(self) -> None:
        if self._descriptor < 0:
            self._made_temporary = True
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made: list[str] = []
            with local_files.folder(self._room.root, self._segments[:-1], made) as opened:
                self._descriptor = os.open(self._temporary, flags, local_files.FILE_MODE, dir_fd=opened[-1])
            if self._segments[0] in made:
                self._room.durable_folders.discard(self._segments[0])
        chunks, digested = self._gathered, self._digested
        self._gathered, self._gathered_bytes, self._digested = [], 0, 0
        for number, chunk in enumerate(chunks):
            if number >= digested:
                self._feed(chunk)
            rest = memoryview(chunk)
            while rest:
                count = os.write(self._descriptor, rest)
                self._written_bytes += count
                rest = rest[count:]
                if self._written_bytes - self._advised_bytes >= WRITE_BACK_BYTES:
                    self._begin_write_back()

    def _begin_write_back(self) -> None:
        # On Linux DONTNEED starts writing dirty pages and drops clean ones. Each stretch is named twice, first dirty
        # and then clean: the last fsync has little left to do, and a backup, seldom read soon, displaces no other page.
        if hasattr(os, "posix_fadvise"):
            begin = max(0, self._advised_bytes - WRITE_BACK_BYTES)
            self._advised_bytes = self._written_bytes
            os.posix_fadvise(self._descriptor, begin, self._written_bytes - begin, os.POSIX_FADV_DONTNEED)

    def _publish(self) -> None:
        with self._lock, local_files.translated("complete", self._key):
            self._refuse_if_ended("complete")
            self._ended = "it did not complete"
            self._write_gathered()
            os.fsync(self._descriptor)
            self._close()
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

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _undo(self) -> None:
        with self._lock, local_files.translated("abort", self._key):
            self._ended = "it was aborted"
            self._gathered, self._gathered_bytes = [], 0
            self._close()
            if self._made_temporary:
                local_files.remove(self._room.root, self._segments, keep_object=not self._made_object)
                self._made_temporary = False
