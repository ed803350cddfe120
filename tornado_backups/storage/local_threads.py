"""The threads in which files are touched, so that a long fsync holds up neither the event loop nor other uploads.

Owns: two pools, one for what is short and one for what may wait for the disk. Does not own: what is done there
(``storage/local``, ``storage/local_sink``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tornado_backups.domain.errors import StorageUnavailable
from tornado_backups.storage.background import background_threads
from tornado_backups.workers import Closed, Promise, Workers

_SLOW_THREADS = 4

_T = TypeVar("_T")


class LocalThreads:
    """The threads of one store; they are started when they are needed."""

    def __init__(self) -> None:
        self._data = background_threads("storage-data")
        self._slow = Workers("storage-slow", _SLOW_THREADS)

    async def data(self, work: Callable[[], _T]) -> _T:
        """Run a short blocking call (a write, a read); raises what it raises, ``StorageUnavailable`` once closed."""
        return await self._asked(lambda: self._data.submit(work))

    def data_promised(self, *work: Callable[[Promise[_T]], None]) -> asyncio.Future[_T]:
        """Begin such calls, in the order of asking; they have one answer, which the last of them gives.

        A failure is no surprise to the event loop when nobody is left to ask for the answer.
        """
        answer = self._asked(lambda: self._data.submit_promised(*work))
        answer.add_done_callback(_hear)
        return answer

    async def slow(self, work: Callable[[], _T]) -> _T:
        """Run a call that may wait for the disk (fsync, unlink, listing); raises as :meth:`data` does."""
        return await self._asked(lambda: self._slow.submit(work))

    def close(self) -> None:
        """End the threads when they have done what they are at; may be called again."""
        self._data.stop()
        self._slow.stop()

    def _asked(self, submit: Callable[[], asyncio.Future[_T]]) -> asyncio.Future[_T]:
        try:
            return submit()
        except Closed:
            raise StorageUnavailable("use", "", "the storage is closed") from None


def _hear(answer: asyncio.Future[_T]) -> None:
    if not answer.cancelled():
        answer.exception()
