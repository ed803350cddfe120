"""Objects as files below one folder: ``{root}/{collection}/{id}/{filename}``.

Owns: finding, opening, removing and listing them, and the proof that the folder can be used.
Does not own: how one comes to be and how it is read (``storage/local_sink``, ``storage/local_source``), single file
operations (``storage/local_files``), or when an object may go (services). Explained in docs/storage.md.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path

from tornado_backups.domain.errors import ObjectDamaged, StartupError, StorageError, StorageUnavailable
from tornado_backups.domain.model import StoredObject
from tornado_backups.ports import Digest
from tornado_backups.storage import local_files
from tornado_backups.storage.keys import RESERVED, check_key
from tornado_backups.storage.local_sink import LocalSink, SinkRoom
from tornado_backups.storage.local_source import LocalSource, SourceRoom
from tornado_backups.storage.local_threads import LocalThreads

_LIST_BATCH = 256
_PROBE = b"tornado-backups probe\n"


class LocalStore:
    """An :class:`~tornado_backups.ports.ObjectStore` on a local folder, which is made when it is missing.

    Files have mode 0600, folders 0700. Links below the folder are not followed. Data and the slow calls (fsync, unlink,
    listing) have their own threads, so that a long fsync holds up no other upload.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.threads = LocalThreads()
        self._sink_room = SinkRoom(root, self.threads)
        self._source_room = SourceRoom(self.threads)

    async def open(self) -> None:
        """Make the folder and prove that it can be written and read back; raise ``StartupError`` if not."""
        try:
            await self.threads.slow(self._make_and_probe)
        except StorageError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise StartupError(f"storage folder {self._root}: {error.cause}{hint}") from error

    def _make_and_probe(self) -> None:
        with local_files.translated("open", ""):
            local_files.make_root(self._root)
        self._probe()

    async def close(self) -> None:
        """End the threads; may be called again."""
        self.threads.close()

    async def begin(self, key: str, expected_bytes: int | None = None, digest: Digest | None = None) -> LocalSink:
        """Start an object; nothing is on the disk before enough is gathered or the end."""
        return LocalSink(self._sink_room, key, check_key("begin", key), digest)

    async def read(
        self, key: str, start: int, length: int, digest: Digest | None = None
    ) -> AsyncGenerator[memoryview, None]:
        """Yield exactly ``length`` bytes from ``start``; those after them are read and hashed while they are used."""
        segments = check_key("read", key)
        descriptor, size = await self._opened(lambda: self._open(key, segments))
        source = LocalSource(self._source_room, key, descriptor, start, length, digest)
        try:
            if start + length > size:
                raise ObjectDamaged("read", key, f"the file has {size} bytes, not {start + length}")
            while data := await source.next():
                yield data
        finally:
            source.close()

    async def _opened(self, work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        opening = asyncio.ensure_future(self.threads.data(work))
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

        return await self.threads.slow(measure)

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

        await self.threads.slow(work)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix``, without temporary files."""
        found = local_files.walk(self._root, prefix)

        def next_batch(source: Iterator[StoredObject]) -> list[StoredObject]:
            with local_files.translated("list", prefix):
                return [*islice(source, _LIST_BATCH)]

        while batch := await self.threads.slow(lambda: next_batch(found)):
            for stored in batch:
                yield stored

    async def probe(self) -> None:
        """Write a small file durably, read it back and let it go; it has no name while it exists."""
        await self.threads.slow(self._probe)

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


def _close_opened(done: asyncio.Future[tuple[int, int]]) -> None:
    if not done.cancelled() and done.exception() is None:
        os.close(done.result()[0])
