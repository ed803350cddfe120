"""Fail, lose the answer, or die at every single step; start over; one maintenance pass; nothing is lost or left.

Explained in docs/crash-order.md. ``CRASH_MATRIX=full`` tries every mode at every step in all four combinations; without
it the combinations other than SQLite with local files leave out what only repeats (see ``MODES``).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.store_places import LocalPlace, S3Place
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.system.crash.child import Children, Job, children
from tests.system.crash.scenarios import NAME, SCENARIOS, Scenario, maintenance_of
from tests.system.crash.steps import KILLED_STATUS, Halted, Mode, Numbered, Steps, numbered
from tests.system.crash.worlds import (
    Place,
    PostgresBase,
    SqliteBase,
    World,
    check_downloads,
    check_nothing_is_left,
    emptied,
    new_store,
    put_version,
)
from tornado_backups.ports import ObjectStore

pytest_plugins = ["tests.contract.registry_fixtures", "tests.contract.store_fixtures"]

IS_FULL = os.environ.get("CRASH_MATRIX") == "full"
ALL: tuple[Mode, ...] = ("refused", "unanswered", "outage", "halt", "kill")
MODES: dict[str, tuple[Mode, ...]] = {
    "sqlite-local": ALL if IS_FULL else ("refused", "unanswered", "kill"),
    "postgres-local": ALL if IS_FULL else ("unanswered", "kill"),
    "sqlite-s3": ALL if IS_FULL else ("unanswered", "halt"),
    "postgres-s3": ALL if IS_FULL else ("halt",),
}
BELOW_THE_PORTS = frozenset(MODES) if IS_FULL else frozenset({"sqlite-local", "sqlite-s3"})


@pytest.fixture(params=list(MODES))
def combination(request: pytest.FixtureRequest) -> str:
    """A registry and a store."""
    found: str = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs are tried here, none has to reach a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="tb-crash-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def new_world(
    combination: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], World]:
    """Return a function that makes empty worlds, one at a time."""
    numbers = itertools.count(1)
    database, _, kind = combination.partition("-")
    postgres: PostgresBase | None = None
    if database == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        postgres = PostgresBase(server, server.create_database())
    s3: S3Server | None = None
    if kind == "s3":
        s3 = request.getfixturevalue("moto_server")
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)

    def make() -> World:
        place = folder / str(next(numbers))
        objects: Place = S3Place(s3, f"{folder.name}/") if s3 else LocalPlace(place / "objects")
        return World(postgres or SqliteBase(place / "registry.sqlite"), objects)

    return make


@pytest.fixture
def forks(new_world: Callable[[], World]) -> Iterator[Children]:
    """Processes to be killed; asks for the world first, which sets their environment."""
    with children() as running:
        yield running


@pytest.fixture
def kept_store(new_world: Callable[[], World], io_loop: IOLoop) -> Iterator[ObjectStore | None]:
    """The store of those who look on: a client for S3 costs more to make than all that is tried with it."""
    place = new_world().place
    if not isinstance(place, S3Place):
        yield None
        return
    store = new_store(place)
    io_loop.run_sync(store.open)
    yield store
    io_loop.run_sync(store.close)


async def prepare(world: World, scenario: Scenario, kept_store: ObjectStore | None = None) -> None:
    """Bring about the state before; the database may exist already, with no rows."""
    async with world.bystander(kept_store) as (registry, store):
        if isinstance(world.base, PostgresBase):
            world.base.empty()
        await scenario.prepare(world, registry, store)


async def act(world: World, scenario: Scenario, steps: Steps, below_the_ports: bool) -> list[str]:
    """Do the work in this process, with the fault; return what was acknowledged."""
    acknowledged: list[str] = []
    async with world.process() as (registry, store):
        with numbered(steps, below_the_ports):
            ports = Numbered(registry, steps, "registry"), Numbered(store, steps, "store")
            try:
                await scenario.act(world, *ports, acknowledged.append)
            except Halted:
                assert steps.halted
            await steps.settle()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
    return acknowledged


async def check(
    world: World, scenario: Scenario, acknowledged: list[str], kept_store: ObjectStore | None = None
) -> None:
    """Start over, and hold the world to the promises before and after one maintenance pass."""
    if scenario.data is not None:
        world.ledger.update(dict.fromkeys(acknowledged, scenario.data(world)))
    world.base.end_leases()
    async with world.bystander(kept_store) as (registry, store):
        numbers = await check_downloads(world, registry, store, NAME)
        assert numbers == scenario.after or (numbers == scenario.before and not acknowledged)
        maintenance, metrics = maintenance_of(world, registry, store)
        await maintenance.run_pass()
        assert metrics.value("maintenance_passes_total", result="ok") == 1
        assert await check_downloads(world, registry, store, NAME) == numbers
        await check_nothing_is_left(world, registry, NAME)
        highest = max(scenario.before | scenario.after, default=0)
        assert (await put_version(world, registry, store, NAME)).number >= max(highest, max(numbers, default=0) + 1)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_nothing_acknowledged_is_lost_and_nothing_is_left_whatever_step_fails(
    io_loop: IOLoop,
    combination: str,
    scenario: Scenario,
    new_world: Callable[[], World],
    forks: Children,
    kept_store: ObjectStore | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    below = combination in BELOW_THE_PORTS

    def run(mode: Mode, at: int) -> Steps:
        world, steps = new_world(), Steps(mode, at)
        with emptied(world.place):
            io_loop.run_sync(lambda: prepare(world, scenario, kept_store))
            if mode == "kill":
                outcome = forks.do(Job(world, scenario.name, below, at))
                assert outcome.status == KILLED_STATUS
                acknowledged = outcome.acknowledged
            else:
                acknowledged = io_loop.run_sync(lambda: act(world, scenario, steps, below))
            try:
                io_loop.run_sync(lambda: check(world, scenario, acknowledged, kept_store))
            except BaseException as error:
                error.add_note(f"{scenario.name} on {combination}: {mode} at step {at} ({clean.names[at - 1]})")
                raise
        return steps

    clean = Steps()
    clean = run("refused", 0)
    began = time.monotonic()
    tried = [run(mode, at) for mode in MODES[combination] for at in range(1, len(clean.names) + 1)]
    with capsys.disabled():
        print(
            f"\ncrash matrix: {scenario.name} on {combination}: {len(clean.names)} steps, {len(tried)} crashes"
            f" ({', '.join(MODES[combination])}) in {time.monotonic() - began:.1f} s"
        )
