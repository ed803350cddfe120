"""Room for the database on a full disk, so that deleting, which makes room, still works there.

Owns: a reserve in the write-ahead log and in the file itself, taken at start, and falling back on it.
Does not own: transactions (``sqlite_driver``). Explained in docs/robustness.md, "A full disk".

A commit appends to the log; with the log as long as it ever has to be, starting it again from its beginning needs no
new block of the disk (on file systems that overwrite in place: ext4, XFS, tmpfs). Its pages go back into the file when
it is started again, and pages that are free in there keep the file from growing.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3

log = logging.getLogger(__name__)

RESERVE_BYTES = 256 * 1024


def reserve(connection: sqlite3.Connection) -> None:
    """Make the log at least :data:`RESERVE_BYTES` long, and leave as much free inside the file.

    Only for the one server of a file. On a disk that is full already there is no reserve, which is logged.
    """
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS reserve (filler BLOB)")
        connection.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE_BYTES,))
        connection.execute("DROP TABLE reserve")
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        connection.execute("PRAGMA shrink_memory")
    except sqlite3.Error as error:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one that tells
                connection.execute("ROLLBACK")
        log.warning("registry: no room could be reserved for deleting on a full disk: %s", error)


def is_full(error: BaseException) -> bool:
    """Tell whether a statement failed for want of room."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF == sqlite3.SQLITE_FULL


def use_reserve(connection: sqlite3.Connection) -> bool:
    """Start the log again from its beginning; returns whether the transaction may be tried once more."""
    try:
        blocked, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error:
        return False
    return not blocked
