"""The memory of logins in the program as it is started: one Argon2 at a time, given back afterwards."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

from tests.system.program import Served, serving

MIB = 2**20
ARGON2_BYTES = 64 * MIB
SLACK_BYTES = 12 * MIB
"""Four connections, their buffers and what the allocator keeps; a second Argon2 would be five times as much."""


def memory_bytes(pid: int, name: str) -> int:
    """Return a line of ``/proc/PID/status``, such as ``VmRSS`` or ``VmHWM``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_the_peak(pid: int) -> None:
    """Let ``VmHWM`` begin again at what is resident now (proc(5), ``clear_refs``)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def log_in(served: Served, password: str) -> None:
    """Log in once more."""
    body = json.dumps({"username": "admin", "password": password}).encode()
    with urllib.request.urlopen(f"{served.url}/api/stable/auth/login", body, timeout=60) as answer:
        assert answer.status == 200


def test_four_logins_at_once_take_the_memory_of_one_and_give_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "quickstart"
    with serving(folder) as served:
        password = (folder / "admin-password").read_text().strip()
        idle_bytes = memory_bytes(served.pid, "VmRSS")
        forget_the_peak(served.pid)
        threads = [threading.Thread(target=log_in, args=(served, password)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        peak_bytes = memory_bytes(served.pid, "VmHWM")
        assert peak_bytes - idle_bytes > ARGON2_BYTES // 2, "the peak was not seen, and proves nothing"
        assert peak_bytes - idle_bytes < ARGON2_BYTES + SLACK_BYTES
        deadline = time.monotonic() + 10
        while memory_bytes(served.pid, "VmRSS") - idle_bytes > SLACK_BYTES:
            assert time.monotonic() < deadline, "the memory was not given back"
            time.sleep(0.05)
