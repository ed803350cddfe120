"""The embedded database's file: made once, never replaced, used by one server, safe under kill and full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.registry_cases import FakeClock, SqliteDatabase, begin, store, version_of
from tornado_backups.domain.errors import DatabaseUnavailable, StartupError, StorageFull
from tornado_backups.registry import sqlite_file
from tornado_backups.registry.schema import MIGRATIONS
from tornado_backups.registry.sqlite import SqliteRegistry
from tornado_backups.registry.sqlite_driver import SqliteDriver

pytest_plugins = ["tests.contract.registry_fixtures"]


@pytest.fixture
def registry(sqlite_database: SqliteDatabase, io_loop: IOLoop) -> Iterator[SqliteRegistry]:
    """A server's registry on a new file."""
    registry = sqlite_database.registry("server", exclusive=True)
    io_loop.run_sync(registry.open)
    yield registry
    io_loop.run_sync(registry.close)


async def on_connection(registry: SqliteRegistry, work: Callable[[sqlite3.Connection], object]) -> object:
    """Do something with a registry's connection, in the one thread that may."""
    driver = registry._driver
    assert isinstance(driver, SqliteDriver)
    assert driver._worker is not None
    assert driver._connection is not None
    connection = driver._connection
    return await driver._worker.submit(lambda: work(connection))


async def refusal(path: Path) -> str:
    """Open, expecting to be refused; the file must stay as it is."""
    before = path.read_bytes() if path.is_file() else None
    registry = SqliteRegistry(path, FakeClock(), "server", exclusive=True)
    with pytest.raises(StartupError) as refused:
        await registry.open()
    await registry.close()
    assert (path.read_bytes() if path.is_file() else None) == before
    assert str(path) in refused.value.sentence
    assert "\n" not in refused.value.sentence
    return refused.value.sentence


@pytest.mark.gen_test
async def test_a_missing_file_is_made_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "registry.sqlite"
    registry = SqliteRegistry(str(path), FakeClock(), "server", exclusive=True)
    await registry.open()
    await store(registry)
    for name in os.listdir(path.parent):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name
    await registry.close()
    assert sorted(os.listdir(path.parent)) == ["registry.sqlite", "registry.sqlite.lock"]


@pytest.mark.gen_test
async def test_leftovers_of_a_creation_that_was_killed_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite.new").write_bytes(b"half of a database")
    (tmp_path / "registry.sqlite.new-journal").write_bytes(b"half of a journal")
    registry = SqliteRegistry(tmp_path / "registry.sqlite", FakeClock(), "server")
    await registry.open()
    await store(registry)
    await registry.close()
    assert not list(tmp_path.glob("*.new*"))


@pytest.mark.gen_test
async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in await refusal(tmp_path / "file" / "sub" / "registry.sqlite")
    (tmp_path / "registry.sqlite").mkdir()
    assert "unable to open database file" in await refusal(tmp_path / "registry.sqlite")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database, it is a text\n" * 500)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten_in_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 6))


@pytest.mark.gen_test
@pytest.mark.parametrize("damage", [garbage, emptied, truncated, overwritten_in_the_middle])
async def test_a_damaged_file_is_refused_with_the_way_out_and_never_replaced(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase, damage: Callable[[Path], None]
) -> None:
    await store(registry)
    await registry.close()
    damage(sqlite_database.path)
    sentence = await refusal(sqlite_database.path)
    assert "is damaged" in sentence
    assert "tornado-backups recover" in sentence


