"""Fixtures of the registry's contract suite: an empty database of either kind, and registries on it.

A test module asks for them with ``pytest_plugins = ["tests.contract.registry_fixtures"]``, and imports what it names
from ``registry_cases`` (pytest must be the first to import this module). ``postgres_server`` is one server for the
whole run, with an empty database for each test.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.registry_cases import Database, PostgresDatabase, SqliteDatabase
from tests.servers.postgres import PostgresServer, running_postgres
from tornado_backups.registry.scripted import ScriptedRegistry


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the run."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """An empty PostgreSQL database."""
    database = PostgresDatabase(postgres_server)
    yield database
    postgres_server.recycle_database(database.url)


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SqliteDatabase:
    """A SQLite file that does not exist yet."""
    return SqliteDatabase(tmp_path / "registry.sqlite")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of either kind."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


OpenRegistry = Callable[..., ScriptedRegistry]


@pytest.fixture
def open_registry(database: Database, io_loop: IOLoop) -> Iterator[OpenRegistry]:
    """Open registries on the database, each with its own owner, and close them in the end."""
    opened: list[ScriptedRegistry] = []

    def open_one(owner: str = "") -> ScriptedRegistry:
        registry = database.registry(owner or uuid.uuid4().hex)
        io_loop.run_sync(registry.open)
        opened.append(registry)
        return registry

    yield open_one
    for registry in opened:
        io_loop.run_sync(registry.close)


@pytest.fixture
def registry(open_registry: OpenRegistry) -> ScriptedRegistry:
    """An open registry on an empty database."""
    return open_registry()


@pytest.fixture
def other(open_registry: OpenRegistry, registry: ScriptedRegistry) -> ScriptedRegistry:
    """A second server's registry on the same database."""
    return open_registry()
