"""Runs transactions on PostgreSQL through aiopg.

Owns: begin, commit and rollback, timeouts, what may be tried again, what PostgreSQL's errors mean to the program.
Does not own: the scripts (``transactions_*``), connections at rest (``postgres_pool``). Explained in docs/database.md.

Cancelling or a timeout in a transaction closes its connection: the server rolls back, unless the commit was already
on its way. A transaction whose commit was not sent has not happened, so it may be tried again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

import aiopg
import psycopg2
from psycopg2 import errors

from tornado_backups.domain.errors import BackupError, DatabaseUnavailable, StartupError, StorageFull
from tornado_backups.ports import Clock
from tornado_backups.registry.dialect import Dialect
from tornado_backups.registry.postgres_pool import Connection, ConnectionPool
from tornado_backups.registry.postgres_url import DatabaseUrl
from tornado_backups.registry.schema import migrate
from tornado_backups.registry.script import Result, Script, Transaction

T = TypeVar("T")
log = logging.getLogger(__name__)

_OLDEST = 110000
_CHECKS_CONNECTIONS = 140000
_CONNECT_SECONDS = 10.0
_STATEMENT_SECONDS = 20.0
_MIGRATION_SECONDS = 600.0
_ATTEMPTS = 4
_NO_EXTRAS = {"enable_json": False, "enable_hstore": False, "enable_uuid": False}

# The server's own limit lies above ours: it is for statements whose client died, and aiopg takes it for a cancelled
# task. synchronous_commit=off, set by an administrator for speed, would lose versions that were acknowledged.
_SESSION = """
SET statement_timeout = '25s';
SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '60s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


class _Lost(Exception):
    """The connection broke or its transaction lost a conflict before its commit was sent: try again."""


class PostgresDriver:
    """Runs transactions on the database of ``url``; raises ``UsageError`` for a URL that makes no sense."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = DatabaseUrl(url)
        self._clock = clock
        self._pool: ConnectionPool | None = None

    async def open(self) -> None:
        """See ``Driver``."""
        await self.close()
        self._pool = ConnectionPool(self._connect, self._clock)
        try:
            await self._attempt(migrate(f"the {self._url}"), _MIGRATION_SECONDS)
        except BaseException as error:
            await self.close()
            if isinstance(error, (psycopg2.Error, OSError, DatabaseUnavailable, _Lost)):  # OSError: timeouts too
                raise StartupError(f"the {self._url} cannot be used: {self._reason(error)}") from error
            raise

    async def close(self) -> None:
        """See ``Driver``."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def run(self, transaction: Transaction[T]) -> T:
        """See ``Driver``."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._attempt(transaction, _STATEMENT_SECONDS)
            except _Lost as lost:
                log.warning("registry: %s, attempt %d: %s", transaction.name, attempt, self._reason(lost))
            except (psycopg2.Error, OSError) as error:
                raise self._failed(transaction.name, error) from error
        raise DatabaseUnavailable("the database did not complete the transaction")

    async def _attempt(self, transaction: Transaction[T], timeout_seconds: float) -> T:
        if self._pool is None:
            raise DatabaseUnavailable("the database is closed")
        async with self._pool.connection() as connection:
            running = _Running(connection, timeout_seconds)
            try:
                return await running.transact(transaction)
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation) as error:
                # a unique violation is a race too: the next try reads what won, and answers accordingly
                connection.close()
                raise _Lost from error
            except psycopg2.Error as error:
                broken = bool(connection.closed) or isinstance(error, errors.AdminShutdown)
                connection.close()
                if broken:
                    self._pool.close_idle()
                    if not running.commit_sent:
                        raise _Lost from error
                raise

    async def _connect(self) -> Connection:
        async with asyncio.timeout(_CONNECT_SECONDS):
            parameters: dict[str, Any] = {**await self._url.addresses(), **_NO_EXTRAS}
            connection = await aiopg.connect(timeout=_CONNECT_SECONDS, **parameters)
            try:
                await self._set_up(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    async def _set_up(self, connection: Connection) -> None:
        version = connection.raw.server_version
        if version < _OLDEST:
            raise StartupError(f"the {self._url} is version {version // 10000}; 11 or newer is needed")
        async with connection.cursor() as cursor:
            await cursor.execute(_SESSION)
        if version >= _CHECKS_CONNECTIONS:
            try:
                async with connection.cursor() as cursor:
                    await cursor.execute("SET client_connection_check_interval = '500ms'")
            except errors.InvalidParameterValue:
                log.debug("registry: the database server's system cannot watch for clients that went away")

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, _Lost) and error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, BackupError):
            return error.sentence
        if isinstance(error, TimeoutError):
            return "it did not answer in time"
        primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
        return self._url.without_secrets(primary or str(error))

    def _failed(self, name: str, error: BaseException) -> BackupError:
        log.error("registry: %s failed: %s", name, self._reason(error))
        if isinstance(error, errors.DiskFull):
            return StorageFull("write", "the registry", "no room left for the database")
        if isinstance(error, errors.LockNotAvailable):
            return DatabaseUnavailable("the database is busy with another transaction")
        return DatabaseUnavailable("the database does not answer")


class _Running:
    """One try of one transaction on one connection; ``commit_sent`` tells whether it may have happened."""

    def __init__(self, connection: Connection, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        # a task that cleans up after it was cancelled still counts as being cancelled
        self._cancellations = task.cancelling()
        self.commit_sent = False

    async def transact(self, transaction: Transaction[T]) -> T:
        """Run it. A query needs no transaction around it: read committed gives each statement its own view anyway."""
        if transaction.reads_only:
            return await self._drive(transaction.start())
        await self._execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            answer = await self._drive(transaction.start())
        except BackupError:
            await self._execute("ROLLBACK")
            raise
        self.commit_sent = True
        await self._execute("COMMIT")
        return answer

    async def _drive(self, script: Script[T]) -> T:
        try:
            statement = next(script)
            while True:
                sql = Dialect.POSTGRES.translate(statement.sql)
                statement = script.send(await self._execute(sql, statement.values))
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _execute(self, sql: str, values: tuple[str | int | None, ...] = ()) -> Result:
        async with self._connection.cursor(timeout=self._timeout_seconds) as cursor:
            try:
                await cursor.execute(sql, values or None)
            except asyncio.CancelledError:
                # aiopg raises this for statement_timeout too, but then leaves the connection open
                if self._connection.closed or self._task.cancelling() > self._cancellations:
                    raise
                raise TimeoutError from None
            if self._task.cancelling() > self._cancellations:
                # wait_for of Python 3.11 forgets a cancellation that arrives together with the answer
                self._connection.close()
                raise asyncio.CancelledError
            rows = await cursor.fetchall() if cursor.description else []
            return Result(rows, cursor.raw.rowcount)
