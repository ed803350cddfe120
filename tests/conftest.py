"""What every test may rely on: pytest-tornado on any Python, a fresh event loop per test."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import packaging.version
import pytest
from tornado.ioloop import IOLoop

from tests.secrets_watch import watch
from tests.serving import RunningServer, ShiftedClock, Tree

try:
    import pkg_resources  # noqa: F401
except ImportError:  # gone from current setuptools, and all that pytest-tornado wants of it is parse_version
    stand_in = types.ModuleType("pkg_resources")
    stand_in.parse_version = packaging.version.parse  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in

pytest_plugins = ["pytest_tornado.plugin"]


def pytest_configure() -> None:
    """Read every log record of the run for secrets (``secrets_watch``)."""
    watch.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a secret was logged outside any test."""
    watch.remove()
    for leak in watch.take():
        print(f"\nlogged outside any test: {leak}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def no_secret_in_any_log() -> Iterator[None]:
    """Fail a test while which a token, password, hash or code was logged."""
    yield
    leaks = watch.take()
    assert not leaks, leaks


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A fresh asyncio loop, closed afterwards (pytest-tornado's own fixture warns on current Pythons)."""
    asyncio_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(asyncio_loop)
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=False)
    yield loop
    asyncio.set_event_loop(None)
    loop.close(all_fds=False)


@pytest.fixture
def clock() -> ShiftedClock:
    """The clock of the servers of this test."""
    return ShiftedClock()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty configuration tree."""
    return Tree(tmp_path / "config")


@pytest.fixture
def start(tmp_path: Path, tree: Tree, clock: ShiftedClock) -> Iterator[Callable[..., RunningServer]]:
    """Start servers with options (``start(append_only="true")``); all are stopped after the test."""
    running: list[RunningServer] = []

    def start_one(**options: object) -> RunningServer:
        running.append(RunningServer(tmp_path, tree, clock, **options))
        return running[-1]

    yield start_one
    for server in running:
        server.stop()


@pytest.fixture
def server(tree: Tree, start: Callable[..., RunningServer]) -> RunningServer:
    """A server with an ``admin``, an ``uploader``, a ``downloader`` and one collection ``files``."""
    tree.user("admin", roles=["systemAdmin"])
    tree.user("uploader")
    tree.user("downloader")
    access = [
        {"userName": "uploader", "roles": ["backupUploader"]},
        {"userName": "downloader", "roles": ["backupDownloader"]},
    ]
    tree.collection("files", accessControl=access)
    return start()
