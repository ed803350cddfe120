"""This server as the thing measured: its configuration, its start, its two kinds of set-up.

Owns: a configuration tree and the switches of a measured server. Does not own: what is measured.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.client import Answer, Connection
from benchmarks.processes import MemoryLimit, Process

API = "backups.riotkit.org/v1alpha1"
REPOSITORY = "/api/stable/repository/collection"
PASSWORD = "a password for benchmarks"


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a server keeps things: switches and variables beyond the common ones."""

    name: str
    switches: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


LOCAL = Setup("SQLite + local files")


class Ours:
    """A running server with an administrator ``admin`` and collections as asked for."""

    def __init__(self, folder: Path, setup: Setup = LOCAL, cgroup: MemoryLimit | None = None, **more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._write_tree()
        switches = {
            "listen": f"127.0.0.1:{self.port}",
            "provider": "filesystem",
            "data-dir": str(folder / "data"),
            "config-local-path": str(folder / "config"),
            "rate-default-limit": "0",
            "rate-auth-limit": "0",
            "rate-server-health-limit": "0",
            "maintenance-interval": "1h",
            "log-level": "warning",
            **setup.switches,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        command = [sys.executable, "-m", "tornado_backups", "serve"]
        self.process = Process(
            [*command, *(f"--{name}={value}" for name, value in switches.items())],
            folder / "log",
            setup.environment,
            cgroup,
        )

    def wait(self) -> Ours:
        """Wait until it answers; ``started_seconds`` tells how long that took from the start of the process."""
        self.process.wait_for_port(self.port)
        with Connection.to(self.port) as connection:
            connection.request("GET", "/health").data()
        self.started_seconds = time.monotonic() - self.process.started_at
        return self

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, folder: Path, setup: Setup = LOCAL, cgroup: MemoryLimit | None = None, **more: str
    ) -> Iterator[Ours]:
        """Run one for a block."""
        server = cls(folder, setup, cgroup, **more)
        try:
            yield server.wait()
        finally:
            server.process.stop()

    def _write_tree(self) -> None:
        from argon2.low_level import Type, hash_secret

        hashed = hash_secret(PASSWORD.encode(), b"0123456789abcdef", 1, 64 * 1024, 4, 32, Type.ID).decode()
        self.write("backupusers", "admin", {"email": "a@example.org", "password": hashed, "roles": ["systemAdmin"]})
        for number in range(8):
            self.collection(f"c{number}", maxBackupsCount=1000)
        self.collection("latest", maxBackupsCount=1)

    def collection(self, name: str, **spec: Any) -> None:
        """Write a collection."""
        self.write("backupcollections", name, {"filenameTemplate": f"{name}-${{version}}.gpg", **spec})

    def write(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Write one object of the configuration tree."""
        path = self.folder / "config" / "backup-repository" / API / kind / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"backupusers": "BackupUser", "backupcollections": "BackupCollection"}
        document = {"apiVersion": API, "kind": kinds[kind], "metadata": {"name": name}, "spec": spec}
        path.write_text(yaml.safe_dump(document))

    def login(self) -> dict[str, str]:
        """Log in and return the headers of a session."""
        body = json.dumps({"username": "admin", "password": PASSWORD}).encode()
        with Connection.to(self.port) as connection:
            answer = connection.request("POST", "/api/stable/auth/login", {"Content-Type": "application/json"}, body)
        return {"Authorization": f"Bearer {answer.data()['token']}"}

    def upload(self, file: Path, headers: Mapping[str, str], collection: str = "latest") -> Answer:
        """Upload a file; raises unless it was stored."""
        with Connection.to(self.port) as connection:
            answer = connection.send_file("POST", version_path(collection), file, headers)
        answer.data()
        return answer


def version_path(collection: str, which: str = "") -> str:
    """Return the path of a collection's versions, or of one of them."""
    return f"{REPOSITORY}/{collection}/version" + (f"/{which}" if which else "")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
