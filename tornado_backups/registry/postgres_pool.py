"""A few connections to PostgreSQL, opened when needed.

Owns: how many there are, which are fit to be used again, when idle ones are closed.
Does not own: what is done with them (``postgres_driver``).

aiopg brings a pool, but its waiting is built on async-timeout 4, which leaves a task marked as cancelled after a
timeout, and it holds a lock for everybody while one connection is being made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from tornado_backups.domain.errors import DatabaseUnavailable
from tornado_backups.ports import Clock

Connection = Any
"""An ``aiopg.Connection`` (aiopg has no types)."""


class ConnectionPool:
    """At most ``size`` connections; the one used last is used first, so that the others can grow old and go."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        clock: Clock,
        size: int = 4,
        wait_seconds: float = 10.0,
        idle_seconds: float = 300.0,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._slots = asyncio.Semaphore(size)
        self._wait_seconds = wait_seconds
        self._idle_seconds = idle_seconds
        self._idle: list[tuple[float, Connection]] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; it is closed unless it comes back open and outside a transaction.

        Raises ``DatabaseUnavailable`` when none becomes free in time, and whatever connecting raises.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("all connections to the database are in use") from None
        try:
            connection = self._take() or await self._connect()
            try:
                yield connection
            finally:
                self._put_back(connection)
        finally:
            self._slots.release()

    def close_idle(self) -> None:
        """Close what nobody uses: after one connection was found dead the others are not to be trusted."""
        while self._idle:
            self._idle.pop()[1].close()

    def close(self) -> None:
        """Close what nobody uses now, and the rest as it comes back."""
        self._closed = True
        self.close_idle()

    def _take(self) -> Connection | None:
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def _put_back(self, connection: Connection) -> None:
        now = self._clock.monotonic()
        while self._idle and self._idle[0][0] < now - self._idle_seconds:
            self._idle.pop(0)[1].close()
        if connection.closed:
            return
        if self._closed or connection.raw.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            connection.close()
        else:
            self._idle.append((now, connection))
