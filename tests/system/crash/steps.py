"""Numbers every I/O step of a piece of work, and makes one of them fail, lose its answer, or be the last.

Owns: finding the steps. They are not listed anywhere: every coroutine of the ports (registry, store, sink), every call
of ``os`` inside ``storage/local*`` and every request of the S3 client is one, so that a step that somebody adds is
tried without anybody thinking of it.
Does not own: what is done (``scenarios``), nor what must hold afterwards (``worlds``).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import pkgutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from aiobotocore.client import AioBaseClient
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from tornado_backups import storage
from tornado_backups.domain.errors import DatabaseUnavailable, StorageUnavailable

Mode = Literal["refused", "unanswered", "outage", "halt", "kill"]
"""What happens at the step.

``refused``: an error, and nothing was done. ``unanswered``: it was done, and an error comes all the same. ``outage``:
an error here and at every later step of the same side (registry or storage). ``halt``: the process does nothing any
more, here and ever after, not even clean up. ``kill``: the process ends by ``os._exit``; for children only.
"""

KILLED_STATUS = 79
"""The exit status of a child that ended itself at a step."""


class Halted(BaseException):
    """Stands for the death of the process: whatever still runs meets it at its next step."""


@dataclass
class Steps:
    """Counts steps, and lets ``mode`` happen at number ``at`` (counted from 1; 0: never)."""

    mode: Mode = "refused"
    at: int = 0
    names: list[str] = field(default_factory=list)
    halted: bool = False
    in_flight: int = 0
    descriptors: set[int] = field(default_factory=set)
    _out_of_order: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, name: str, side: str) -> bool:
        """Count a step about to be done, and raise or end what the mode says; True when its answer gets lost."""
        with self._lock:
            self.names.append(name)
            is_it = len(self.names) == self.at
            if is_it and self.mode == "kill":
                os._exit(KILLED_STATUS)
            if is_it and self.mode == "halt":
                self.halted = True
            if is_it and self.mode == "outage":
                self._out_of_order = side
        if self.halted:
            raise Halted(name)
        if (is_it and self.mode == "refused") or self._out_of_order == side:
            raise failure(name, side)
        return is_it and self.mode == "unanswered"

    async def around(self, name: str, side: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Do one asynchronous step."""
        lost = self.enter(name, side)
        self.in_flight += 1
        try:
            answer = await call()
        finally:
            self.in_flight -= 1
        if lost:
            raise failure(name, side)
        return answer

    async def settle(self) -> None:
        """Wait until nothing is on its way any more: a dead process's last requests arrive all the same."""
        while self.in_flight:
            await asyncio.sleep(0.001)
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):  # closed by its owner in the regular way
                os.close(descriptor)
        self.descriptors.clear()


def failure(name: str, side: str) -> Exception:
    """Return the error that a step of this kind fails with when its side is out of order."""
    if name.startswith("os."):
        return OSError(5, "Input/output error")
    if name.startswith("s3."):
        if name.endswith("CompleteMultipartUpload"):
            return ReadTimeoutError(endpoint_url="http://storage")
        return EndpointConnectionError(endpoint_url="http://storage")
    return DatabaseUnavailable("said by the test") if side == "registry" else StorageUnavailable(name, "", "test")


class Numbered:
    """A port whose every coroutine and every item of an asynchronous iterator is a step; what it returns, too."""

    def __init__(self, inner: Any, steps: Steps, side: str) -> None:
        self._inner = inner
        self._steps = steps
        self._side = side

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name in ("open", "close") or not callable(attribute):
            return attribute
        if not inspect.iscoroutinefunction(attribute) and not inspect.isasyncgenfunction(attribute):
            return attribute  # what does not wait does no I/O
        if inspect.isasyncgenfunction(attribute):
            return lambda *given, **named: self._iterate(name, attribute(*given, **named))
        return lambda *given, **named: self._call(name, lambda: attribute(*given, **named))

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await self._steps.around(f"{self._side}.{name}", self._side, call)
        return Numbered(answer, self._steps, self._side) if hasattr(answer, "complete") else answer

    async def _iterate(self, name: str, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            while True:
                yield await self._steps.around(f"{self._side}.{name}", self._side, lambda: anext(items))
        except StopAsyncIteration:
            return
        finally:
            await items.aclose()  # type: ignore[attr-defined]


class NumberedOs:
    """The module ``os``, as the local store sees it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(os, name)
        # A close that fails has closed all the same (Linux), and what only computes is no step.
        if not inspect.isbuiltin(attribute) or name in ("close", "strerror", "fspath", "fsencode"):
            return attribute
        return lambda *given, **named: self._call(name, lambda: attribute(*given, **named))

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        lost = self._steps.enter(f"os.{name}", "store")
        answer = call()
        if name == "open":
            self._steps.descriptors.add(answer)
        if lost:
            if hasattr(answer, "close"):
                answer.close()
            raise failure(f"os.{name}", "store")
        return answer


def disk_modules() -> list[ModuleType]:
    """Return the modules of the local store that make system calls, whatever they are called and however many."""
    names = [found.name for found in pkgutil.iter_modules(storage.__path__) if found.name.startswith("local")]
    modules = [importlib.import_module(f"{storage.__name__}.{name}") for name in names]
    return [module for module in modules if hasattr(module, "os")]


@contextlib.contextmanager
def numbered(steps: Steps, below_the_ports: bool) -> Iterator[None]:
    """Number what lies below the ports, too: system calls of the local store, requests of the S3 client."""
    if not below_the_ports:
        yield
        return
    plain_call = AioBaseClient._make_api_call
    modules = disk_modules()

    async def call(self: Any, operation: str, parameters: Any) -> Any:
        return await steps.around(f"s3.{operation}", "store", lambda: plain_call(self, operation, parameters))

    try:
        for module in modules:
            vars(module)["os"] = NumberedOs(steps)
        AioBaseClient._make_api_call = call
        yield
    finally:
        for module in modules:
            vars(module)["os"] = os
        AioBaseClient._make_api_call = plain_call
