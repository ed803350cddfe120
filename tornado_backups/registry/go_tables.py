"""The Go server's PostgreSQL tables, read only.

Owns: the columns (absent ones read as empty), pages of bounded size, the one line when something fails.
Does not own: what becomes of the rows (``domain/go_server``, ``services/takeover``). Explained in docs/migrate.md.

The module imports aiopg: import it only when it is asked for. It reads page after page without one long transaction,
so that it holds up nothing in a server that still runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiopg
import psycopg2

from tornado_backups.domain.errors import StartupError, UsageError
from tornado_backups.domain.go_server import GoCollection, GoSession, GoVersion
from tornado_backups.registry.postgres_url import DatabaseUrl

PAGE_ROWS = 500
_CONNECT_SECONDS = 10.0
_STATEMENT_SECONDS = 300.0
_NO_EXTRAS = {"enable_json": False, "enable_hstore": False, "enable_uuid": False}

_VERSIONS = "uploaded_versions"
_SESSIONS = "granted_accesses"
_SESSION_SETTINGS = "SET default_transaction_read_only = on; SET statement_timeout = 0; SET TimeZone = 'UTC'"

_VERSION_COLUMNS = (
    ("id", "text"),
    ("collection_id", "text"),
    ("version_number", "bigint"),
    ("filename", "text"),
    ("filesize", "bigint"),
    ("uploaded_by_session_id", "text"),
    ("uploader", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
)
_SESSION_COLUMNS = (
    ("id", "text"),
    ("user", "text"),
    ("access_key_name", "text"),
    ("description", "text"),
    ("requester_ip", "text"),
    ("expires_at", "timestamptz"),
    ("deactivated", "boolean"),
    ("deleted_at", "timestamptz"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
)
_EMPTY = {"text": "''", "bigint": "0", "boolean": "false", "timestamptz": "NULL"}


class GoTables:
    """The tables in the database that ``url`` names; raises ``UsageError`` for a URL that libpq does not understand."""

    def __init__(self, url: str) -> None:
        try:
            self._url = DatabaseUrl(url)
        except UsageError as error:
            raise UsageError(f"--from-db-url: {error.sentence}") from None
        self._connection: Any = None
        self._columns: dict[str, frozenset[str]] = {}

    async def open(self) -> None:
        """Connect and look which tables there are; raises ``StartupError`` when none is the Go server's."""
        try:
            parameters: dict[str, Any] = {**await self._url.addresses(), **_NO_EXTRAS}
            self._connection = await aiopg.connect(timeout=_CONNECT_SECONDS, **parameters)
        except (psycopg2.Error, OSError) as error:
            raise self._failed(error) from None
        try:
            await self._query(_SESSION_SETTINGS)
            await self._look_at_tables()
        except BaseException:
            await self.close()
            raise

    async def _look_at_tables(self) -> None:
        for table, needed in ((_VERSIONS, {"id", "collection_id", "version_number", "filename"}), (_SESSIONS, {"id"})):
            self._columns[table] = await self._columns_of(table)
            missing = sorted(needed - self._columns[table])
            if self._columns[table] and missing:
                raise StartupError(f"the table {table} in the {self._url} has no column {missing[0]}")
        if not self._columns[_VERSIONS]:
            raise StartupError(f"the {self._url} is not a Go server's: it has no table {_VERSIONS}")

    async def close(self) -> None:
        """Disconnect; may be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def collections(self) -> AsyncIterator[GoCollection]:
        """See ``GoDatabase``."""
        deleted = "deleted_at IS NOT NULL" if "deleted_at" in self._columns[_VERSIONS] else "false"
        name = _expression("collection_id", "text")
        sql = (
            f"SELECT {name}, COALESCE(MAX(version_number), 0), COUNT(*) FILTER (WHERE {deleted}) FROM {_VERSIONS}"
            f" WHERE %s IS NULL OR {name} > %s GROUP BY 1 ORDER BY 1 LIMIT {PAGE_ROWS}"
        )
        last: str | None = None
        while page := await self._query(sql, (last, last)):
            for row in page:
                yield GoCollection(*row)
            last = page[-1][0]

    async def versions(self, collection: str) -> list[GoVersion]:
        """See ``GoDatabase``."""
        live = "deleted_at IS NULL" if "deleted_at" in self._columns[_VERSIONS] else "true"
        condition = f"{live} AND {_expression('collection_id', 'text')} = %s"
        return [GoVersion(*row) async for row in self._rows(_VERSIONS, _VERSION_COLUMNS, condition, (collection,))]

    async def sessions(self) -> AsyncIterator[GoSession]:
        """See ``GoDatabase``; none when the table does not exist."""
        if not self._columns[_SESSIONS]:
            return
        async for row in self._rows(_SESSIONS, _SESSION_COLUMNS, "true", ()):
            fields = [*row[:7], row[7] is not None, *row[8:]]
            yield GoSession(*fields)

    async def _rows(
        self, table: str, columns: tuple[tuple[str, str], ...], condition: str, values: tuple[str, ...]
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Yield rows in the order of their id, the first of ``columns``."""
        present = self._columns[table]
        chosen = ", ".join(_expression(name, kind) if name in present else _absent(kind) for name, kind in columns)
        key = _expression("id", "text")
        sql = (
            f"SELECT {chosen} FROM {table} WHERE {condition} AND (%s IS NULL OR {key} > %s)"
            f" ORDER BY {key} LIMIT {PAGE_ROWS}"
        )
        last: str | None = None
        while page := await self._query(sql, (*values, last, last)):
            for row in page:
                yield row
            last = page[-1][0]

    async def _columns_of(self, table: str) -> frozenset[str]:
        rows = await self._query(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (table,),
        )
        return frozenset(row[0] for row in rows)

    async def _query(self, sql: str, values: tuple[str | None, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            async with self._connection.cursor(timeout=_STATEMENT_SECONDS) as cursor:
                await cursor.execute(sql, values or None)
                return await cursor.fetchall() if cursor.description else []
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # aiopg's way to say that the database server ended the statement
            raise StartupError(f"the {self._url} cannot be read: the statement was cancelled there") from None
        except (psycopg2.Error, OSError, ValueError, OverflowError) as error:
            raise self._failed(error) from None

    def _failed(self, error: BaseException) -> StartupError:
        if isinstance(error, TimeoutError):
            return StartupError(f"the {self._url} cannot be read: it did not answer in time")
        primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
        return StartupError(f"the {self._url} cannot be read: {self._url.without_secrets(primary or str(error))}")


def _expression(column: str, kind: str) -> str:
    quoted = f'"{column}"'  # "user" is a reserved word
    cast = f"CAST({quoted} AS {kind})"
    return cast if kind == "timestamptz" else f"COALESCE({cast}, {_EMPTY[kind]})"


def _absent(kind: str) -> str:
    return f"CAST({_EMPTY[kind]} AS {kind})"
