"""Threads that do blocking work for the event loop, in the order in which it was asked for.

Owns: handing work to a thread and its answer back, with as few wake-ups as that takes.
Does not own: what is done there (``registry/sqlite_driver``, ``storage``).

``loop.run_in_executor`` does the same with two futures, a condition and two semaphores for every call, which cost more
than many of the calls: an upload makes a thousand a GiB (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The threads have been told to end and take no more work."""


class Workers:
    """At most ``most`` daemon threads, started when there is work; being daemons they never keep the interpreter alive.

    Work begins in order. Cancelling a future before its work began drops that work; what has begun is finished, whoever
    still waits for it. ``prepare`` is called once in each thread.
    """

    def __init__(self, name: str, most: int, prepare: Callable[[], None] | None = None) -> None:
        self._name = name
        self._most = most
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closed = False

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a job of the running event loop; raises :class:`Closed` after :meth:`stop`."""
        if self._closed:
            raise Closed
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._unfinished += 1
        self._jobs.put((future, job))
        if len(self._threads) < min(self._unfinished, self._most):
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def stop(self) -> None:
        """End the threads after the jobs queued so far; may be called again."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)

    def _work(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while (entry := self._jobs.get()) is not None:
            future, job = entry
            answer: Any = None
            failure: BaseException | None = None
            if not future.cancelled():
                try:
                    answer = job()
                except BaseException as error:
                    failure = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(self._settle, future, answer, failure)
            del answer, failure, entry, future, job  # an idle thread must not keep the last answer alive

    def _settle(self, future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
        """Hand the answer to whoever still waits; in the event loop."""
        self._unfinished -= 1
        if future.cancelled():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(answer)
