"""A Go server's database and bucket, taken over as they are; into SQLite and into PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.registry_cases import NOON, Database, FakeClock, begin, session_of, store
from tests.services.adoption_cases import Heard, contents, put
from tests.services.go_server import DAY, GoDatabaseMaker
from tornado_backups.domain.errors import StartupError, UsageError
from tornado_backups.domain.model import Session, Version
from tornado_backups.ports import Registry
from tornado_backups.registry import go_tables
from tornado_backups.registry.go_tables import GoTables
from tornado_backups.registry.scripted import ScriptedRegistry
from tornado_backups.services.takeover import Takeover
from tornado_backups.storage.local import LocalStore

pytest_plugins = ["tests.contract.registry_fixtures", "tests.services.go_server_fixtures"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def objects(root: Path, io_loop: IOLoop) -> Iterator[LocalStore]:
    local = LocalStore(root)
    io_loop.run_sync(local.open)
    yield local
    io_loop.run_sync(local.close)


async def take_over(
    go_database: GoDatabaseMaker, registry: Registry, objects: LocalStore, dry_run: bool = False
) -> Heard:
    heard = Heard()
    tables = GoTables(go_database.url)
    await tables.open()
    try:
        await Takeover(tables, registry, objects, FakeClock(), 30, heard, dry_run).run()
    finally:
        await tables.close()
    return heard


@pytest.fixture
def full(go_database: GoDatabaseMaker, root: Path) -> GoDatabaseMaker:
    """Two collections and four sessions, with everything that a grown database holds."""
    for number in (1, 2, 3):
        go_database.version("db", number, 5, days=number, deleted=number == 1)
        if number > 1:
            put(root, f"db/db-v{number}.tar.gpg", b"12345", DAY)
    go_database.version("db", 4, 5, days=4)  # its object is missing
    go_database.version("db", 7, 5, days=7, deleted=True)
    go_database.version("photos", 1, 9, days=1)
    put(root, "photos/photos-v1.tar.gpg", b"12345", DAY)
    go_database.session("a" * 64, NOON + timedelta(days=9))
    go_database.session("b" * 64, NOON - timedelta(days=9))
    go_database.session("c" * 64, NOON + timedelta(days=9), deactivated=True)
    go_database.session("d" * 64, NOON + timedelta(days=9), deleted=True)
    return go_database


EVERYTHING = [
    "left 2 rows of db: they are soft-deleted, and only keep numbers up to 7 from being used again",
    "took db/db-v2.tar.gpg as version 2 of db",
    "took db/db-v3.tar.gpg as version 3 of db",
    "left 'db/db-v4.tar.gpg' (version 4 of db): the storage holds no such object",
    "took the counter of db: its next version is number 8 or higher",
    "took photos/photos-v1.tar.gpg as version 1 of photos: the object has 5 bytes, 9 were registered",
    f"left session {'d' * 64} of user alice: it is soft-deleted, so its token is not valid",
    "took 3 sessions: 1 expired and 1 revoked ones among them stay so",
]


@pytest.mark.gen_test
async def test_versions_counters_and_sessions_are_taken_over(
    registry: Registry, full: GoDatabaseMaker, objects: LocalStore, root: Path
) -> None:
    before = contents(root)
    heard = await take_over(full, registry, objects)
    assert heard == Heard(EVERYTHING)
    assert contents(root) == before
    (id_,) = full.execute("SELECT id FROM uploaded_versions WHERE collection_id = 'db' AND version_number = 2")[0]
    made = DAY + timedelta(days=2)
    assert await registry.version("db", 2) == Version(
        str(id_), "db", 2, "db-v2.tar.gpg", "db/db-v2.tar.gpg", 5, "", "5" * 64, "alice", made, made
    )
    assert [version.number for version in await registry.versions("db")] == [2, 3]
    assert await registry.next_number("db") == 8
    assert await registry.next_number("photos") == 2
    assert list(await registry.damaged_versions()) == ["photos"]
    assert await registry.session("b" * 64) == Session(
        "b" * 64, "alice", "ci", "Login", "10.0.0.1", DAY, DAY, NOON - timedelta(days=9)
    )
    revoked = await registry.session("c" * 64)
    assert revoked is not None
    assert revoked.deactivated
    assert await registry.session("d" * 64) is None


@pytest.mark.gen_test
async def test_importing_again_changes_nothing(
    registry: Registry, full: GoDatabaseMaker, objects: LocalStore, database: Database
) -> None:
    await take_over(full, registry, objects)
    tables = ("versions", "collections", "sessions", "leases")

    def state() -> list[list[tuple[object, ...]]]:
        return [sorted(database.execute(f"SELECT * FROM {table}")) for table in tables]

    await registry.record_check((await registry.versions("db"))[0].id, NOON, "f" * 64, "")
    await registry.revoke_session("a" * 64, NOON)
    before = state()
    heard = await take_over(full, registry, objects)
    assert [line for line in heard.lines if line.startswith("took")] == []
    assert "left 2 versions of db: they are registered already" in heard.lines
    assert "left 3 sessions: they are registered already" in heard.lines
    assert [row for table in state()[:3] for row in table] == [row for table in before[:3] for row in table]


@pytest.mark.gen_test
async def test_a_dry_run_says_the_same_and_changes_nothing(
    registry: Registry, full: GoDatabaseMaker, objects: LocalStore, database: Database
) -> None:
    assert await take_over(full, registry, objects, dry_run=True) == Heard(EVERYTHING)
    for table in ("versions", "collections", "sessions", "leases"):
        assert database.execute(f"SELECT * FROM {table}") == []


@pytest.mark.gen_test
async def test_many_rows_are_read_page_by_page(
    registry: Registry,
    go_database: GoDatabaseMaker,
    objects: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(go_tables, "PAGE_ROWS", 2)
    for number in range(1, 6):
        go_database.version("db", number, 1)
        go_database.version(f"c{number}", 1, 1)
        go_database.session(f"{number:064x}", NOON)
        put(root, f"db/db-v{number}.tar.gpg", b"x", DAY)
        put(root, f"c{number}/c{number}-v1.tar.gpg", b"x", DAY)
    await take_over(go_database, registry, objects)
    usages = await registry.usages()
    assert {name: usage.versions_count for name, usage in usages.items()} == {"db": 5} | dict.fromkeys(
        ["c1", "c2", "c3", "c4", "c5"], 1
    )
    assert len(await registry.sessions("alice", 100)) == 5


@pytest.mark.gen_test
async def test_doubtful_rows_are_left_and_named(
    registry: ScriptedRegistry, go_database: GoDatabaseMaker, objects: LocalStore, root: Path
) -> None:
    put(root, "db/same.gpg", b"x", DAY)
    put(root, "db/other-3.gpg", b"x", DAY)
    put(root, "db/first.gpg", b"x", DAY)
    await store(registry, "db")
    go_database.version("db", 1, 1, "first.gpg")
    go_database.version("db", 2, 1, "same.gpg", days=1)
    go_database.version("db", 3, 1, "same.gpg", days=2)
    go_database.version("db", 3, 1, "other-3.gpg", days=1)
    go_database.version("../etc", 1, 1, "passwd")
    go_database.execute("INSERT INTO uploaded_versions (id) VALUES ('empty')")
    (mine,) = await registry.versions("db")
    heard = await take_over(go_database, registry, objects)
    assert sorted(heard.lines) == sorted(
        [
            "left the rows of collection '': its name cannot be part of an object's key",
            "left the rows of collection '../etc': its name cannot be part of an object's key",
            "left 'db/same.gpg' (version 2 of db): version 3, a newer row, has overwritten its object",
            "left 'db/other-3.gpg' (version 3 of db): a newer row, db/same.gpg, has the same number",
            f"left 'db/first.gpg' (version 1 of db): its number is registered here for {mine.object_key}",
            "took db/same.gpg as version 3 of db",
        ]
    )


@pytest.mark.gen_test
async def test_a_number_of_a_version_that_waits_for_its_removal_is_not_taken(
    registry: ScriptedRegistry, go_database: GoDatabaseMaker, objects: LocalStore, root: Path
) -> None:
    await registry.expire_version(await store(registry, "db"), "queue is full", NOON)
    put(root, "db/first.gpg", b"x", DAY)
    go_database.version("db", 1, 1, "first.gpg")
    assert (await take_over(go_database, registry, objects)).lines == [
        "left 'db/first.gpg' (version 1 of db): its number or id is in use here, by a version that is being removed"
    ]


@pytest.mark.gen_test
async def test_a_collection_with_a_running_upload_is_skipped_and_named(
    registry: ScriptedRegistry, other: ScriptedRegistry, full: GoDatabaseMaker, objects: LocalStore
) -> None:
    intent = await begin(other, "db")
    heard = await take_over(full, registry, objects)
    assert heard.failures == ["collection db: an upload to it is running here; run this again when it has ended"]
    assert set(await registry.usages()) == {"photos"}
    await other.drop_intent(intent)
    assert (await take_over(full, registry, objects)).failures == []
    assert set(await registry.usages()) == {"db", "photos"}


@pytest.mark.gen_test
async def test_a_lease_lost_on_the_way_leaves_the_rest_for_the_next_run(
    registry: ScriptedRegistry,
    other: ScriptedRegistry,
    full: GoDatabaseMaker,
    objects: LocalStore,
    database: Database,
) -> None:
    size = objects.size

    async def size_and_lose(key: str) -> int:
        if key.startswith("db/db-v3"):
            database.let_pass(60)
            assert await other.acquire_lease("collection/db", 30) is not None
        return await size(key)

    objects.size = size_and_lose  # type: ignore[method-assign]
    heard = await take_over(full, registry, objects)
    assert len(heard.failures) == 1
    assert "run this again" in heard.failures[0]
    assert [version.number for version in await registry.versions("db")] == [2]


@pytest.mark.gen_test
async def test_a_session_that_is_known_already_stays_as_it_is(
    registry: Registry, go_database: GoDatabaseMaker, objects: LocalStore
) -> None:
    mine = session_of("bob", "token")
    await registry.add_session(mine)
    go_database.session(mine.id, NOON)
    heard = await take_over(go_database, registry, objects)
    assert heard.lines == ["left 1 sessions: they are registered already"]
    assert await registry.session(mine.id) == mine


@pytest.mark.gen_test
async def test_older_tables_with_fewer_columns_and_no_sessions_will_do(
    registry: Registry, go_database: GoDatabaseMaker, objects: LocalStore, root: Path
) -> None:
    go_database.execute("DROP TABLE granted_accesses")
    for column in ("filesize", "uploaded_by_session_id", "uploader", "updated_at", "deleted_at"):
        go_database.execute(f"ALTER TABLE uploaded_versions DROP COLUMN {column}")
    go_database.execute(
        "ALTER TABLE uploaded_versions ALTER created_at TYPE timestamp USING created_at AT TIME ZONE 'UTC'"
    )
    go_database.execute(
        "INSERT INTO uploaded_versions (id, collection_id, version_number, filename, created_at)"
        " VALUES ('id-1', 'db', 1, 'db-1.gpg', '2022-03-01 02:30')"
    )
    put(root, "db/db-1.gpg", b"12345", DAY)
    await take_over(go_database, registry, objects)
    assert await registry.versions("db") == [
        Version("id-1", "db", 1, "db-1.gpg", "db/db-1.gpg", 5, "", "", "", DAY, DAY)
    ]


@pytest.mark.gen_test
async def test_the_go_server_database_is_only_read(go_database: GoDatabaseMaker) -> None:
    tables = GoTables(go_database.url)
    await tables.open()
    with pytest.raises(StartupError, match="read-only transaction"):
        await tables._query("DELETE FROM uploaded_versions")
    await tables.close()
    await tables.close()


@pytest.mark.gen_test
async def test_a_database_that_is_no_go_server_is_refused_in_one_line(go_database: GoDatabaseMaker) -> None:
    go_database.execute("ALTER TABLE uploaded_versions DROP COLUMN filename")
    with pytest.raises(StartupError, match=r"the table uploaded_versions in the .* has no column filename"):
        await GoTables(go_database.url).open()
    go_database.execute("DROP TABLE uploaded_versions")
    with pytest.raises(StartupError, match="is not a Go server's: it has no table uploaded_versions"):
        await GoTables(go_database.url).open()


@pytest.mark.gen_test
async def test_a_database_that_is_away_is_named_without_its_password(go_database: GoDatabaseMaker) -> None:
    url = go_database.url.replace("postgres@", "postgres:s3cret@")
    for broken in (url + "-gone", "postgresql://u:s3cret@127.0.0.1:1/x", "postgresql://u:s3cret@no.invalid/x"):
        with pytest.raises(StartupError, match="cannot be read") as caught:
            await GoTables(broken).open()
        assert "s3cret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.gen_test
async def test_a_statement_that_is_ended_on_the_server_is_an_error_and_no_cancellation(
    go_database: GoDatabaseMaker,
) -> None:
    tables = GoTables(go_database.url)
    await tables.open()
    try:
        with pytest.raises(StartupError, match="cancelled"):
            await tables._query("SET statement_timeout = 1; SELECT pg_sleep(5)")
    finally:
        await tables.close()


def test_a_url_that_makes_no_sense_is_a_usage_error_without_its_password() -> None:
    with pytest.raises(UsageError, match=r"^--from-db-url: ") as caught:
        GoTables("mysql://u:s3cret@host/x")
    assert "s3cret" not in str(caught.value)
