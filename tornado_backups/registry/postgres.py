"""The registry on PostgreSQL, for several servers on one storage.

Owns: the constructor that the rest of the program uses.
Does not own: transactions (``scripted``), connections (``postgres_driver``, ``postgres_pool``), the URL
(``postgres_url``). Explained in docs/database.md.
"""

from __future__ import annotations

from tornado_backups.ports import Clock
from tornado_backups.registry.scripted import ScriptedRegistry


class PostgresRegistry(ScriptedRegistry):
    """A ``Registry`` in the database that ``url`` names, libpq's form with all its parameters.

    Raises ``UsageError`` for a URL that libpq does not understand; connects in :meth:`open` only. Leases are judged by
    the database server's clock, so that all servers agree; ``clock`` only tells how long a connection was idle.
    """

    def __init__(self, url: str, owner: str, clock: Clock) -> None:
        # psycopg2 takes 7 MiB, and who uses SQLite shall not pay for it
        from tornado_backups.registry.postgres_driver import PostgresDriver

        super().__init__(PostgresDriver(url, clock), owner)
