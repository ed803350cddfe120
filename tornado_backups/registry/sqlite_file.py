"""The database file: who may use it, how it comes into being, what is wrong with it.

Owns: the lock file, atomic creation, and the refusal of a damaged, empty or foreign file (never replaced).
Does not own: transactions (``sqlite_driver``). Explained in docs/database.md.

``PATH.lock`` is locked (``flock``) by the one server, and by whoever creates the file. A new database is built as
``PATH.new`` and renamed when it is complete, so that an empty ``PATH`` always means that something was lost.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from urllib.parse import quote

from tornado_backups.domain.errors import StartupError

BUSY_SECONDS = 5.0
_CREATION_SECONDS = 10.0
_QUICK_CHECK_BYTES = 32 * 1024 * 1024


def damaged(path: str, cause: str) -> StartupError:
    """Return the error that tells what to do about a damaged file."""
    return StartupError(
        f"the database {path} is damaged: {cause}; restore it from a backup, "
        "or move it away and run `tornado-backups recover`"
    )


def unusable(path: str, cause: str) -> StartupError:
    """Return the error for a file that cannot be reached or written."""
    return StartupError(f"the database {path} cannot be used: {cause}")


class FileLock:
    """An advisory lock that the kernel gives back when the process dies; the file itself stays."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock without waiting; False when another process (or instance) has it. Raises ``OSError``."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def give_back(self) -> None:
        """Release; no effect when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class DatabaseFile:
    """The file ``path``; ``prepare`` fills a new one (creates the tables) before anybody can see it."""

    def __init__(self, path: str, exclusive: bool, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._exclusive = exclusive
        self._prepare = prepare
        self._lock = FileLock(path + ".lock")
        self._identity: tuple[int, int] | None = None

    def open(self) -> sqlite3.Connection:
        """Lock, create where missing, connect and look for damage; raises ``StartupError``. Blocks."""
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            if self._exclusive and not self._lock.take():
                raise unusable(
                    self._path, "another server has it open; stop that one, or use PostgreSQL for several servers"
                )
            if not os.path.exists(self._path):
                self._create_once()
            connection = connect(self._path)
            try:
                self._examine(connection)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            self.close()
            raise unusable(self._path, error.strerror or str(error)) from error
        except sqlite3.Error as error:
            self.close()
            raise refused(self._path, error) from error
        except BaseException:
            self.close()
            raise
        return connection

    def close(self) -> None:
        """Give the lock back."""
        self._lock.give_back()

    def is_still_there(self) -> bool:
        """Return whether ``path`` is the file that was opened: what goes into a deleted file is lost."""
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _create_once(self) -> None:
        if self._exclusive:
            self._create()
            return
        deadline = time.monotonic() + _CREATION_SECONDS
        while not os.path.exists(self._path):
            if self._lock.take():
                try:
                    if not os.path.exists(self._path):
                        self._create()
                finally:
                    self._lock.give_back()
            elif time.monotonic() > deadline:
                raise unusable(self._path, "it does not exist, and a server that is starting holds its lock")
            else:
                time.sleep(0.02)

    def _create(self) -> None:
        if os.path.exists(self._path + "-wal"):
            raise damaged(self._path, "it is missing, but the log of its latest changes (-wal) is still there")
        new = self._path + ".new"
        for leftover in (new, new + "-journal"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = connect(new)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            self._prepare(connection)
        finally:
            connection.close()
        os.replace(new, self._path)
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _examine(self, connection: sqlite3.Connection) -> None:
        status = os.stat(self._path)
        if status.st_size == 0:
            raise damaged(self._path, "it is empty")
        self._identity = (status.st_dev, status.st_ino)
        # Asked before anything that writes: somebody else's file stays as it is.
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").fetchone():
            raise unusable(self._path, "it is a SQLite database, but not one of this program")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise unusable(self._path, "its file system cannot share memory between processes; use a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        if status.st_size <= _QUICK_CHECK_BYTES:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise damaged(self._path, found.replace("\n", " "))


def connect(path: str) -> sqlite3.Connection:
    """Open an existing file, transactions by hand; raises ``sqlite3.Error``."""
    return sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def refused(path: str, error: sqlite3.Error) -> StartupError:
    """Return the one line for an error met while opening."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    return unusable(path, str(error))
