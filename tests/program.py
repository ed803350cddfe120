"""The installed program as a process of its own: what only a process can show (signals, memory, death)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tests.serving import Answer, RunningServer, Tree

QUIET = {
    "rate_default_limit": 0,
    "rate_auth_limit": 0,
    "rate_collection_health_limit": 0,
    "rate_server_health_limit": 0,
    "maintenance_interval": "1h",
    "chunked_commit_grace": "300ms",
}
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class Program:
    """`python -m tornado_backups serve` on a free port; its log is kept in ``log``."""

    def __init__(
        self, folder: Path, tree: Tree, environment: Mapping[str, str] | None = None, **options: object
    ) -> None:
        self.data_dir = folder / "data"
        given = {
            "listen": "127.0.0.1:0",
            "provider": "filesystem",
            "data_dir": self.data_dir,
            "config_local_path": tree.root,
            "namespace": tree.namespace,
            **QUIET,
            **options,
        }
        switches = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BR_", "PG"))}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "tornado_backups", "serve", *switches],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**inherited, **(environment or {})},
            cwd=Path(__file__).parent.parent,
        )
        self.lines: list[str] = []
        self.port = 0
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = _LISTENING.search(line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return "".join(self.lines)

    def wait_until_ready(self, seconds: float = 30) -> Program:
        """Wait until it listens; fails with its log when it ends instead."""
        self._listening.wait(seconds)
        assert self.port, f"the program does not listen:\n{self.log}"
        return self

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end and return the exit status."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_for_line(self, text: str, seconds: float = 20) -> None:
        """Wait until its log holds ``text``."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log}"
            time.sleep(0.02)

    def memory_kib(self, which: str = "VmRSS") -> int:
        """Return a figure of /proc/PID/status: ``VmRSS`` is now, ``VmHWM`` the most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(which + ":"))

    # what a client does is the same whether the server is a thread or a process
    raw = RunningServer.raw
    request = RunningServer.request
    login = RunningServer.login
    upload = RunningServer.upload
    numbers = RunningServer.numbers
    objects = RunningServer.objects


__all__ = ["Answer", "Program"]
