"""What a maintenance pass does when its parts fail, and what it says about objects that no row names."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.services.doubles import COLLECTION, NOW, Source, SteadyClock, Told
from tornado_backups.domain.errors import DatabaseUnavailable, ObjectMissing, StorageUnavailable
from tornado_backups.domain.model import Intent, Version
from tornado_backups.registry.sqlite import SqliteRegistry
from tornado_backups.services import maintenance as module
from tornado_backups.services.health import Health
from tornado_backups.services.maintenance import Maintenance
from tornado_backups.services.metrics import Metrics
from tornado_backups.storage.local import LocalStore

AWAY = DatabaseUnavailable("the database does not answer")
GONE = StorageUnavailable("delete", "", "the storage does not answer")


@dataclass
class Notes:
    """Stands for sessions and alerts: keeps what it was asked."""

    asked: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def purge(self, now: object) -> int:
        self.asked.append("purge")
        if self.error is not None:
            raise self.error
        return 0

    async def notice(self, overviews: dict[str, Any]) -> None:
        self.asked.append("notice")

    def deliver(self) -> None:
        self.asked.append("deliver")


@dataclass
class Room:
    """The maintenance pass over a real registry and store that can be told to fail."""

    maintenance: Maintenance
    registry: Told
    store: Told
    notes: Notes
    metrics: Metrics
    clock: SteadyClock

    async def put(self, number: int, data: bytes, collection: str = "files") -> Version:
        """Store and register a version by the ports alone."""
        registry, store = self.registry.inner, self.store.inner
        lease = await registry.acquire_lease(f"collection/{collection}", 30)
        key = f"{collection}/{number:032}/{collection}-{number}.gpg"
        now = self.clock.now()
        intent = Intent(f"{collection}-{number}", collection, number, key.rpartition("/")[2], key, lease, now)
        await registry.add_intent(intent)
        await self.store_object(key, data)
        version = Version(
            intent.id, collection, number, intent.filename, key, len(data), hashlib.sha256(data).hexdigest(),
            "session", "alice", now, now, now,
        )  # fmt: skip
        await registry.commit_upload(intent, version, ())
        assert await store.size(key) == len(data)
        return version

    async def store_object(self, key: str, data: bytes) -> None:
        """Put an object where no row names it."""
        sink = await self.store.inner.begin(key)
        await sink.write(data)
        await sink.complete()

    async def keys(self) -> list[str]:
        """Return what lies in the storage."""
        return sorted([stored.key async for stored in self.store.inner.list()])

    def passes(self, result: str) -> float:
        """Return the count of passes that ended so."""
        return self.metrics.value("maintenance_passes_total", result=result)


@pytest.fixture
def open_room(tmp_path: Path):
    """Open a room."""

    @asynccontextmanager
    async def enter(lease_seconds: float = 30.0, scrub_seconds: float = 3600.0) -> AsyncIterator[Room]:
        clock, metrics, notes = SteadyClock(), Metrics(), Notes()
        registry = Told(SqliteRegistry(tmp_path / "registry.sqlite", clock, "owner", exclusive=True))
        store = Told(LocalStore(tmp_path / "objects"))
        await registry.inner.open()
        await store.inner.open()
        ports: Any = (registry, store)
        source: Any = Source({"files": COLLECTION})
        health = Health(*ports, source, clock, 5.0)
        doubles: Any = notes
        maintenance = Maintenance(*ports, health, doubles, doubles, metrics, clock, 60.0, scrub_seconds, lease_seconds)
        try:
            yield Room(maintenance, registry, store, notes, metrics, clock)
        finally:
            await store.inner.close()
            await registry.inner.close()

    return enter


@pytest.mark.gen_test
async def test_one_failing_step_is_said_and_stops_no_other(open_room, caplog: pytest.LogCaptureFixture) -> None:
    async with open_room() as room:
        version = await room.put(1, b"data")
        await room.registry.inner.expire_version(version, "test", NOW)
        room.registry.fail["abandoned_intents"] = AWAY
        room.notes.error = RuntimeError("a bug")
        await room.maintenance.run_pass()
        assert await room.keys() == []
        assert room.notes.asked == ["notice", "deliver", "purge"]
        assert (room.passes("ok"), room.passes("failed")) == (0, 1)
        assert room.metrics.value("maintenance_last_success_timestamp_seconds") == 0
        assert "undo_abandoned: the database does not answer" in caplog.text
        assert "purge_sessions failed" in caplog.text
        room.registry.fail.clear()
        room.notes.error = None
        await room.maintenance.run_pass()
        assert room.passes("ok") == 1
        assert room.metrics.value("maintenance_last_success_timestamp_seconds") == NOW.timestamp()


@pytest.mark.gen_test
async def test_one_object_that_cannot_be_removed_keeps_its_row_and_holds_up_no_other(open_room) -> None:
    async with open_room() as room:
        versions = [await room.put(number, b"data") for number in (1, 2, 3)]
        for version in versions:
            await room.registry.inner.expire_version(version, "test", NOW)

        async def all_but_the_second(key: str) -> None:
            if key == versions[1].object_key:
                raise GONE
            await room.store.inner.delete(key)

        room.store.instead["delete"] = all_but_the_second
        await room.maintenance.run_pass()
        assert await room.keys() == [versions[1].object_key]
        assert [version.number for version, _ in await room.registry.inner.expired_versions(10)] == [2]
        room.store.instead.clear()
        await room.maintenance.run_pass()
        assert await room.keys() == []
        assert await room.registry.inner.expired_versions(10) == []


@pytest.mark.gen_test
async def test_an_intent_is_forgotten_only_after_the_storage_is_clean(open_room) -> None:
    async with open_room() as room:
        lease = await room.registry.inner.acquire_lease("collection/files", 30)
        key = "files/0123/files-1.gpg"
        await room.registry.inner.add_intent(Intent("1", "files", 1, "files-1.gpg", key, lease, NOW))
        await room.store_object(key, b"whole, but never registered")
        room.clock.forward(timedelta(seconds=31))
        room.store.fail["abandon"] = GONE
        await room.maintenance.run_pass()
        assert await room.keys() == [key]
        assert len(await room.registry.inner.abandoned_intents(10)) == 1
        room.store.fail.clear()
        await room.maintenance.run_pass()
        assert await room.keys() == []
        assert await room.registry.inner.abandoned_intents(10) == []


@pytest.mark.gen_test
async def test_a_live_uploads_intent_and_object_are_not_touched(open_room) -> None:
    async with open_room() as room:
        lease = await room.registry.inner.acquire_lease("collection/files", 30)
        key = "files/0123/files-1.gpg"
        await room.registry.inner.add_intent(Intent("1", "files", 1, "files-1.gpg", key, lease, NOW))
        await room.store_object(key, b"whole, and about to be registered")
        room.clock.forward(timedelta(seconds=29))
        await room.maintenance.run_pass()
        assert await room.keys() == [key]
        assert room.metrics.value("storage_unknown_objects") == 0  # the intent names it


@pytest.mark.gen_test
async def test_a_pass_does_nothing_while_another_server_holds_the_lease(open_room) -> None:
    async with open_room() as room:
        version = await room.put(1, b"data")
        await room.registry.inner.expire_version(version, "test", NOW)

        async def taken(*given: object) -> None:
            return None

        room.registry.instead["acquire_lease"] = taken
        await room.maintenance.run_pass()
        assert await room.keys() == [version.object_key]
        assert room.notes.asked == []
        assert "release_lease" not in room.registry.calls


@pytest.mark.gen_test
async def test_the_lease_is_renewed_during_a_long_step_and_a_lost_one_ends_the_pass(open_room) -> None:
    async with open_room(lease_seconds=0.03) as room:
        renewed: asyncio.Queue[bool] = asyncio.Queue()
        still_ours = True

        async def renew(*given: object) -> bool:
            renewed.put_nowait(still_ours)
            return still_ours

        async def long(*given: object) -> list[Intent]:
            nonlocal still_ours
            await renewed.get()
            await renewed.get()
            still_ours = False
            while await renewed.get():
                continue
            return []

        room.registry.instead["renew_lease"] = renew
        room.registry.instead["abandoned_intents"] = long
        await room.maintenance.run_pass()
        assert "expired_versions" not in room.registry.calls
        assert "release_lease" not in room.registry.calls


@pytest.mark.gen_test
async def test_passes_never_overlap_and_stop_breaks_one_off_and_gives_its_lease_back(open_room) -> None:
    async with open_room() as room:
        reached = asyncio.Event()

        async def hang(*given: object) -> list[Intent]:
            reached.set()
            await asyncio.Event().wait()
            return []

        room.registry.instead["abandoned_intents"] = hang
        running = asyncio.ensure_future(room.maintenance.run_pass())
        await reached.wait()
        await room.maintenance.run_pass()
        assert room.registry.calls.count("acquire_lease") == 1
        await room.maintenance.stop()
        await running
        assert await room.registry.inner.acquire_lease("maintenance", 30) is not None


# -- unknown objects -----------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_unknown_objects_are_counted_each_named_once_and_never_removed(
    open_room, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_room() as room:
        await room.put(1, b"known")
        for number in range(3):
            await room.store_object(f"files/{number}/stray.gpg", b"stray")
        for _ in range(3):
            await room.maintenance.run_pass()
        assert room.metrics.value("storage_unknown_objects") == 3
        assert sum("no row of the registry names" in line for line in caplog.messages) == 3
        assert len(await room.keys()) == 4
        await room.store.inner.delete("files/0/stray.gpg")
        await room.maintenance.run_pass()
        assert room.metrics.value("storage_unknown_objects") == 2


@pytest.mark.gen_test
async def test_a_large_storage_is_swept_over_several_passes(open_room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBJECTS_PER_PASS", 4)
    monkeypatch.setattr(module, "KEYS_AT_A_TIME", 2)
    async with open_room() as room:
        for number in range(9):
            await room.store_object(f"files/{number}/stray.gpg", b"stray")
        for _ in range(2):
            await room.maintenance.run_pass()
            assert room.metrics.value("storage_unknown_objects") == 0  # nothing is said before all was seen
        await room.maintenance.run_pass()
        assert room.metrics.value("storage_unknown_objects") == 9


@pytest.mark.gen_test
async def test_an_object_removed_while_the_sweep_looks_is_not_called_unknown(
    open_room, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_room() as room:
        await room.store_object("files/1/stray.gpg", b"stray")
        room.store.fail["size"] = ObjectMissing("size", "files/1/stray.gpg", "there is no such file")
        await room.maintenance.run_pass()
        assert room.metrics.value("storage_unknown_objects") == 0
        assert "no row" not in caplog.text


# -- scrub ---------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
@pytest.mark.parametrize("damage", ["changed", "shorter", "missing"])
async def test_the_scrub_finds_every_kind_of_damage_and_says_which(
    open_room, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    async with open_room() as room:
        version = await room.put(1, b"x" * 100_000)
        path = tmp_path / "objects" / version.object_key
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"y" * (100_000 if damage == "changed" else 50_000))
        room.clock.forward(timedelta(seconds=3601))
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 1)
        assert found is not None
        expected = {"changed": "its SHA-256 is", "shorter": "the object has 50000 bytes", "missing": "is missing"}
        assert expected[damage] in found.damage
        assert "version 1 of files is damaged" in caplog.text


@pytest.mark.gen_test
async def test_the_scrub_reads_a_large_object_over_several_passes_and_records_it_once_whole(
    open_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCRUB_BYTES_PER_PASS", 300_000)
    monkeypatch.setattr(module, "SCRUB_STEP_BYTES", 100_000)
    async with open_room(scrub_seconds=86400.0 * 365) as room:
        await room.put(1, b"x" * 800_000)
        room.clock.forward(timedelta(days=366))
        for _ in range(2):
            await room.maintenance.run_pass()
            assert (await room.registry.inner.version("files", 1)).checked_at == NOW
        await room.maintenance.run_pass()
        assert (await room.registry.inner.version("files", 1)).checked_at == room.clock.now()


@pytest.mark.gen_test
async def test_the_scrub_calls_nothing_damaged_because_the_storage_is_away(open_room) -> None:
    async with open_room() as room:
        await room.put(1, b"data")
        room.clock.forward(timedelta(seconds=3601))
        room.store.fail["size"] = GONE
        await room.maintenance.run_pass()
        assert room.passes("failed") == 1
        assert (await room.registry.inner.version("files", 1)).damage == ""
        room.store.fail.clear()
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 1)
        assert (found.damage, found.checked_at) == ("", room.clock.now())


@pytest.mark.gen_test
async def test_the_scrub_fills_in_the_hash_of_an_imported_version(open_room) -> None:
    async with open_room() as room:
        await room.store_object("files/imported", b"imported")
        lease = await room.registry.inner.acquire_lease("collection/files", 30)
        imported = Version("1", "files", 7, "imported", "files/imported", 8, "", "", "alice", NOW, NOW)
        await room.registry.inner.adopt_version(imported, lease)
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 7)
        assert found == imported._replace(sha256=hashlib.sha256(b"imported").hexdigest(), checked_at=NOW)


@pytest.mark.gen_test
@pytest.mark.parametrize("damage", ["shorter", "missing"])
async def test_the_scrub_takes_no_hash_from_an_imported_version_that_is_not_whole(
    open_room, tmp_path: Path, damage: str
) -> None:
    """Else the object would be called damaged for ever once it is put back."""
    async with open_room() as room:
        await room.store_object("files/imported", b"imported")
        lease = await room.registry.inner.acquire_lease("collection/files", 30)
        imported = Version("1", "files", 7, "imported", "files/imported", 8, "", "", "alice", NOW, NOW)
        await room.registry.inner.adopt_version(imported, lease)
        path = tmp_path / "objects/files/imported"
        path.write_bytes(b"imp") if damage == "shorter" else path.unlink()
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 7)
        assert (bool(found.damage), found.sha256) == (True, "")
        path.write_bytes(b"imported")
        room.clock.forward(timedelta(seconds=3601))
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 7)
        assert (found.damage, found.sha256) == ("", hashlib.sha256(b"imported").hexdigest())


@pytest.mark.gen_test
async def test_the_scrub_goes_on_where_it_was_when_the_storage_failed_in_the_middle(
    open_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer that was hashed ahead before the storage failed is not hashed twice."""
    monkeypatch.setattr(module, "SCRUB_STEP_BYTES", 400_000)
    async with open_room() as room:
        await room.put(1, bytes(range(250)) * 4_000)
        room.clock.forward(timedelta(seconds=3601))
        reads = 0

        async def breaks_once(key: str, start: int, length: int, digest=None):
            nonlocal reads
            reads += 1
            async for data in room.store.inner.read(key, start, length, digest):
                if reads == 2:
                    raise GONE
                yield data

        monkeypatch.setattr(room.store, "read", breaks_once, raising=False)
        await room.maintenance.run_pass()
        assert room.passes("failed") == 1
        await room.maintenance.run_pass()
        found = await room.registry.inner.version("files", 1)
        assert (found.damage, found.checked_at, reads) == ("", room.clock.now(), 4)


@pytest.mark.gen_test
async def test_a_version_that_was_rotated_while_the_scrub_read_it_is_not_called_damaged(
    open_room, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_room() as room:
        version = await room.put(1, b"data")
        room.clock.forward(timedelta(seconds=3601))

        async def rotated_meanwhile(key: str) -> int:
            await room.registry.inner.expire_version(version, "rotated", room.clock.now())
            await room.store.inner.delete(key)
            return await room.store.inner.size(key)

        room.store.instead["size"] = rotated_meanwhile
        await room.maintenance.run_pass()
        assert "damaged" not in caplog.text
