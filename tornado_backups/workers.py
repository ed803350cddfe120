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
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The threads have been told to end and take no more work."""


class Promise(Generic[T]):
    """The answer of a job on its way into the event loop; given once, by whichever thread has it."""

    __slots__ = ("_settle", "future")

    def __init__(self, future: asyncio.Future[T], settle: Callable[[asyncio.Future[T], Any, Any], None]) -> None:
        self.future = future
        self._settle = settle

    def give(self, answer: T) -> None:
        """Hand the answer to whoever still waits for it."""
        self._send(answer, None)

    def fail(self, failure: BaseException) -> None:
        """Raise ``failure`` to whoever still waits."""
        self._send(None, failure)

    def _send(self, answer: T | None, failure: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self.future.get_loop().call_soon_threadsafe(self._settle, self.future, answer, failure)


class Workers:
    """At most ``most`` daemon threads, started when there is work; being daemons they never keep the interpreter alive.

    Work begins in order. Cancelling a future before its work began drops that work; what has begun is finished, whoever
    still waits for it. ``prepare`` is called once in each thread.
    """

    def __init__(self, name: str, most: int, prepare: Callable[[], None] | None = None) -> None:
        self._name = name
        self._most = most
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[tuple[Promise[Any], Callable[[Promise[Any]], None]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unanswered = 0
        self._closed = False

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a job of the running event loop; raises :class:`Closed` after :meth:`stop`."""
        return self.submit_promised(lambda promise: promise.give(job()))

    def submit_promised(self, *jobs: Callable[[Promise[T]], None]) -> asyncio.Future[T]:
        """Queue jobs that keep one promise, which the last of them does, or another thread after they returned."""
        if self._closed:
            raise Closed
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        promise = Promise(future, self._settle)
        for job in jobs:
            self._jobs.put((promise, job))
        self._unanswered += 1
        while len(self._threads) < min(self._unanswered + len(jobs) - 1, self._most):
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
            promise, job = entry
            if promise.future.cancelled():
                promise.fail(asyncio.CancelledError())
            else:
                try:
                    job(promise)
                except BaseException as error:
                    promise.fail(error)
            del entry, promise, job  # an idle thread must not keep the last answer alive

    def _settle(self, future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
        """Hand the answer to whoever still waits; in the event loop."""
        self._unanswered -= 1
        if future.cancelled():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(answer)
