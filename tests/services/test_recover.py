"""Objects that a lost or rolled-back registry does not know find their way back into it."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.registry_cases import Database, FakeClock, begin, store
from tests.services.adoption_cases import Heard, Source, contents, put
from tornado_backups.domain.errors import DatabaseUnavailable
from tornado_backups.domain.model import Lease, Version
from tornado_backups.ports import Registry
from tornado_backups.registry.scripted import ScriptedRegistry
from tornado_backups.services import recover as recover_service
from tornado_backups.services.adoption import collection_held
from tornado_backups.services.recover import Recovery
from tornado_backups.storage.local import LocalStore

pytest_plugins = ["tests.contract.registry_fixtures"]

DAY = datetime(2024, 1, 1, tzinfo=UTC)
IDS = [str(uuid.UUID(int=number)) for number in range(20)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def objects(root: Path, io_loop: IOLoop) -> Iterator[LocalStore]:
    local = LocalStore(root)
    io_loop.run_sync(local.open)
    yield local
    io_loop.run_sync(local.close)


def place(root: Path, collection: str, id_: str, filename: str, age_days: int = 0) -> str:
    key = f"{collection}/{id_}/{filename}" if id_ else f"{collection}/{filename}"
    put(root, key, key.encode() * 3, DAY - timedelta(days=age_days))
    return key


async def recover(
    registry: Registry,
    objects: LocalStore,
    source: Source | None = None,
    dry_run: bool = False,
    only: str | None = None,
) -> Heard:
    heard = Heard()
    run = Recovery(registry, objects, source or Source(db="db-${version}.gpg"), FakeClock(), 30, heard, dry_run)  # type: ignore[arg-type]
    await run.run(only)
    return heard


@pytest.mark.gen_test
async def test_a_lost_registry_is_filled_again_with_sizes_hashes_and_times(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    for number in (1, 2, 10):
        place(root, "db", IDS[number], f"db-{number}.gpg", 20 - number)
    heard = await recover(registry, objects)
    assert heard.lines == [f"took db/{IDS[n]}/db-{n}.gpg as version {n} of db" for n in (1, 2, 10)]
    key = f"db/{IDS[2]}/db-2.gpg"
    body = (root / key).read_bytes()
    assert heard.read_bytes == heard.expected_bytes == sum(map(len, contents(root).values()))
    made = DAY - timedelta(days=18)
    sha256 = hashlib.sha256(body).hexdigest()
    now = FakeClock().now()
    assert await registry.version("db", 2) == Version(
        IDS[2], "db", 2, "db-2.gpg", key, len(body), sha256, "", "", made, made, checked_at=now
    )
    assert await registry.next_number("db") == 11


@pytest.mark.gen_test
async def test_recovering_again_changes_nothing_and_says_nothing(
    registry: Registry, objects: LocalStore, root: Path, database: Database
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "db", IDS[2], "db-1.gpg", 4)
    before = contents(root)
    await recover(registry, objects)
    versions, counter = await registry.versions("db"), await registry.next_number("db")
    leases = database.execute("SELECT name, fencing FROM leases")
    assert await recover(registry, objects) == Heard()
    assert await registry.versions("db") == versions
    assert await registry.next_number("db") == counter == 3
    assert database.execute("SELECT name, fencing FROM leases") == leases
    assert contents(root) == before


@pytest.mark.gen_test
async def test_a_dry_run_says_the_same_and_changes_nothing(
    registry: Registry, objects: LocalStore, root: Path, database: Database
) -> None:
    place(root, "db", IDS[1], "db-3.gpg")
    place(root, "db", IDS[2], "db-3.gpg", 4)
    place(root, "db", IDS[3], "notes.gpg")
    place(root, "photos", "", "holiday-1.jpg")
    place(root, "other", IDS[4], "other-v7.gpg")
    heard = await recover(registry, objects, dry_run=True)
    assert await registry.usages() == {}
    assert database.execute("SELECT * FROM collections") == database.execute("SELECT * FROM leases") == []
    assert heard.read_bytes == 0
    assert heard == await recover(registry, objects)
    assert len(await registry.versions("db")) == 2


@pytest.mark.gen_test
async def test_after_a_rollback_only_what_is_unknown_is_added(
    registry: ScriptedRegistry, objects: LocalStore, root: Path
) -> None:
    known = await store(registry, "db")
    put(root, known.object_key, b"x", DAY)
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "db", IDS[2], "db-2.gpg")
    heard = await recover(registry, objects)
    assert heard.lines == [
        f"took db/{IDS[1]}/db-1.gpg as version 3 of db: number 1 is taken",
        f"took db/{IDS[2]}/db-2.gpg as version 2 of db",
    ]
    assert await registry.version("db", 1) == known


@pytest.mark.gen_test
async def test_numbers_of_versions_that_wait_for_their_removal_are_taken_too(
    registry: ScriptedRegistry, objects: LocalStore, root: Path
) -> None:
    expired = await store(registry, "db")
    await registry.expire_version(expired, "queue is full", DAY)
    await registry.expire_version(await store(registry, "other"), "queue is full", DAY)
    place(root, "db", IDS[1], "db-1.gpg")
    assert (await recover(registry, objects)).lines == [
        f"took db/{IDS[1]}/db-1.gpg as version 2 of db: number 1 is taken"
    ]


@pytest.mark.gen_test
async def test_objects_of_the_go_server_come_back_where_their_collection_is_configured(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    place(root, "db", "", "db-4.gpg")
    place(root, "db", "", "readme.txt")
    place(root, "photos", "", "holiday-1.jpg")
    place(root, "photos", IDS[1], "photos-2.gpg")
    heard = await recover(registry, objects)
    assert heard.lines == [
        "took db/db-4.gpg as version 4 of db",
        "left db/readme.txt: its name does not fit the collection's filenameTemplate 'db-${version}.gpg'",
        f"took photos/{IDS[1]}/photos-2.gpg as version 2 of photos",
        "left 1 objects that belong to no collection's layout: photos/holiday-1.jpg",
    ]
    assert await recover(registry, objects) == Heard([heard.lines[1], heard.lines[3]])


@pytest.mark.gen_test
async def test_strangers_are_counted_and_some_of_them_named(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    for number in range(12):
        put(root, f"stray-{number}", b"", DAY)
    (line,) = (await recover(registry, objects)).lines
    assert line.startswith("left 12 objects that belong to no collection's layout: stray-")
    assert line.endswith(", …")
    assert line.count("stray-") == 10


@pytest.mark.gen_test
async def test_a_storage_of_many_objects_is_looked_through_in_batches(
    registry: Registry, objects: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover_service, "KEYS_AT_A_TIME", 3)
    for number in range(1, 8):
        place(root, f"c{number}", IDS[number], "c-1.gpg")
    await recover(registry, objects)
    assert len(await registry.usages()) == 7


@pytest.mark.gen_test
async def test_only_the_named_collection_is_recovered(registry: Registry, objects: LocalStore, root: Path) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "db2", IDS[2], "db-1.gpg")
    await recover(registry, objects, only="db")
    assert set(await registry.usages()) == {"db"}


@pytest.mark.gen_test
async def test_a_collection_with_a_running_upload_is_skipped_and_named(
    registry: ScriptedRegistry, other: ScriptedRegistry, objects: LocalStore, root: Path
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "photos", IDS[2], "photos-1.gpg")
    intent = await begin(other, "db")
    put(root, intent.object_key, b"half", DAY)
    heard = await recover(registry, objects)
    assert heard.failures == ["collection db: an upload to it is running; run this again when it has ended"]
    assert set(await registry.usages()) == {"photos"}
    await other.drop_intent(intent)
    assert (await recover(registry, objects)).failures == []
    assert {version.object_key for version in await registry.versions("db")} == {
        f"db/{IDS[1]}/db-1.gpg",
        intent.object_key,
    }


@pytest.mark.gen_test
async def test_a_broken_configuration_stops_its_own_collection_only(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "broken", "", "broken-1.gpg")
    source = Source(db="db-${version}.gpg")
    source.broken.add("broken")
    heard = await recover(registry, objects, source)
    assert set(await registry.usages()) == {"db"}
    assert heard.failures == [
        "collection broken: its configuration is broken: broken.yaml:3: the key is not known; use another"
    ]


@pytest.mark.gen_test
async def test_a_copy_of_an_object_under_another_collection_gets_an_id_of_its_own(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "db-copy", IDS[1], "db-1.gpg")
    heard = await recover(registry, objects)
    assert heard.failures == []
    (original,), (copy,) = await registry.versions("db"), await registry.versions("db-copy")
    assert original.id == IDS[1]
    assert copy.id not in ("", IDS[1])


@pytest.mark.gen_test
async def test_a_lease_lost_on_the_way_ends_the_collection_with_a_hint(
    registry: ScriptedRegistry, other: ScriptedRegistry, objects: LocalStore, root: Path, database: Database
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    place(root, "db", IDS[2], "db-2.gpg")
    adopt = registry.adopt_version

    async def adopt_and_lose(version: Version, lease: Lease) -> None:
        if version.number == 2:
            database.let_pass(60)
            assert await other.acquire_lease(lease.name, 30) is not None
        await adopt(version, lease)

    registry.adopt_version = adopt_and_lose  # type: ignore[method-assign]
    heard = await recover(registry, objects)
    assert heard.lines == [f"took db/{IDS[1]}/db-1.gpg as version 1 of db"]
    assert len(heard.failures) == 1
    assert "run this again" in heard.failures[0]
    assert await registry.next_number("db") == 3  # raised first: no upload can take the number of what is still left


@pytest.mark.gen_test
async def test_an_object_that_ends_early_is_named_and_the_others_are_taken(
    registry: Registry, objects: LocalStore, root: Path
) -> None:
    place(root, "db", IDS[1], "db-1.gpg")
    vanishing = place(root, "db", IDS[2], "db-2.gpg")
    shrinking = place(root, "db", IDS[3], "db-3.gpg")
    size = objects.size

    async def size_then_change(key: str) -> int:
        if key == vanishing:
            (root / key).unlink()
        size_bytes = await size(key)
        if key == shrinking:
            (root / key).write_bytes(b"short")
        return size_bytes

    objects.size = size_then_change  # type: ignore[method-assign]
    heard = await recover(registry, objects)
    assert [version.number for version in await registry.versions("db")] == [1]
    assert len(heard.failures) == 1
    assert shrinking in heard.failures[0]


@pytest.mark.gen_test
async def test_a_long_recovery_keeps_its_lease_and_gives_it_back(
    registry: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    renewed = asyncio.Event()
    renew = registry.renew_lease

    async def renew_and_tell(lease: Lease, ttl_seconds: float) -> bool:
        if not renewed.is_set():
            renewed.set()
            raise DatabaseUnavailable("the database is away for a moment")
        return await renew(lease, ttl_seconds)

    registry.renew_lease = renew_and_tell  # type: ignore[method-assign]
    async with collection_held(registry, "db", 0.2) as lease:
        await renewed.wait()
        assert lease is not None
        assert await renew(lease, 30)
        async with collection_held(other, "db", 30) as second:
            assert second is None
    async with collection_held(other, "db", 30) as third:
        assert third is not None
