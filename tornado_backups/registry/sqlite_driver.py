"""Runs transactions on SQLite: one connection, one thread, one hop per transaction.

Owns: begin, commit and rollback, what SQLite's errors mean to the program.
Does not own: the thread (``workers``), the file (``sqlite_file``), the scripts (``transactions_*``). Explained in
docs/database.md.

Cancelling: a transaction that has not begun does not happen; one that has is finished, whoever still waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from typing import TypeVar

from tornado_backups.domain.errors import BackupError, DatabaseUnavailable, StartupError, StorageFull
from tornado_backups.ports import Clock
from tornado_backups.registry import sqlite_room
from tornado_backups.registry.dialect import Dialect
from tornado_backups.registry.rows import microseconds
from tornado_backups.registry.schema import migrate
from tornado_backups.registry.script import Result, Script, Transaction
from tornado_backups.registry.sqlite_file import DatabaseFile, refused
from tornado_backups.registry.transactions_uploads import release_all_leases
from tornado_backups.workers import Workers

T = TypeVar("T")
log = logging.getLogger(__name__)

_OLDEST = (3, 24, 0)


class SqliteDriver:
    """Runs transactions on the file ``path``."""

    def __init__(self, path: str, clock: Clock, exclusive: bool) -> None:
        self._path = path
        self._clock = clock
        self._exclusive = exclusive
        self._file = DatabaseFile(path, exclusive, self._migrate)
        self._worker: Workers | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See ``Driver``."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StartupError(f"SQLite {sqlite3.sqlite_version} is too old; 3.24 or newer is needed")
        await self.close()
        self._worker = Workers("registry", 1)
        try:
            await self._worker.submit(self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See ``Driver``; what was asked for before is finished first."""
        worker, self._worker = self._worker, None
        if worker is not None:
            closing = worker.submit(self._close)
            worker.stop()
            await asyncio.shield(closing)

    async def run(self, transaction: Transaction[T]) -> T:
        """See ``Driver``."""
        if self._worker is None:
            raise DatabaseUnavailable("the database is closed")
        return await self._worker.submit(lambda: self._run(transaction))

    # -- in the worker thread ----------------------------------------------------------------------------------------

    def _open(self) -> None:
        connection = self._file.open()
        try:
            self._migrate(connection)
            if self._exclusive:
                sqlite_room.reserve(connection)
                self._transact(connection, release_all_leases())
        except sqlite3.Error as error:
            connection.close()
            self._file.close()
            raise refused(self._path, error) from error
        except BaseException:
            connection.close()
            self._file.close()
            raise
        self._connection = connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.create_function("now_us", 0, lambda: microseconds(self._clock.now()))
        self._transact(connection, migrate(f"the database {self._path}"))

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # what is in the log file is as durable as what is not
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            connection.close()
        self._file.close()

    def _run(self, transaction: Transaction[T]) -> T:
        if self._connection is None:
            raise DatabaseUnavailable("the database is closed")
        if not transaction.reads_only and not self._file.is_still_there():
            log.error("registry: the database %s was moved, deleted or replaced; restart the server", self._path)
            raise DatabaseUnavailable("the database file was moved, deleted or replaced while the server was running")
        connection = self._connection
        try:
            try:
                return self._transact(connection, transaction)
            except sqlite3.Error as error:
                if not sqlite_room.is_full(error) or not sqlite_room.use_reserve(connection):
                    raise
            return self._transact(connection, transaction)
        except sqlite3.Error as error:
            raise self._failed(transaction.name, error) from error

    def _transact(self, connection: sqlite3.Connection, transaction: Transaction[T]) -> T:
        # Set before each, and not back after: one that has to be durable never begins on what another one left. What
        # need not be reaches the disk with the next one; who starts after a power cut frees all leases anyway.
        durable = transaction.durable or not self._exclusive
        if not transaction.reads_only:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN" if transaction.reads_only else "BEGIN IMMEDIATE")
        try:
            answer = _drive(connection, transaction.start())
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one that tells
                    connection.execute("ROLLBACK")
            raise
        return answer

    def _failed(self, name: str, error: sqlite3.Error) -> BackupError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        log.error("registry: %s failed: %s (%s)", name, error, getattr(error, "sqlite_errorname", "no code"))
        if code == sqlite3.SQLITE_FULL:
            return StorageFull("write", "the registry", "no room left for the database")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return DatabaseUnavailable("the database is in use by another program")
        return DatabaseUnavailable("the database cannot be read or written at the moment")


def _drive(connection: sqlite3.Connection, script: Script[T]) -> T:
    try:
        statement = next(script)
        while True:
            cursor = connection.execute(Dialect.SQLITE.translate(statement.sql), statement.values)
            statement = script.send(Result(cursor.fetchall(), cursor.rowcount))
    except StopIteration as end:
        answer: T = end.value
        return answer
