"""The fixture of servers that share one PostgreSQL and one bucket.

A test module asks for it with ``pytest_plugins = ["tests.contract.registry_fixtures",
"tests.contract.store_fixtures", "tests.system.shared_fixtures"]``, and imports what it names from ``shared``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.registry_cases import PostgresDatabase
from tests.contract.store_places import S3Place
from tests.servers.proxy import proxy
from tests.serving import RunningServer, ShiftedClock, Tree
from tests.system.shared import Shared
from tornado_backups.storage import s3
from tornado_backups.storage.s3_limits import S3Limits


@pytest.fixture
def shared(
    postgres_database: PostgresDatabase,
    moto_place: S3Place,
    tmp_path: Path,
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shared]:
    """An empty database and an empty prefix; an ``admin``; collections ``files`` and ``photos``."""
    impatient = functools.partial(
        S3Limits,
        connect_seconds=2,
        stall_seconds=2,
        slowest_bytes_per_second=1 << 40,
        attempts=3,
        first_pause_seconds=0.01,
        longest_pause_seconds=0.05,
    )
    monkeypatch.setattr(s3, "S3Limits", impatient)
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxBackupsCount=3)
    tree.collection("photos", maxBackupsCount=3)
    running: list[RunningServer] = []

    def start_one(**options: object) -> RunningServer:
        # a secret of its own would make every token good for one server only
        given = {"jwt_secret_key": "the same for every server of a test", **options}
        folder = tmp_path / f"server-{len(running)}"
        running.append(RunningServer(folder, tree, ShiftedClock(), **given))
        running[-1].maintain()  # the pass that every server begins with is over
        return running[-1]

    with (
        proxy(postgres_database.server.port) as to_database,
        proxy(moto_place.server.port) as to_storage,
    ):
        yield Shared(postgres_database, moto_place, to_database, to_storage, start_one, tree)
        to_database.fault = to_storage.fault = None
        for server in running:
            server.stop()
