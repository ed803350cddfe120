"""Fixtures of the object store's contract suite: an empty place of every kind, and stores on it.

A test module asks for them with ``pytest_plugins = ["tests.contract.store_fixtures"]``. One moto and one rclone serve
the whole run; every test has a prefix of its own in their bucket.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.contract.store_places import LocalPlace, Place, S3Place, enter
from tests.servers.s3 import S3Server, moto, rclone
from tornado_backups.ports import ObjectStore

_prefixes = (f"test-{number}/" for number in itertools.count(1))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """One moto for the run; it checks credentials."""
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where rclone keeps its buckets as folders: in memory where there is such a place, for speed."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="rclone-", dir=base) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def rclone_server(rclone_folder: Path) -> Iterator[S3Server]:
    """One rclone for the run."""
    with rclone(rclone_folder) as server:
        yield server


@pytest.fixture
def local_place(tmp_path: Path) -> LocalPlace:
    """A folder that does not exist yet."""
    return LocalPlace(tmp_path / "objects")


@pytest.fixture
def moto_place(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Place:
    """A prefix of its own in moto's bucket."""
    enter(moto_server, monkeypatch)
    return S3Place(moto_server, next(_prefixes))


@pytest.fixture
def rclone_place(rclone_server: S3Server, rclone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> S3Place:
    """A prefix of its own in rclone's bucket, whose folder shows what is left behind."""
    enter(rclone_server, monkeypatch)
    return S3Place(rclone_server, next(_prefixes), rclone_folder / rclone_server.bucket)


@pytest.fixture(params=["local", "moto", "rclone"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place of every kind."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def store(place: Place, io_loop: IOLoop) -> Iterator[ObjectStore]:
    """An open store on the place."""
    opened = place.store()
    io_loop.run_sync(opened.open)
    yield opened
    io_loop.run_sync(opened.close)
