"""The fixture of a Go server's database; needs those of ``tests.contract.registry_fixtures``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer
from tests.services.go_server import GoDatabaseMaker


@pytest.fixture
def go_database(postgres_server: PostgresServer) -> Iterator[GoDatabaseMaker]:
    """An empty database of the Go server."""
    made = GoDatabaseMaker(postgres_server)
    yield made
    postgres_server.recycle_database(made.url)
