"""The registry on SQLite, the default: one file, no server.

Owns: the constructor that the rest of the program uses.
Does not own: transactions (``scripted``), thread and connection (``sqlite_driver``), the file (``sqlite_file``).
Explained in docs/database.md.
"""

from __future__ import annotations

import os

from tornado_backups.ports import Clock
from tornado_backups.registry.scripted import ScriptedRegistry
from tornado_backups.registry.sqlite_driver import SqliteDriver


class SqliteRegistry(ScriptedRegistry):
    """A ``Registry`` in the file ``path``, made with mode 0600 when it is missing.

    With ``exclusive`` (for ``serve``) :meth:`open` refuses a file that another server has open, and frees all leases,
    since nobody else can be alive. Commands that run beside a server leave it False. Leases are judged by ``clock``.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Clock, owner: str, exclusive: bool = False) -> None:
        super().__init__(SqliteDriver(os.path.abspath(path), clock, exclusive), owner)
