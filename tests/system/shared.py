"""Servers that share one PostgreSQL and one bucket, each way to them behind a proxy that can misbehave.

The fixtures that hand these out are in ``shared_fixtures``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.registry_cases import PostgresDatabase
from tests.contract.store_places import S3Place
from tests.servers.proxy import Proxy
from tests.serving import RunningServer, Tree


@dataclass
class Shared:
    """One database and one bucket: where they are, the way to them, and what lies there."""

    database: PostgresDatabase
    place: S3Place
    to_database: Proxy
    to_storage: Proxy
    server_of: Callable[..., RunningServer]
    tree: Tree

    def options(self, through_proxies: bool = False) -> dict[str, object]:
        """Return the options of a server on both."""
        if not through_proxies:
            return {"db_url": self.database.url, "storage_url": self.place.server.url(prefix=self.place.prefix)}
        name = self.database.url.rpartition("/")[2]
        return {
            "db_url": f"postgresql://postgres@127.0.0.1:{self.to_database.port}/{name}",
            "storage_url": self.place.server.url(self.to_storage.port, prefix=self.place.prefix),
        }

    def start(self, **options: object) -> RunningServer:
        """Start a server straight on both; it is stopped after the test."""
        return self.server_of(**{**self.options(), **options})

    def start_behind_proxies(self, **options: object) -> RunningServer:
        """Start a server that reaches both through the proxies."""
        return self.server_of(**{**self.options(through_proxies=True), **options})

    def objects(self) -> list[str]:
        """Return all that lies in the bucket: objects and unfinished uploads."""
        return [name for name in self.place.left() if not name.startswith(".")]

    def count(self, sql: str) -> int:
        """Return the figure that a query answers."""
        return int(self.database.execute(sql)[0][0])


def wait_until(is_so: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something is so; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
