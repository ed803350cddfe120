"""What a server does while it crashes: uploads, rotation, deletion, an aborted upload, a maintenance pass.

Owns: the state before, the work itself as services do it, and the two states that are right afterwards.
Does not own: which of its steps fails (``steps``), and the judging (``worlds``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.serving import message
from tests.system.crash.worlds import World, new_intent, put_version
from tornado_backups.domain.errors import RequestError
from tornado_backups.domain.model import Actor, Collection, Role, Session, User
from tornado_backups.ports import ObjectStore, Registry
from tornado_backups.services import running_upload
from tornado_backups.services.alerts import Alerts
from tornado_backups.services.catalogue import Catalogue
from tornado_backups.services.health import Health
from tornado_backups.services.maintenance import Maintenance
from tornado_backups.services.metrics import Metrics
from tornado_backups.services.removal import Rotation, remove_expired
from tornado_backups.services.upload import Uploads
from tornado_backups.services.upload_request import UploadLimits, UploadRequest

NAME = "files"
COLLECTION = Collection(NAME, "files-${version}.gpg", max_backups_count=3)
NOW = datetime.now(UTC)
ACTOR = Actor(
    User("alice", roles=frozenset({Role.SYSTEM_ADMIN})),
    Session("session", "alice", "", "", "127.0.0.1", NOW, NOW, NOW + timedelta(days=1)),
)
Acknowledge = Callable[[str], None]


class OneCollection:
    """A configuration of one collection."""

    async def collection(self, name: str) -> Collection | None:
        return COLLECTION if name == NAME else None

    async def collection_names(self) -> list[str]:
        return [NAME]


class PurgesSessions:
    """As much of the session service as a maintenance pass uses."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def purge(self, now: datetime) -> int:
        return await self._registry.purge_sessions(now)


class Silent:
    """An audit trail and a client that stay."""

    def record(self, *given: object, **named: object) -> None:
        return

    def still_there(self) -> bool:
        return True

    async def still_allowed(self) -> bool:
        return True


def maintenance_of(world: World, registry: Registry, store: ObjectStore) -> tuple[Maintenance, Metrics]:
    """Wire the maintenance pass as ``app`` does; everything is due for a scrub after an hour."""
    source: Any = OneCollection()
    metrics = Metrics()
    health = Health(registry, store, source, world.clock, 5.0)
    sessions: Any = PurgesSessions(registry)
    client: Any = Silent()
    alerts = Alerts(registry, client, world.clock, "", "")
    return Maintenance(registry, store, health, sessions, alerts, metrics, world.clock, 60.0, 3600.0, 30.0), metrics


def uploads_of(world: World, registry: Registry, store: ObjectStore) -> Uploads:
    """Wire the upload service as ``app`` does."""
    source: Any = OneCollection()
    limits = UploadLimits(8, 30.0)
    return Uploads(registry, store, Catalogue(source), world.clock, limits)


async def _upload(world: World, registry: Registry, store: ObjectStore, acknowledge: Acknowledge, data: bytes) -> None:
    running_upload.COMMIT_RETRY_SECONDS = 0.0
    audit: Any = Silent()
    uploads = uploads_of(world, registry, store)
    rotation = Rotation(registry, store, audit)
    uploads.listeners.append(rotation)
    running = None
    try:
        running = await uploads.begin(UploadRequest(ACTOR, NAME, len(data)), Silent())
        for start in range(0, len(data), 3 * 1024 * 1024):
            await running.write(data[start : start + 3 * 1024 * 1024])
        acknowledge((await running.commit()).id)
    except RequestError:
        if running is not None:
            await running.abort()
    finally:
        await rotation.close()


def small_data(world: World) -> bytes:
    """Return an upload of one PUT."""
    return message(1000, b"new")


def large_data(world: World) -> bytes:
    """Return an upload of several parts, or of several writes to a file."""
    return message(world.place.visible_bytes + 100_000, b"large")


async def _upload_small(world: World, registry: Any, store: Any, acknowledge: Acknowledge) -> None:
    await _upload(world, registry, store, acknowledge, small_data(world))


async def _upload_large(world: World, registry: Any, store: Any, acknowledge: Acknowledge) -> None:
    await _upload(world, registry, store, acknowledge, large_data(world))


async def _aborted_upload(world: World, registry: Any, store: Any, acknowledge: Acknowledge) -> None:
    uploads = uploads_of(world, registry, store)
    data = large_data(world)
    running = None
    try:
        running = await uploads.begin(UploadRequest(ACTOR, NAME, len(data)), Silent())
        await running.write(data[:-1000])
    except RequestError:
        if running is None:
            return
    await running.abort()
    await running.abort()


async def _delete(world: World, registry: Any, store: Any, acknowledge: Acknowledge) -> None:
    try:
        version = await registry.version(NAME, 2)
        assert await registry.expire_version(version, "deleted by alice", world.clock.now())
        await remove_expired(registry, store, [(version, "deleted by alice")])
        acknowledge(version.id)
    except RequestError:
        return


async def _maintain(world: World, registry: Any, store: Any, acknowledge: Acknowledge) -> None:
    maintenance, _ = maintenance_of(world, registry, store)
    await maintenance.run_pass()


async def _versions(count: int, world: World, registry: Registry, store: ObjectStore) -> None:
    for _ in range(count):
        await put_version(world, registry, store, NAME)


async def _debris(world: World, registry: Registry, store: ObjectStore) -> None:
    """Leave what kills can leave: intents of three kinds, expired versions with and without their object."""
    await _versions(5, world, registry, store)
    for number, written, complete in ((6, 0, False), (6, 1000, True), (6, world.place.visible_bytes, False)):
        lease = await registry.acquire_lease(f"collection/{NAME}", 30)
        assert lease is not None
        intent = new_intent(NAME, number, lease)
        await registry.add_intent(intent)
        sink = await store.begin(intent.object_key)
        before = len(world.place.left())
        if written:
            await sink.write(bytes(written))
        if complete:
            await sink.complete()
        while written and len(await asyncio.to_thread(world.place.left)) == before:
            await asyncio.sleep(0.001)
        await registry.release_lease(lease)
    for number in (1, 3):
        version = await registry.version(NAME, number)
        assert version is not None
        assert await registry.expire_version(version, "rotated", world.clock.now())
        if number == 3:
            await store.delete(version.object_key)


@dataclass(frozen=True)
class Scenario:
    """A piece of work: the live numbers ``before`` and ``after``, and nothing in between."""

    name: str
    prepare: Callable[[World, Registry, ObjectStore], Awaitable[None]]
    act: Callable[[World, Any, Any, Acknowledge], Awaitable[None]]
    before: frozenset[int]
    after: frozenset[int]
    data: Callable[[World], bytes] | None = None


def _with(count: int) -> Callable[[World, Registry, ObjectStore], Awaitable[None]]:
    return lambda world, registry, store: _versions(count, world, registry, store)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first upload", _with(0), _upload_small, frozenset(), frozenset({1}), small_data),
        Scenario("large upload", _with(1), _upload_large, frozenset({1}), frozenset({1, 2}), large_data),
        Scenario("rotation", _with(3), _upload_small, frozenset({1, 2, 3}), frozenset({2, 3, 4}), small_data),
        Scenario("aborted upload", _with(1), _aborted_upload, frozenset({1}), frozenset({1})),
        Scenario("delete", _with(3), _delete, frozenset({1, 2, 3}), frozenset({1, 3})),
        Scenario("maintenance", _debris, _maintain, frozenset({2, 4, 5}), frozenset({2, 4, 5})),
    )
}
