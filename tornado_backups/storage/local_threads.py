"""The threads in which files are touched, so that a long fsync holds up neither the event loop nor other uploads.

Owns: two pools, one for what is short and one for what may wait for the disk. Does not own: what is done there
(``storage/local``, ``storage/local_sink``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tornado_backups.domain.errors import StorageUnavailable
from tornado_backups.storage.background import background_threads

_SLOW_THREADS = 4

_T = TypeVar("_T")


class LocalThreads:
    """The threads of one store; they are started when they are needed."""

    def __init__(self) -> None:
        self._data = background_threads("storage-data")
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, "storage-slow")

    async def data(self, work: Callable[[], _T]) -> _T:
        """Run a short blocking call (a write, a read); raises what it raises, ``StorageUnavailable`` once closed."""
        return await self._submit(self._data, work)

    async def slow(self, work: Callable[[], _T]) -> _T:
        """Run a call that may wait for the disk (fsync, unlink, listing); raises as :meth:`data` does."""
        return await self._submit(self._slow, work)

    def close(self) -> None:
        """End the threads when they have done what they are at; may be called again."""
        self._data.shutdown(wait=False)
        self._slow.shutdown(wait=False)

    def _submit(self, threads: ThreadPoolExecutor, work: Callable[[], _T]) -> asyncio.Future[_T]:
        try:
            return asyncio.get_running_loop().run_in_executor(threads, work)
        except RuntimeError:  # what a pool says that was shut down
            raise StorageUnavailable("use", "", "the storage is closed") from None
