"""A fresh, a rolled-back or a second database on the same storage destroys nothing; it says what it does not know."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.registry_cases import PostgresDatabase
from tests.servers.postgres import PostgresServer
from tests.serving import REPOSITORY, RunningServer, Tree, message
from tests.system.shared import Shared

pytest_plugins = [
    "tests.contract.registry_fixtures",
    "tests.contract.store_fixtures",
    "tests.system.shared_fixtures",
]

LOGGER = "tornado_backups.services.maintenance"


@pytest.fixture
def begin(start: Callable[..., RunningServer], tree: Tree) -> Callable[[], RunningServer]:
    """Start a server with an admin and a collection of three versions."""
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxBackupsCount=3)
    return start


def unknown(server: RunningServer) -> float:
    """Return the metric."""
    line = next(
        line
        for line in server.request("GET", "/metrics").body.decode().splitlines()
        if line.startswith("tornado_backups_storage_unknown_objects ")
    )
    return float(line.split()[1])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about unknown objects."""
    return [record.getMessage() for record in caplog.records if "no row of the registry names" in record.getMessage()]


def test_a_fresh_database_leaves_every_object_counts_it_and_names_it_once(
    begin: Callable[[], RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = begin()
    token = server.login("admin")
    for _ in range(3):
        server.upload("files", token)
    before = server.objects()
    server.stop()
    for path in server.data_dir.glob("*.sqlite*"):
        path.unlink()
    assert not list(server.data_dir.glob("*.sqlite*"))
    caplog.set_level(logging.WARNING, LOGGER)
    again = begin()
    for _ in range(3):
        again.maintain()
    assert again.objects() == before
    assert unknown(again) == 3
    assert len(said(caplog)) == 3
    assert all(any(key in line for line in said(caplog)) for key in before)
    token = again.login("admin")
    for _ in range(5):  # rotation, too, removes only what the registry knows
        assert again.upload("files", token).status == 200
    again.maintain()
    assert set(before) < set(again.objects())
    assert len(again.objects()) == 3 + 3


def test_a_rolled_back_database_leaves_what_it_no_longer_knows_and_shows_what_is_gone(
    begin: Callable[[], RunningServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = begin()
    token = server.login("admin")
    for _ in range(2):
        server.upload("files", token)
    server.stop()
    backup = tmp_path / "last-week"
    shutil.copytree(server.data_dir, backup, ignore=shutil.ignore_patterns("objects"))
    server = begin()
    for _ in range(2):
        assert server.upload("files", token).status == 200
    assert server.numbers("files", token) == [2, 3, 4]
    server.stop()
    before = server.objects()
    for path in server.data_dir.glob("*.sqlite*"):
        path.unlink()
    shutil.copytree(backup, server.data_dir, dirs_exist_ok=True)
    caplog.set_level(logging.WARNING, LOGGER)
    again = begin()
    for _ in range(2):
        again.maintain()
    assert again.objects() == before
    assert again.numbers("files", token) == [1, 2]
    assert unknown(again) == len(said(caplog)) == 2
    assert again.request("GET", f"{REPOSITORY}/files/version/2", token=token).body == message()
    assert again.upload("files", token).status == 200  # takes number 3 again, beside the other one's object
    again.maintain()
    assert set(before) < set(again.objects())


def test_a_second_database_on_the_same_bucket_touches_nothing_of_the_first(
    shared: Shared, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    first = shared.start()
    token = first.login("admin")
    for _ in range(3):
        first.upload("files", token)
    running = first.raw()
    large = message(12_000_000)
    head = f"POST {REPOSITORY}/photos/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    running.sendall(f"{head}Content-Length: {len(large)}\r\n\r\n".encode() + large[:-1000])
    caplog.set_level(logging.WARNING, LOGGER)
    second = PostgresDatabase(postgres_server)
    try:
        stranger = shared.start(db_url=second.url)
        own = stranger.login("admin")
        stranger.maintain()
        assert unknown(stranger) == len(said(caplog)) == 3
        for _ in range(5):
            assert stranger.upload("files", own).status == 200
        stranger.maintain()
        running.sendall(large[-1000:])
        assert b" 200 " in running.recv(65536).partition(b"\r\n")[0]
        assert first.numbers("files", token) == [1, 2, 3]
        for number in (1, 2, 3):
            assert first.request("GET", f"{REPOSITORY}/files/version/{number}", token=token).body == message()
        assert first.request("GET", f"{REPOSITORY}/photos/version/1", token=token).body == large
        first.maintain()
        assert unknown(first) == 3
        assert len(shared.objects()) == 3 + 1 + 3
        stranger.stop()
    finally:
        running.close()
        postgres_server.recycle_database(second.url)
