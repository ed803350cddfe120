"""PostgreSQL that restarts, hangs, cuts, times out or is not there: 503 while it lasts, healed by itself afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

import aiopg
import psycopg2
import pytest
from tornado.ioloop import IOLoop

from tests.contract.registry_cases import FakeClock, PostgresDatabase, begin, store, version_of
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.proxy import Fault, Proxy, proxy
from tornado_backups.domain.errors import DatabaseUnavailable, StartupError, StorageFull, UsageError
from tornado_backups.registry import postgres_driver
from tornado_backups.registry.postgres import PostgresRegistry
from tornado_backups.registry.postgres_driver import PostgresDriver
from tornado_backups.registry.postgres_pool import ConnectionPool
from tornado_backups.registry.postgres_url import DatabaseUrl
from tornado_backups.registry.schema import MIGRATIONS
from tornado_backups.registry.script import Result, Script, Statement, reads

pytest_plugins = ["tests.contract.registry_fixtures"]


@pytest.fixture(scope="module")
def unlucky_server() -> Iterator[PostgresServer]:
    """A server of this module's own, to be stopped and started."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def unlucky_database(unlucky_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """An empty database on it."""
    database = PostgresDatabase(unlucky_server)
    yield database
    unlucky_server.recycle_database(database.url)


@pytest.fixture
def registry(postgres_database: PostgresDatabase, io_loop: IOLoop) -> Iterator[PostgresRegistry]:
    """An open registry on the server that stays up."""
    registry = postgres_database.registry("server")
    io_loop.run_sync(registry.open)
    yield registry
    io_loop.run_sync(registry.close)


@pytest.fixture
def unlucky(unlucky_database: PostgresDatabase, io_loop: IOLoop) -> Iterator[PostgresRegistry]:
    """An open registry on the server that will be stopped."""
    registry = unlucky_database.registry("server")
    io_loop.run_sync(registry.open)
    yield registry
    io_loop.run_sync(registry.close)


@pytest.fixture
def tripwire(postgres_database: PostgresDatabase) -> Iterator[Proxy]:
    """A proxy in front of the server that stays up."""
    with proxy(postgres_database.server.port) as running:
        yield running


@pytest.fixture
def proxied(postgres_database: PostgresDatabase, tripwire: Proxy, io_loop: IOLoop) -> Iterator[PostgresRegistry]:
    """An open registry behind the proxy."""
    name = postgres_database.url.rpartition("/")[2]
    registry = PostgresRegistry(f"postgresql://postgres@127.0.0.1:{tripwire.port}/{name}", "proxied", FakeClock())
    io_loop.run_sync(registry.open)
    yield registry
    io_loop.run_sync(registry.close)


def driver_of(registry: PostgresRegistry) -> PostgresDriver:
    driver = registry._driver
    assert isinstance(driver, PostgresDriver)
    return driver


def pool_of(registry: PostgresRegistry) -> ConnectionPool:
    pool = driver_of(registry)._pool
    assert pool is not None
    return pool


# -- a server that comes and goes ------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_a_restart_between_two_queries_is_not_noticed(
    unlucky: PostgresRegistry, unlucky_server: PostgresServer
) -> None:
    stored = [await store(unlucky)]
    unlucky_server.restart()
    stored.append(await store(unlucky))
    await asyncio.gather(*(unlucky.versions("photos") for _ in range(8)))
    unlucky_server.restart()
    results = await asyncio.gather(*(unlucky.versions("photos") for _ in range(8)))
    assert results == [stored] * 8


@pytest.mark.gen_test(timeout=30)
async def test_a_server_that_is_down_is_said_at_once_and_healed_from_without_help(
    unlucky: PostgresRegistry, unlucky_server: PostgresServer
) -> None:
    version = await store(unlucky)
    unlucky_server.halt()
    try:
        began = time.monotonic()
        for attempt in (unlucky.ping(), unlucky.versions("photos"), begin(unlucky)):
            with pytest.raises(DatabaseUnavailable) as refused:
                await attempt
            assert refused.value.retry_after_seconds >= 1
        assert time.monotonic() - began < 3
    finally:
        unlucky_server.start()
    assert await unlucky.versions("photos") == [version]
    await store(unlucky)


