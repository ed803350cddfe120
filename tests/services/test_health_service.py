"""Readiness probes, and facts gathered one by one or for all at once: the same answers either way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.services.doubles import COLLECTION, NOW, Source, SteadyClock, Told
from tornado_backups.domain.errors import ConfigurationFault, DatabaseUnavailable, StorageUnavailable
from tornado_backups.domain.model import Collection, Version
from tornado_backups.registry.sqlite import SqliteRegistry
from tornado_backups.services import health as module
from tornado_backups.services.health import Health
from tornado_backups.storage.local import LocalStore


@dataclass
class Room:
    """The health service over a real registry and store."""

    health: Health
    registry: Told
    store: Told
    source: Source
    clock: SteadyClock

    async def put(self, collection: str, number: int, size_bytes: int, damage: str = "") -> None:
        """Register a version."""
        registry = self.registry.inner
        lease = await registry.acquire_lease(f"collection/{collection}", 30)
        key = f"{collection}/{number}"
        version = Version(key, collection, number, key, key, size_bytes, "", "s", "alice", self.clock.now(), NOW)
        await registry.adopt_version(version, lease)
        await registry.release_lease(lease)
        if damage:
            await registry.record_check(version.id, NOW, "", damage)


@pytest.fixture
def room(tmp_path: Path, io_loop: IOLoop) -> Iterator[Room]:
    clock = SteadyClock()
    registry = Told(SqliteRegistry(tmp_path / "registry.sqlite", clock, "owner"))
    store = Told(LocalStore(tmp_path / "objects"))
    io_loop.run_sync(registry.inner.open)
    io_loop.run_sync(store.inner.open)
    source = Source({"files": COLLECTION})
    ports: Any = (registry, store, source)
    yield Room(Health(*ports, clock, 0.2), registry, store, source, clock)
    io_loop.run_sync(store.inner.close)
    io_loop.run_sync(registry.inner.close)


def results(checks: Any) -> dict[str, bool]:
    return {check.name: check.ok for check in checks}


@pytest.mark.gen_test
async def test_everything_that_answers_is_ready(room: Room) -> None:
    checks = await room.health.ready()
    assert results(checks) == {
        "DbValidator": True,
        "StorageAvailabilityValidator": True,
        "ConfigurationProviderValidator": True,
    }


@pytest.mark.gen_test
async def test_each_probe_fails_alone_and_says_why(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Source) -> None:
        raise ConfigurationFault("tree", 0, "the folder is gone", "put it back")

    room.registry.fail["ping"] = DatabaseUnavailable("the database does not answer")
    checks = await room.health.ready()
    assert (checks[0].ok, checks[0].message) == (False, "the database does not answer")
    assert [check.ok for check in checks] == [False, True, True]
    room.registry.fail.clear()
    room.store.fail["probe"] = StorageUnavailable("probe", "", "no room")
    assert [check.ok for check in await room.health.ready()] == [True, False, True]
    room.store.fail.clear()
    monkeypatch.setattr(Source, "ping", broken)
    checks = await room.health.ready()
    assert [check.ok for check in checks] == [True, True, False]
    assert "the folder is gone" in checks[2].message


@pytest.mark.gen_test
async def test_a_probe_that_hangs_is_given_up_after_its_time_and_holds_up_no_other(room: Room) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    room.store.instead["probe"] = hang
    checks = await room.health.ready()
    assert [check.ok for check in checks] == [True, False, True]
    assert checks[1].message == "no answer within 0.2 s"


@pytest.mark.gen_test
async def test_askers_at_one_time_share_one_probe_and_one_who_leaves_does_not_stop_it(room: Room) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        reached.set()
        await go_on.wait()

    room.store.instead["probe"] = slow
    asking = [asyncio.ensure_future(room.health.ready()) for _ in range(5)]
    await reached.wait()
    asking[0].cancel()
    go_on.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(check.ok for answer in answers for check in answer)
    assert room.store.calls.count("probe") == 1
    await room.health.ready()
    assert room.store.calls.count("probe") == 2


@pytest.mark.gen_test
async def test_facts_gathered_one_by_one_and_all_at_once_are_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"c{number}" for number in range(module.FACTS_FROM_BULK)]
    collections = [
        replace(
            COLLECTION, name=name, max_one_version_bytes=100, max_collection_bytes=1000, min_size_ratio=0.5,
            max_age=timedelta(hours=26),
        )
        for name in names
    ]  # fmt: skip
    for count, name in enumerate(names):
        for number in range(1, count + 1):
            room.clock.forward(timedelta(minutes=1))
            await room.put(name, number, 20 * number + count, "it is missing" if number == 5 else "")
    one_by_one = {each.name: (await room.health.overview([each]))[each.name] for each in collections}
    before = len(room.registry.calls)
    assert await room.health.overview(collections) == one_by_one
    assert len(room.registry.calls) - before == 4  # however many collections there are
    assert {overview.healthy for overview in one_by_one.values()} == {True, False}


@pytest.mark.gen_test
async def test_a_collection_that_cannot_be_read_is_left_out_and_the_others_are_not(room: Room) -> None:
    broken = ConfigurationFault("files.yaml", 3, "no filenameTemplate", "add one")
    photos = replace(COLLECTION, name="photos")
    room.source.collections.update({"broken": broken, "photos": photos})
    assert {each.name for each in await room.health.all_collections()} == {"files", "photos"}
    series = await room.health.series()
    assert set(series["collection_versions"]) == {(("collection", "files"),), (("collection", "photos"),)}


@pytest.mark.gen_test
async def test_the_series_of_a_collection_are_what_the_registry_holds(room: Room) -> None:
    limited: Collection = replace(COLLECTION, max_collection_bytes=500)
    room.source.collections["files"] = limited
    label = (("collection", "files"),)
    empty = await room.health.series()
    assert empty["collection_versions"] == {label: 0}
    assert empty["collection_last_success_timestamp_seconds"] == {}
    await room.put("files", 1, 300)
    room.clock.forward(timedelta(hours=1))
    await room.put("files", 2, 400)
    series = await room.health.series()
    assert series["collection_versions"] == {label: 2}
    assert series["collection_used_bytes"] == {label: 700}
    assert series["collection_max_bytes"] == {label: 500}
    assert series["collection_last_size_bytes"] == {label: 400}
    assert series["collection_last_success_timestamp_seconds"] == {label: (NOW + timedelta(hours=1)).timestamp()}
    assert series["collection_healthy"][(("check", "SumOfVersionsValidator"), *label)] == 0
    assert series["collection_healthy"][(("check", "IntegrityValidator"), *label)] == 1


@pytest.mark.gen_test
async def test_many_collections_leave_the_loop_to_others_in_between(room: Room) -> None:
    room.source.collections.update({f"c{n}": replace(COLLECTION, name=f"c{n}") for n in range(400)})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    await asyncio.sleep(0)
    before = turns
    collections = await room.health.all_collections()
    assert turns - before >= 4
    await room.health.overview(collections)
    assert turns - before >= 8
    counting.cancel()
