"""The program as a person runs it: one command and its answer, or a server for as long as a block runs.

Owns: a clean environment, finding the port, a few requests. Does not own: what is tested with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.secrets_watch import watch
from tornado_backups.cli import main

SECONDS = 60
COLLECTION = "/api/stable/repository/collection/example"


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the program's own variables, and with ``variables``."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BR_", "PG"))} | variables


def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tornado_backups", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment(**variables),
        check=False,
    )
    watch.read(done.stderr, f"what {arguments} said")
    return done


def run_here(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command in this process, which is far faster; its stdin is empty."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(arguments)
    watch.read(err.getvalue(), f"what {arguments} said")
    return subprocess.CompletedProcess(list(arguments), status, out.getvalue(), err.getvalue())


class Served:
    """A running quickstart server, and its admin's requests."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        self.url = url
        self.pid = pid
        password = (folder / "admin-password").read_text("utf-8").strip()
        body = json.dumps({"username": "admin", "password": password}).encode()
        watch.know(password)
        self.token = json.loads(self._open("/api/stable/auth/login", "POST", body))["data"]["token"]

    def request(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        """Return the ``data`` of a JSON answer."""
        return json.loads(self._open(COLLECTION + path, method, body))["data"]

    def download(self, path: str) -> bytes:
        """Return a body as it is."""
        return self._open(COLLECTION + path, "GET", None)

    def _open(self, path: str, method: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/octet-stream"}
        if hasattr(self, "token"):
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found: bytes = answer.read()
            return found


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Run ``quickstart`` on a folder, on a port of the kernel's choice, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tornado_backups", "quickstart", "--dir", str(folder), "--listen", "127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(BR_RATE_DEFAULT_LIMIT="0"),
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"listening on (\S+)", line):
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(said)}")
        drain = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
        drain.start()
        yield Served(f"http://{found[1]}", folder, process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        drain.join(SECONDS)
        watch.read("".join(said), "the server's log")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(SECONDS)
        process.stderr.close()