@pytest.mark.gen_test(timeout=30)
async def test_connections_that_the_server_closed_cost_no_processor_time(
    unlucky: PostgresRegistry, unlucky_server: PostgresServer
) -> None:
    await asyncio.gather(*(unlucky.ping() for _ in range(8)))
    unlucky_server.restart()
    began = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - began < 0.25
    await unlucky.ping()


@pytest.mark.gen_test(timeout=30)
async def test_a_server_that_is_down_at_start_is_named_without_password_and_may_be_tried_again(
    unlucky_server: PostgresServer, unlucky_database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = unlucky_database.url.rpartition("/")[2]
    url = f"postgresql://postgres:hunter2hunter2@127.0.0.1:{unlucky_server.port}/{name}"
    registry = PostgresRegistry(url, "server", FakeClock())
    unlucky_server.halt()
    try:
        with pytest.raises(StartupError) as refused:
            await registry.open()
        with pytest.raises(DatabaseUnavailable):
            await registry.ping()
    finally:
        unlucky_server.start()
    assert f'"{name}" at 127.0.0.1:{unlucky_server.port}' in refused.value.sentence
    assert "Connection refused" in refused.value.sentence
    assert "\n" not in refused.value.sentence
    await registry.open()
    await registry.ping()
    await registry.close()
    assert "hunter2" not in refused.value.sentence + caplog.text


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no-such-host.invalid/name", "Name or service not known"),
        ("127.0.0.1:{port}/no_such_database", 'database "no_such_database" does not exist'),
        ("127.0.0.1:{port}/postgres?sslmode=require", "server does not support SSL"),
    ],
)
async def test_whatever_keeps_a_database_from_being_used_is_said_in_one_line(
    postgres_server: PostgresServer, place: str, reason: str
) -> None:
    url = "postgresql://postgres:hunter2@" + place.format(port=postgres_server.port)
    registry = PostgresRegistry(url, "server", FakeClock())
    with pytest.raises(StartupError) as refused:
        await registry.open()
    assert reason in refused.value.sentence
    assert "\n" not in refused.value.sentence
    assert "hunter2" not in refused.value.sentence


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host/name",
        "postgresql://user:hunter2@host/name?colour=blue",
        "postgresql://user:hunter2%zz@host/name",
        "postgresql://user:hunter2@[::1/name",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        PostgresRegistry(url, "server", FakeClock())
    assert "hunter2" not in refused.value.sentence
    assert ("colour" in refused.value.sentence) == ("colour" in url)


@pytest.mark.gen_test
async def test_host_names_are_looked_up_outside_the_event_loop_and_kept_for_the_certificate() -> None:
    parameters = await DatabaseUrl("postgresql://localhost,127.0.0.1:7000,%2Frun/name").addresses()
    assert parameters["host"].split(",")[-2:] == ["127.0.0.1", "/run"]
    assert set(parameters["host"].split(",")[:-2]) == {"localhost"}
    assert parameters["hostaddr"].split(",")[-2:] == ["127.0.0.1", ""]
    assert "127.0.0.1" in parameters["hostaddr"].split(",")[:-2]
    assert parameters["port"].split(",")[-2:] == ["7000", "5432"]


