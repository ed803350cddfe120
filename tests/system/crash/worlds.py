"""Where a crash is tried: a registry and a store that outlive their process, and what must hold in them.

Owns: starting over after a crash, and the promises of section 4 of the contract as assertions.
Does not own: the crash (``steps``), what was done before it (``scenarios``).
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.contract.store_places import LocalPlace, S3Place
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import client
from tests.serving import ShiftedClock, message
from tornado_backups.domain.model import Intent, Lease, Version
from tornado_backups.ports import ObjectStore, Registry
from tornado_backups.registry.postgres import PostgresRegistry
from tornado_backups.registry.sqlite import SqliteRegistry


class Base(Protocol):
    """A database that outlives the processes using it."""

    def registry(self, clock: ShiftedClock) -> Registry:
        """Return a new process's registry, not open yet."""

    def end_leases(self) -> None:
        """Let the lease time pass."""

    def rows(self, table: str) -> int:
        """Count rows, seen without the program."""


@dataclass(frozen=True)
class SqliteBase:
    """A file; opening it exclusively proves that every other process is dead, and so ends all leases."""

    path: Path

    def registry(self, clock: ShiftedClock) -> Registry:
        return SqliteRegistry(self.path, clock, uuid.uuid4().hex, exclusive=True)

    def end_leases(self) -> None:
        return

    def rows(self, table: str) -> int:
        connection = sqlite3.connect(self.path)
        try:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        finally:
            connection.close()


@dataclass(frozen=True)
class PostgresBase:
    """A database whose clock cannot be moved: the ends of leases are moved instead."""

    server: PostgresServer
    url: str

    def registry(self, clock: ShiftedClock) -> Registry:
        return PostgresRegistry(self.url, uuid.uuid4().hex, clock)

    def end_leases(self) -> None:
        self.execute("UPDATE leases SET expires_at = expires_at - 1000000000 WHERE owner <> ''")

    def empty(self) -> None:
        """Remove every row, far faster than making a new database."""
        tables = ("collections", "versions", "leases", "intents", "sessions", "health_states", "alerts")
        self.execute("; ".join(f"DELETE FROM {table}" for table in tables))

    def rows(self, table: str) -> int:
        return int(str(self.execute(f"SELECT count(*) FROM {table}")[0][0]))

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(self.url.rpartition("/")[2], sql)


Place = LocalPlace | S3Place


@dataclass
class World:
    """One database and one place, and the outside ledger: what was acknowledged, by version id."""

    base: Base
    place: Place
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    ledger: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def process(self) -> AsyncIterator[tuple[Registry, ObjectStore]]:
        """Be one process: a registry and a store of one's own, open."""
        async with opened(new_store(self.place)) as store, opened(self.base.registry(self.clock)) as registry:
            yield registry, store

    @asynccontextmanager
    async def bystander(self, store: ObjectStore | None) -> AsyncIterator[tuple[Registry, ObjectStore]]:
        """Be a process before or after the crash; it may use a store that is open already, if there is one."""
        if store is None:
            async with self.process() as ports:
                yield ports
            return
        async with opened(self.base.registry(self.clock)) as registry:
            yield registry, store

    def objects(self) -> list[str]:
        """Return all that lies in the storage except empty folders of collections: objects and debris alike."""
        return [name for name in self.place.left() if not name.endswith("/")]

    def folders(self) -> list[str]:
        """Return the folders of versions."""
        return [name for name in self.place.left() if name.endswith("/")]


def new_store(place: Place) -> ObjectStore:
    """Return a store that does not wait long between its attempts."""
    return place.store(first_pause_seconds=0.0) if isinstance(place, S3Place) else place.store()


Port = TypeVar("Port", Registry, ObjectStore)


@asynccontextmanager
async def opened(port: Port) -> AsyncIterator[Port]:
    """Open for as long as the block runs."""
    await port.open()
    try:
        yield port
    finally:
        await port.close()


async def check_downloads(world: World, registry: Registry, store: ObjectStore, collection: str) -> set[int]:
    """Assert that every version that lists can be downloaded bit for bit; return their numbers."""
    live = await registry.versions(collection)
    for version in live:
        read = b"".join([bytes(data) async for data in store.read(version.object_key, 0, version.size_bytes)])
        assert hashlib.sha256(read).hexdigest() == version.sha256, f"version {version.number} is damaged"
        if version.id in world.ledger:
            assert read == world.ledger[version.id]
    return {version.number for version in live}


async def check_nothing_is_left(world: World, registry: Registry, collection: str) -> None:
    """Assert that there is nothing but live versions: no object, file, upload, intent, row or lease besides."""
    keys = sorted(version.object_key for version in await registry.versions(collection))
    assert world.objects() == keys
    assert len(world.folders()) in (0, len(keys))  # none in a bucket, one a version in a local folder
    assert world.base.rows("intents") == 0
    assert world.base.rows("versions") == len(keys)
    for name in ("maintenance", f"collection/{collection}"):
        lease = await registry.acquire_lease(name, 30)
        assert lease is not None, f"the lease {name} is still held"
        await registry.release_lease(lease)


async def put_version(
    world: World, registry: Registry, store: ObjectStore, collection: str, data: bytes | None = None
) -> Version:
    """Store and register a version by the ports alone, as something acknowledged long ago."""
    lease = await registry.acquire_lease(f"collection/{collection}", 30)
    assert lease is not None
    number = await registry.next_number(collection)
    data = data if data is not None else message(100 + number, bytes([64 + number]))
    intent = new_intent(collection, number, lease)
    await registry.add_intent(intent)
    sink = await store.begin(intent.object_key, len(data))
    await sink.write(data)
    await sink.complete()
    now = world.clock.now() - timedelta(days=1)
    version = Version(
        id=intent.id,
        collection=collection,
        number=number,
        filename=intent.filename,
        object_key=intent.object_key,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        session_id="session",
        uploader="alice",
        created_at=now,
        updated_at=now,
        checked_at=now,
    )
    await registry.commit_upload(intent, version, ())
    world.ledger[version.id] = data
    return version


def new_intent(collection: str, number: int, lease: Lease) -> Intent:
    """Return an intent as the upload service would write it down."""
    id_ = str(uuid.uuid4())
    filename = f"{collection}-{number}.gpg"
    return Intent(id_, collection, number, filename, f"{collection}/{id_}/{filename}", lease, datetime.now(UTC))


@contextmanager
def emptied(place: Place) -> Iterator[Place]:
    """Give a place, and take everything out of a bucket again."""
    yield place
    if isinstance(place, S3Place):
        keys = [{"Key": place.prefix + name} for name in place.left() if not name.startswith("upload:")]
        client(place.server).delete_objects(Bucket=place.server.bucket, Delete={"Objects": keys or [{"Key": "none"}]})