@pytest.mark.gen_test
async def test_a_file_that_vanished_and_left_its_log_is_not_replaced(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    await store(registry)
    shutil.copy(f"{sqlite_database.path}-wal", tmp_path / "kept-wal")
    await registry.close()
    sqlite_database.path.unlink()
    (tmp_path / "kept-wal").rename(f"{sqlite_database.path}-wal")
    assert "it is missing, but the log" in await refusal(sqlite_database.path)


@pytest.mark.gen_test
async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    assert "not one of this program" in await refusal(path)


@pytest.mark.gen_test
async def test_a_database_of_a_newer_program_is_refused(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase
) -> None:
    await registry.close()
    sqlite_database.execute(f"INSERT INTO schema_migrations VALUES ({len(MIGRATIONS) + 1}, 0)")
    assert "newer version of this program" in await refusal(sqlite_database.path)


@pytest.mark.gen_test
async def test_a_second_server_is_refused_but_a_command_may_run_beside_the_first(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase
) -> None:
    version = await store(registry)
    assert "another server has it open" in await refusal(sqlite_database.path)
    command = sqlite_database.registry("verify")
    await command.open()
    await command.record_check(version.id, version.created_at, "", "missing")
    await command.close()
    assert list(await registry.damaged_versions()) == ["photos"]


@pytest.mark.gen_test
async def test_a_server_that_starts_frees_what_its_dead_predecessor_held(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase
) -> None:
    dead = await begin(registry)
    await registry.close()
    successor = sqlite_database.registry("server-2", exclusive=True)
    await successor.open()
    assert await successor.abandoned_intents(10) == [dead]
    taken = await successor.acquire_lease(dead.lease.name, 30)
    assert taken is not None
    assert taken.fencing > dead.lease.fencing
    await successor.close()


@pytest.mark.gen_test
@pytest.mark.parametrize("replace", [False, True])
async def test_nothing_is_written_into_a_file_that_was_deleted_or_replaced(
    registry: SqliteRegistry, sqlite_database: SqliteDatabase, replace: bool
) -> None:
    await store(registry)
    copy = Path(shutil.copy(sqlite_database.path, f"{sqlite_database.path}.copy"))
    sqlite_database.path.unlink()
    if replace:
        copy.rename(sqlite_database.path)
    with pytest.raises(DatabaseUnavailable, match="moved, deleted or replaced"):
        await store(registry)


def in_worker(registry: SqliteRegistry, job: Callable[[], object]) -> asyncio.Future[object]:
    """Run something in the registry's thread."""
    driver = registry._driver
    assert isinstance(driver, SqliteDriver)
    assert driver._worker is not None
    return driver._worker.submit(job)


@pytest.mark.gen_test
async def test_a_full_disk_is_told_as_such_and_the_registry_goes_on_when_there_is_room(
    registry: SqliteRegistry,
) -> None:
    def limit(pages: int) -> None:
        connection = registry._driver._connection  # type: ignore[attr-defined]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await in_worker(registry, lambda: limit(1))  # SQLite takes the present size when that is more
    stored = []

    async def store_until_full() -> None:
        while True:
            stored.append(await store(registry, "x" * 200))

    with pytest.raises(StorageFull):
        await store_until_full()
    await in_worker(registry, lambda: limit(2**30))
    assert await registry.versions("x" * 200) == stored
    await registry.raise_counter("photos", 5)
    assert (await store(registry)).number == 6


@pytest.mark.gen_test
async def test_a_database_locked_by_another_program_is_unavailable_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    registry = SqliteRegistry(tmp_path / "r.sqlite", FakeClock(), "server")
    await registry.open()
    rival = sqlite3.connect(tmp_path / "r.sqlite", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="in use by another program"):
        await store(registry)
    assert await registry.versions("photos") == [], "reading goes on"
    rival.close()
    await store(registry)
    await registry.close()


@pytest.mark.gen_test
async def test_a_transaction_cancelled_in_the_queue_does_not_happen_and_one_that_runs_is_finished(
    registry: SqliteRegistry,
) -> None:
    queued = await begin(registry, "queued")
    running = await begin(registry, "running")
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(10)

    holding = in_worker(registry, hold)
    task = asyncio.create_task(registry.commit_upload(queued, version_of(queued), []))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await holding
    assert await registry.versions("queued") == []

    clock = registry._driver._clock  # type: ignore[attr-defined]
    entered.clear()
    go_on.clear()
    now = clock.now

    def slow_now() -> object:
        hold()
        return now()

    clock.now = slow_now
    task = asyncio.create_task(registry.commit_upload(running, version_of(running), []))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert len(await registry.versions("running")) == 1
    clock.now = now


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from tests.contract.registry_cases import FakeClock, store
from tornado_backups.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(sys.argv[1], FakeClock(), "writer", exclusive=True)
    await registry.open()
    last = ()
    while True:
        version = await store(registry, removals=last)
        last = (version,)
        print(version.number, flush=True)

asyncio.run(main())
"""

LEAVER = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[2])
from tests.contract.registry_cases import FakeClock, store
from tornado_backups.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(sys.argv[1], FakeClock(), "leaver", exclusive=True)
    await registry.open()
    await store(registry)
    registry._driver._worker.submit(lambda: time.sleep(60))

asyncio.run(main())
"""

ROOT = str(Path(__file__).resolve().parents[2])


@pytest.mark.gen_test(timeout=30)
async def test_a_killed_server_leaves_every_acknowledged_commit_and_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, path, ROOT], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(15)][-1]
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        registry = SqliteRegistry(path, FakeClock(), "next", exclusive=True)
        await registry.open()
        versions = await registry.versions("photos")
        assert versions[-1].number in (acknowledged, acknowledged + 1)
        assert await registry.next_number("photos") == versions[-1].number + 1
        assert [version.number for version, _ in await registry.expired_versions(10_000)] == [
            number for number in range(1, versions[-1].number) if number not in {version.number for version in versions}
        ]
        for version in versions[:-1]:
            await registry.expire_version(version, "the next run starts with one", version.created_at)
        await registry.close()


def test_a_busy_worker_does_not_keep_the_interpreter_from_ending(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVER, tmp_path / "r.sqlite", ROOT], check=True, timeout=20)


@pytest.mark.gen_test
async def test_only_leases_of_a_lone_server_wait_for_no_fsync(registry: SqliteRegistry) -> None:
    asked: list[str] = []
    await on_connection(registry, lambda connection: connection.set_trace_callback(asked.append))

    async def levels(work: Awaitable[object]) -> list[str]:
        asked.clear()
        await work
        return [statement.rpartition(" ")[2] for statement in asked if statement.startswith("PRAGMA synchronous")]

    lease = await registry.acquire_lease("collection/db", 30)
    assert lease is not None
    assert await levels(registry.renew_lease(lease, 30)) == ["NORMAL"]
    assert await levels(registry.raise_counter("db", 3)) == ["FULL"]
    assert await levels(registry.release_lease(lease)) == ["NORMAL"]
    assert await levels(registry.versions("db")) == []
    assert await levels(store(registry)) == ["NORMAL", "FULL", "FULL"]


@pytest.mark.gen_test
async def test_a_command_beside_the_server_leaves_nothing_to_the_next_fsync(
    sqlite_database: SqliteDatabase, registry: SqliteRegistry
) -> None:
    beside = sqlite_database.registry("command")
    await beside.open()
    assert await beside.acquire_lease("collection/db", 30) is not None
    level = await on_connection(beside, lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    assert level == (2,), "FULL"
    await beside.close()