@pytest.mark.gen_test
async def test_a_database_of_a_newer_program_is_refused(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    postgres_database.execute(f"INSERT INTO schema_migrations VALUES ({len(MIGRATIONS) + 1}, 0)")
    with pytest.raises(StartupError, match="newer version of this program"):
        await postgres_database.registry("other").open()


# -- a connection that breaks ----------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("kind", ["reset", "swallow"])
@pytest.mark.parametrize("times", [1, None])
async def test_a_commit_cut_off_at_any_statement_happens_once_or_not_at_all(
    proxied: PostgresRegistry, tripwire: Proxy, kind: str, times: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = await statements_of_a_commit(proxied, monkeypatch)
    assert len(steps) >= 10
    for step in steps:
        intent = await begin(proxied)
        version = version_of(intent)
        tripwire.fault = fault = Fault(kind, when=step, times=times)  # type: ignore[arg-type]
        try:
            await proxied.commit_upload(intent, version, [])
            happened = True
        except DatabaseUnavailable:
            happened = False
        assert fault.met, step
        assert happened == (times == 1 and step != b"COMMIT\x00"), step
        tripwire.fault = None
        await proxied.commit_upload(intent, version, [])
        assert await proxied.latest_version("photos") == version
        assert await proxied.next_number("photos") == intent.number + 1
    assert len(await proxied.versions("photos")) == len(steps) + 1


async def statements_of_a_commit(registry: PostgresRegistry, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record what a commit sends, each statement up to its first value."""
    intent = await begin(registry)
    seen: list[bytes] = []
    execute = postgres_driver._Running._execute

    async def recording(running: object, sql: str, values: tuple[str | int | None, ...] = ()) -> Result:
        seen.append(sql.partition("%s")[0].encode() + (b"" if values else b"\x00"))
        return await execute(running, sql, values)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(postgres_driver._Running, "_execute", recording)
        await registry.commit_upload(intent, version_of(intent), [])
    return list(dict.fromkeys(seen))


@pytest.mark.gen_test(timeout=30)
async def test_a_server_that_hangs_is_given_up_after_the_time_limit(
    unlucky: PostgresRegistry,
    unlucky_server: PostgresServer,
    unlucky_database: PostgresDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = await store(unlucky)
    with monkeypatch.context() as patch, unlucky_server.frozen():
        patch.setattr(postgres_driver, "_STATEMENT_SECONDS", 0.2)
        patch.setattr(postgres_driver, "_CONNECT_SECONDS", 0.2)
        began = time.monotonic()
        for _ in range(6):  # the first meets a connection that was open, the others cannot make one
            with pytest.raises(DatabaseUnavailable):
                await unlucky.versions("photos")
        assert time.monotonic() - began < 5
        with pytest.raises(StartupError, match="did not answer in time"):
            await unlucky_database.registry("other").open()
    assert await unlucky.versions("photos") == [version]


# -- locks and limits of the server ----------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout", "our own"])
async def test_a_statement_that_waits_too_long_is_unavailable_never_a_cancelled_task(
    postgres_database: PostgresDatabase, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "our own":
        monkeypatch.setattr(postgres_driver, "_STATEMENT_SECONDS", 0.2)
    else:
        monkeypatch.setattr(postgres_driver, "_SESSION", f"SET {limit} = '200ms'")
    registry = postgres_database.registry("server")
    await registry.open()
    rival = psycopg2.connect(postgres_database.url)
    rival.cursor().execute("LOCK TABLE leases, versions IN ACCESS EXCLUSIVE MODE")
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await registry.acquire_lease("a", 30)
        with pytest.raises(DatabaseUnavailable):
            await registry.versions("photos")
    rival.close()
    await store(registry)
    await registry.close()


@pytest.mark.gen_test(timeout=30)
async def test_conflicts_are_tried_again_and_a_full_disk_is_told_as_such(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    postgres_database.execute("CREATE SEQUENCE calls")
    fail = "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
    once = "IF nextval('calls') % 2 = 1 THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF;"
    postgres_database.execute(fail.format(body=""))
    postgres_database.execute("CREATE TRIGGER fail BEFORE INSERT ON versions FOR EACH ROW EXECUTE FUNCTION fail()")
    for code in ("40001", "40P01", "23505"):
        postgres_database.execute(fail.format(body=once.format(code=code)))
        await store(registry)
    assert [version.number for version in await registry.versions("photos")] == [1, 2, 3]
    postgres_database.execute(fail.format(body="RAISE EXCEPTION 'no' USING ERRCODE = '53100';"))
    with pytest.raises(StorageFull):
        await store(registry)
    postgres_database.execute(fail.format(body="RAISE EXCEPTION 'no' USING ERRCODE = '40001';"))
    with pytest.raises(DatabaseUnavailable):
        await store(registry, "other")


@pytest.mark.gen_test
async def test_a_commit_is_durable_even_where_the_administrator_chose_speed(
    postgres_database: PostgresDatabase,
) -> None:
    @reads
    def setting() -> Script[str]:
        value: str = (yield Statement("SELECT current_setting('synchronous_commit')")).rows[0][0]
        return value

    name = postgres_database.url.rpartition("/")[2]
    for chosen, used in (("off", "on"), ("local", "local")):
        postgres_database.execute(f"ALTER DATABASE {name} SET synchronous_commit = {chosen}")
        registry = postgres_database.registry("server")
        await registry.open()
        assert await driver_of(registry).run(setting()) == used
        await registry.close()
    postgres_database.execute(f"ALTER DATABASE {name} RESET synchronous_commit")


# -- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=60)
async def test_a_commit_cancelled_at_any_moment_happens_or_not_and_the_registry_goes_on(
    registry: PostgresRegistry,
) -> None:
    finished = cancelled = 0
    for moments in range(200):
        intent = await begin(registry)
        version = version_of(intent)
        task = asyncio.create_task(registry.commit_upload(intent, version, []))
        for _ in range(moments):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            finished += 1
        except asyncio.CancelledError:
            cancelled += 1
        await registry.commit_upload(intent, version, [])
        assert await registry.latest_version("photos") == version
        assert await registry.next_number("photos") == intent.number + 1
        if finished > 3:
            break
    assert cancelled > 10


@pytest.mark.gen_test(timeout=30)
async def test_a_cancelled_statement_gives_its_locks_back_soon(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    rival = psycopg2.connect(postgres_database.url)
    rival.cursor().execute("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE")
    intent = await begin(registry)
    task = asyncio.create_task(registry.commit_upload(intent, version_of(intent), []))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while postgres_database.execute(waiting) != [(1,)]:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 5
    while postgres_database.execute(waiting) != [(0,)]:
        assert time.monotonic() < deadline, "the server did not notice that nobody waits for the statement"
        await asyncio.sleep(0.05)
    rival.close()
    assert await registry.versions("photos") == []
    await registry.drop_intent(intent)


@pytest.mark.gen_test(timeout=30)
async def test_a_cancellation_that_arrives_with_the_answer_is_not_forgotten(
    registry: PostgresRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = aiopg.Cursor.execute

    async def forgetful(cursor: aiopg.Cursor, sql: str, *args: object, **options: object) -> None:
        await execute(cursor, sql, *args, **options)
        if "INSERT INTO versions" in sql:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # as wait_for of Python 3.11 does
                await asyncio.sleep(0)

    monkeypatch.setattr(aiopg.Cursor, "execute", forgetful)
    intent = await begin(registry)
    task = asyncio.create_task(registry.commit_upload(intent, version_of(intent), []))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await registry.versions("photos") == []


@pytest.mark.gen_test(timeout=30)
async def test_cleaning_up_in_a_cancelled_task_works(registry: PostgresRegistry) -> None:
    intent = await begin(registry)
    reached = asyncio.Event()

    async def upload() -> None:
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            await registry.drop_intent(intent)

    task = asyncio.create_task(upload())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await registry.acquire_lease(intent.lease.name, 30) is not None


# -- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_many_callers_share_few_connections_and_idle_ones_grow_old(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    clock = postgres_database.clock
    await asyncio.gather(*(registry.versions("photos") for _ in range(60)))
    assert 1 < len(pool_of(registry)._idle) <= 4
    clock.seconds += 301
    for _ in range(4):
        await registry.ping()
    assert len(pool_of(registry)._idle) == 1


@pytest.mark.gen_test(timeout=30)
async def test_who_finds_no_connection_in_time_is_told_and_nobody_else_is_harmed(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    pool = pool_of(registry)
    pool._wait_seconds = 0.1
    rival = psycopg2.connect(postgres_database.url)
    rival.cursor().execute("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE")
    blocked = [asyncio.create_task(registry.versions("photos")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable, match="all connections"):
        await registry.ping()
    rival.close()
    assert await asyncio.gather(*blocked) == [[]] * 4
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await registry.ping()


@pytest.mark.gen_test(timeout=30)
async def test_closing_lets_running_transactions_finish_and_leaves_no_connection(
    registry: PostgresRegistry, postgres_database: PostgresDatabase
) -> None:
    running = [asyncio.create_task(registry.versions("photos")) for _ in range(8)]
    await asyncio.sleep(0)
    await registry.close()
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert all(outcome == [] or isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tornado-backups' AND datname = "
    deadline = time.monotonic() + 5
    while postgres_database.execute(ours + "current_database()") != [(0,)]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
