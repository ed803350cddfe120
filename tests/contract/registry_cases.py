"""What the registry's contract suite is made of: databases of either kind, a clock to be set, whole uploads.

The fixtures that hand these out are in ``registry_fixtures``.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from tests.servers.postgres import PostgresServer
from tornado_backups.domain.model import Intent, Lease, Removal, Session, Version
from tornado_backups.registry.postgres import PostgresRegistry
from tornado_backups.registry.scripted import ScriptedRegistry
from tornado_backups.registry.sqlite import SqliteRegistry

NOON = datetime(2024, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = NOON
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds


class Database(Protocol):
    """One empty database; registries on it are closed, and it is dropped, when the test ends."""

    def registry(self, owner: str) -> ScriptedRegistry:
        """Make a registry that is not open yet."""

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement beside the registries."""

    def let_pass(self, seconds: float) -> None:
        """Move the clock that judges leases, back when negative."""


class SqliteDatabase:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()

    def registry(self, owner: str, exclusive: bool = False) -> SqliteRegistry:
        return SqliteRegistry(self.path, self.clock, owner, exclusive=exclusive)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def let_pass(self, seconds: float) -> None:
        self.clock.time += timedelta(seconds=seconds)


class PostgresDatabase:
    """A database on the server of this run; its clock cannot be moved, so the leases are."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = server.create_database()
        self.clock = FakeClock()

    def registry(self, owner: str) -> PostgresRegistry:
        return PostgresRegistry(self.url, owner, self.clock)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(self.url.rpartition("/")[2], sql)

    def let_pass(self, seconds: float) -> None:
        self.execute(f"UPDATE leases SET expires_at = expires_at - {round(seconds * 1_000_000)} WHERE owner <> ''")


def intent_for(lease: Lease, number: int, collection: str = "photos") -> Intent:
    """Return an intent as the upload service writes it down."""
    id_ = str(uuid.uuid4())
    filename = f"{collection}-v{number}.gpg"
    return Intent(id_, collection, number, filename, f"{collection}/{id_}/{filename}", lease, NOON)


def version_of(intent: Intent, size_bytes: int = 1000, created_at: datetime = NOON) -> Version:
    """Return the version that an intent becomes."""
    return Version(
        intent.id,
        intent.collection,
        intent.number,
        intent.filename,
        intent.object_key,
        size_bytes,
        hashlib.sha256(intent.id.encode()).hexdigest(),
        "session-1",
        "alice",
        created_at,
        created_at,
    )


async def begin(registry: ScriptedRegistry, collection: str = "photos") -> Intent:
    """Take the lease, and write down the intent of the next version."""
    lease = await registry.acquire_lease(f"collection/{collection}", 30)
    assert lease is not None
    intent = intent_for(lease, await registry.next_number(collection), collection)
    await registry.add_intent(intent)
    return intent


async def store(
    registry: ScriptedRegistry,
    collection: str = "photos",
    size_bytes: int = 1000,
    removals: tuple[Version, ...] = (),
    created_at: datetime = NOON,
) -> Version:
    """Do a whole upload, as far as the registry sees it."""
    intent = await begin(registry, collection)
    version = version_of(intent, size_bytes, created_at)
    await registry.commit_upload(intent, version, [Removal(old.id, old.number, "queue is full") for old in removals])
    return version


def session_of(user: str, token: str, age: timedelta = timedelta(0), **changes: Any) -> Session:
    """Return a session of ``user`` that began ``age`` before noon."""
    began = NOON - age
    id_ = hashlib.sha256(token.encode()).hexdigest()
    return replace(Session(id_, user, "", "login", "192.0.2.7", began, began, began + timedelta(days=365)), **changes)
