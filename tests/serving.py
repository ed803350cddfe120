"""A whole server inside the test process, on a thread of its own, over a configuration tree made by the test.

Everything a test needs to speak to it as a client: plain `http.client`, raw sockets, and the wiring itself for what
cannot be seen from outside. The clock may be shifted; passwords are hashed cheaply so that logins cost nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from argon2 import PasswordHasher

from tests.secrets_watch import watch
from tornado_backups.app import Server
from tornado_backups.config.settings import load_settings

T = TypeVar("T")
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=16, salt_len=8)
PASSWORD = "a password for tests"
PASSWORD_HASH = CHEAP.hash(PASSWORD)
API = "backups.riotkit.org/v1alpha1"
REPOSITORY = "/api/stable/repository/collection"


def message(payload_bytes: int = 100, filler: bytes = b"x") -> bytes:
    """Return a well-formed binary OpenPGP message: a symmetric session key packet and one encrypted-data packet."""
    session_key = bytes([4, 9, 3, 8]) + b"saltsalt" + bytes([96])
    body = b"\x01" + (filler * (payload_bytes // len(filler) + 1))[:payload_bytes]
    length = b"\xff" + len(body).to_bytes(4, "big")
    return bytes([0xC3, len(session_key)]) + session_key + bytes([0xD2]) + length + body


class ShiftedClock:
    """The machine's clock, shifted as the test says."""

    def __init__(self) -> None:
        self.shift = timedelta(0)
        self._monotonic_shift = 0.0

    def now(self) -> datetime:
        """Return the shifted time in UTC."""
        return datetime.now(UTC) + self.shift

    def monotonic(self) -> float:
        """Return seconds that only rise; shifting forward moves them too."""
        return time.monotonic() + self._monotonic_shift

    def forward(self, by: timedelta) -> None:
        """Let time pass."""
        self.shift += by
        self._monotonic_shift += by.total_seconds()


class Tree:
    """A configuration tree that a test writes while the server runs."""

    def __init__(self, root: Path, namespace: str = "backup-repository") -> None:
        self.root = root
        self.namespace = namespace
        for kind in ("backupusers", "backupcollections", "secrets"):
            self.path(kind, "x").parent.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str, name: str) -> Path:
        """Return where an object's file is."""
        group = Path("v1") if kind == "secrets" else Path(API)
        return self.root / self.namespace / group / kind / f"{name}.yaml"

    def user(self, name: str, **spec: Any) -> None:
        """Write a user whose password is ``PASSWORD`` unless the spec says otherwise."""
        spec = {"email": f"{name}@example.org", "password": PASSWORD_HASH, "roles": [], **spec}
        self._write("backupusers", name, {"apiVersion": API, "kind": "BackupUser", "spec": spec})

    def collection(self, name: str, **spec: Any) -> None:
        """Write a collection of five versions without size limits unless the spec says otherwise."""
        spec = {"filenameTemplate": f"{name}-${{version}}.gpg", "maxBackupsCount": 5, **spec}
        self._write("backupcollections", name, {"apiVersion": API, "kind": "BackupCollection", "spec": spec})

    def secret(self, name: str, **entries: str) -> None:
        """Write a secret."""
        self._write("secrets", name, {"apiVersion": "v1", "kind": "Secret", "data": entries})

    def _write(self, kind: str, name: str, document: dict[str, Any]) -> None:
        document["metadata"] = {"name": name}
        path = self.path(kind, name)
        temporary = path.with_name(f".{name}.tmp")
        temporary.write_text(yaml.safe_dump(document))
        temporary.rename(path)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def data(self) -> dict[str, Any]:
        """The ``data`` of the body."""
        return self.json["data"]


class RunningServer:
    """A started server; ``stop`` must be called."""

    def __init__(self, folder: Path, tree: Tree, clock: ShiftedClock | None = None, **options: object) -> None:
        self.tree = tree
        self.clock = clock or ShiftedClock()
        self.data_dir = folder / "data"
        given = {
            "listen": "127.0.0.1:0",
            "provider": "filesystem",
            "data_dir": self.data_dir,
            "config_local_path": tree.root,
            "namespace": tree.namespace,
            "rate_default_limit": 0,
            "rate_auth_limit": 0,
            "rate_collection_health_limit": 0,
            "rate_server_health_limit": 0,
            "chunked_commit_grace": "300ms",
            "maintenance_interval": "1h",
            **options,
        }
        switches = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
        self.settings = load_settings(switches, {})
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        self._started.wait(30)
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to the test's thread
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = Server(self.settings, self.clock)
        self._stop = asyncio.Event()
        try:
            await self.server.start()
            address = self.server.listening_on[0]
            self.port = 0 if address.startswith("unix:") else int(address.rpartition(":")[2])
            self._tell_secrets()
            self._started.set()
            await self._stop.wait()
            await self.server.stop()
        finally:
            await self.server.close()

    def _tell_secrets(self) -> None:
        """Let the watch over the logs know what must not stand in them."""
        settings, generated = self.settings, self.data_dir / "jwt-secret"
        watch.know(PASSWORD, PASSWORD_HASH, settings.jwt_secret_key, settings.health_check_key)
        watch.know(settings.db_password, settings.alert_webhook_secret)
        if generated.exists():
            watch.know(generated.read_text().strip())

    def stop(self) -> None:
        """Stop gracefully, and raise what went wrong in the server's thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(60)
        if self._failure is not None:
            raise self._failure

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine on the server's loop and return its result."""

        async def call() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def maintain(self) -> None:
        """Run one whole maintenance pass, after the one that runs by itself at the start."""

        async def run_pass() -> None:
            maintenance = self.server.maintenance
            if maintenance._running is not None:
                await asyncio.wait([maintenance._running])
            await maintenance.run_pass()

        self.run(run_pass)

    def raw(self, timeout: float = 20.0) -> socket.socket:
        """Return a connected socket."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Send one request; a dict is sent as JSON."""
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if isinstance(body, dict):
            body = json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def login(self, username: str, password: str = PASSWORD, **more: Any) -> str:
        """Return a token."""
        body = {"username": username, "password": password, **more}
        answer = self.request("POST", "/api/stable/auth/login", body)
        assert answer.status == 200, answer.body
        return str(answer.data["token"])

    def upload(self, collection: str, token: str, body: Any = None, **headers: str) -> Answer:
        """Upload a message (a small one by default)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", f"{REPOSITORY}/{collection}/version", body or message(), token, named)

    def numbers(self, collection: str, token: str) -> list[int]:
        """Return the numbers of a collection's versions."""
        answer = self.request("GET", f"{REPOSITORY}/{collection}/version", token=token)
        return [version["versionNumber"] for version in answer.data["versions"]]

    def objects(self) -> list[str]:
        """Return every file below the local object folder, relative: objects and debris."""
        root = self.data_dir / "objects"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
