"""Objects as files below one folder: ``{root}/{collection}/{id}/{filename}``.

Owns: the threads that touch the disk, and the order *write, fsync, rename, fsync of the folders* that makes a
completed object survive a power cut.
Does not own: single file operations (``storage/local_files.py``), or when an object may go (services). Explained in
docs/storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tornado_backups.domain.errors import ObjectDamaged, StartupError, StorageError, StorageUnavailable
from tornado_backups.domain.model import StoredObject
from tornado_backups.ports import Digest
from tornado_backups.storage import local_files
from tornado_backups.storage.keys import RESERVED, check_key

GATHERED_BYTES = 1024 * 1024
"""What a sink gathers, while few run, before it is hashed and written in one thread call (docs/performance.md)."""

READ_BYTES = 512 * 1024
"""What is read and hashed in one thread call, while few are reading."""

SUM_BYTES = 4 * 1024 * 1024
"""What all sinks together gather, and all readers read at once: when many run each has a share of this."""

_SMALLEST_SHARE_BYTES = 64 * 1024

WRITE_BACK_BYTES = 8 * 1024 * 1024
"""How much is written before the kernel is asked to begin putting it on the disk."""

_LIST_BATCH = 256
_THREADS = 4
_PROBE = b"tornado-backups probe\n"

_T = TypeVar("_T")


class LocalStore:
    """An :class:`~tornado_backups.ports.ObjectStore` on a local folder, which is made when it is missing.

    Files have mode 0600, folders 0700. Links below the folder are not followed. Data and the slow calls (fsync, unlink,
    listing) have their own threads, so that a long fsync holds up no other upload.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._data_threads = ThreadPoolExecutor(_THREADS, "storage-data")
        self._slow_threads = ThreadPoolExecutor(_THREADS, "storage-slow")
        self._durable_folders: set[str] = set()
        self._gathering: set[LocalSink] = set()
        self._readers = 0

    async def open(self) -> None:
        """Make the folder and prove that it can be written and read back; raise ``StartupError`` if not."""
        try:
            await self.in_slow_thread(self._make_and_probe)
        except StorageError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise StartupError(f"storage folder {self._root}: {error.cause}{hint}") from error

    def _make_and_probe(self) -> None:
        with local_files.translated("open", ""):
            local_files.make_root(self._root)
        self._probe()

    async def close(self) -> None:
        """End the threads; may be called again."""
        self._data_threads.shutdown(wait=False)
        self._slow_threads.shutdown(wait=False)

    async def in_data_thread(self, work: Callable[[], _T]) -> _T:
        """Run a short blocking call (a write, a read)."""
        return await self._submit(self._data_threads, work)

    async def in_slow_thread(self, work: Callable[[], _T]) -> _T:
        """Run a blocking call that may wait for the disk (fsync, unlink, listing)."""
        return await self._submit(self._slow_threads, work)

    def _submit(self, threads: ThreadPoolExecutor, work: Callable[[], _T]) -> asyncio.Future[_T]:
        try:
            return asyncio.get_running_loop().run_in_executor(threads, work)
        except RuntimeError:  # what a pool says that was shut down
            raise StorageUnavailable("use", "", "the storage is closed") from None

    async def begin(self, key: str, expected_bytes: int | None = None, digest: Digest | None = None) -> LocalSink:
        """Start an object; nothing is on the disk before enough is gathered or the end."""
        sink = LocalSink(self, self._root, key, check_key("begin", key), self._durable_folders, digest)
        self._gathering.add(sink)
        return sink

    @property
    def gathered_bytes(self) -> int:
        """How much one sink gathers now before it goes to a thread."""
        return _share(GATHERED_BYTES, len(self._gathering))

    def ended(self, sink: LocalSink) -> None:
        """Count a sink no more; repeatable."""
        self._gathering.discard(sink)

    async def read(
        self, key: str, start: int, length: int, digest: Digest | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield exactly ``length`` bytes from ``start``, in buffers of at most :data:`READ_BYTES`.

        The next buffer is read, and the digest fed with it, while the one before is used.
        """
        segments = check_key("read", key)
        descriptor, size = await self._opened(lambda: self._open(key, segments))
        reading: asyncio.Future[bytes] | None = None
        position, end = start, start + length
        self._readers += 1
        try:
            if end > size:
                raise ObjectDamaged("read", key, f"the file has {size} bytes, not {end}")
            while position < end:
                if reading is None:
                    reading = self._read_on(descriptor, position, end, key, digest)
                data = await asyncio.shield(reading)
                position += len(data)
                reading = self._read_on(descriptor, position, end, key, digest) if position < end else None
                yield data
        finally:
            self._readers -= 1
            if reading is None:
                os.close(descriptor)
            else:  # while a thread reads the descriptor's number must not be used again under it
                reading.add_done_callback(lambda done: _close_after(done, descriptor))

    def _read_on(
        self, descriptor: int, position: int, end: int, key: str, digest: Digest | None
    ) -> asyncio.Future[bytes]:
        count = min(_share(READ_BYTES, self._readers), end - position)
        work = partial(_pread, descriptor, count, position, key, digest)
        return asyncio.ensure_future(self.in_data_thread(work))

    async def _opened(self, work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        opening = asyncio.ensure_future(self.in_data_thread(work))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # the thread opens the file all the same
            opening.add_done_callback(_close_opened)
            raise

    def _open(self, key: str, segments: tuple[str, ...]) -> tuple[int, int]:
        with local_files.translated("read", key):
            return local_files.open_for_reading(self._root, segments)

    async def size(self, key: str) -> int:
        """Return the object's size in bytes; raises ``ObjectMissing``."""
        segments = check_key("size", key)

        def measure() -> int:
            with local_files.translated("size", key):
                descriptor, size = local_files.open_for_reading(self._root, segments)
                os.close(descriptor)
                return size

        return await self.in_slow_thread(measure)

    async def delete(self, key: str) -> None:
        """Remove the object durably, and the version's folder that this empties; already gone is success."""
        await self._remove("delete", key)

    async def abandon(self, key: str) -> None:
        """Remove the object and every temporary file that an upload to ``key`` made."""
        await self._remove("abandon", key)

    async def _remove(self, operation: str, key: str) -> None:
        segments = check_key(operation, key)

        def work() -> None:
            with local_files.translated(operation, key):
                local_files.remove(self._root, segments)

        await self.in_slow_thread(work)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix``, without temporary files."""
        found = local_files.walk(self._root, prefix)

        def next_batch(source: Iterator[StoredObject]) -> list[StoredObject]:
            with local_files.translated("list", prefix):
                return [*islice(source, _LIST_BATCH)]

        while batch := await self.in_slow_thread(lambda: next_batch(found)):
            for stored in batch:
                yield stored

    async def probe(self) -> None:
        """Write a small file durably, read it back and let it go; it has no name while it exists."""
        await self.in_slow_thread(self._probe)

    def _probe(self) -> None:
        path = self._root / f"{RESERVED}probe-{secrets.token_hex(8)}"
        with local_files.translated("probe", ""):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, local_files.FILE_MODE)
            try:
                os.unlink(path)
                os.write(descriptor, _PROBE)
                os.fsync(descriptor)
                if os.pread(descriptor, len(_PROBE) + 1, 0) != _PROBE:
                    raise StorageUnavailable("probe", "", "what was written did not read back")
            finally:
                os.close(descriptor)


class LocalSink:
    """An :class:`~tornado_backups.ports.UploadSink`: a temporary file in the version's folder, renamed when complete.

    A lock orders the thread calls, for a cancelled caller leaves its call running; after :meth:`abort` began no call
    makes anything any more.
    """

    def __init__(
        self,
        store: LocalStore,
        root: Path,
        key: str,
        segments: tuple[str, ...],
        durable_folders: set[str],
        digest: Digest | None,
    ) -> None:
        self._store = store
        self._root = root
        self._key = key
        self._segments = segments
        self._durable_folders = durable_folders
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

    async def write(self, data: bytes) -> None:
        """Take the next bytes; goes to a thread once enough are gathered."""
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= self._store.gathered_bytes:
            await self._store.in_data_thread(self._flush)

    async def settle(self) -> None:
        """Feed the digest what is gathered: a little at once, more in the thread that then writes it."""
        if self._gathered_bytes >= _SMALLEST_SHARE_BYTES:
            await self._store.in_data_thread(self._flush)
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
        self._store.ended(self)
        await self._store.in_slow_thread(self._publish)

    async def abort(self) -> None:
        """Remove the temporary file or the completed object, and the folder this empties; repeatable."""
        self._store.ended(self)
        await self._store.in_slow_thread(self._undo)

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
            with local_files.folder(self._root, self._segments[:-1], made) as opened:
                self._descriptor = os.open(self._temporary, flags, local_files.FILE_MODE, dir_fd=opened[-1])
            if self._segments[0] in made:
                self._durable_folders.discard(self._segments[0])
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
            with local_files.folder(self._root, self._segments[:-1]) as opened:
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
        known = len(opened) > 1 and collection in self._durable_folders
        for descriptor in reversed(opened[1:] if known else opened):
            local_files.sync_folder(descriptor)
        self._durable_folders.add(collection)

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
                local_files.remove(self._root, self._segments, keep_object=not self._made_object)
                self._made_temporary = False


def _share(most_bytes: int, sharers: int) -> int:
    return max(_SMALLEST_SHARE_BYTES, min(most_bytes, SUM_BYTES // max(1, sharers)))


def _pread(descriptor: int, count: int, offset: int, key: str, digest: Digest | None) -> bytes:
    with local_files.translated("read", key):
        data = os.pread(descriptor, count, offset)
    if not data:
        raise ObjectDamaged("read", key, f"the file ends at {offset} while it is being read")
    if digest is not None:
        digest.update(data)
    return data


def _close_opened(done: asyncio.Future[tuple[int, int]]) -> None:
    if not done.cancelled() and done.exception() is None:
        os.close(done.result()[0])


def _close_after(done: asyncio.Future[bytes], descriptor: int) -> None:
    os.close(descriptor)
    if not done.cancelled():
        done.exception()  # retrieved, for nobody waits for it any more
