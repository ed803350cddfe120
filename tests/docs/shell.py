"""Runs the shell blocks of one page as a reader would: a real bash, the program, curl and gpg, one folder.

Owns: the shell that keeps its variables from block to block, the server beside it, the comparison with what a page
says is printed. Does not own: which blocks run (``tests/docs/pages.py``).

``127.0.0.1:8080`` in a block stands for wherever the page's server listens.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.docs.pages import ROOT, Block

PORT_IN_DOCS = "127.0.0.1:8080"
BLOCK_SECONDS = 60
TIMED_OUT = 124
"""What timeout(1) says."""
SERVER = "tornado-backups quickstart --dir tornado-backups-data"
ANY_PORT = "127.0.0.1:0"
HASTE = {
    "BR_RATE_DEFAULT_LIMIT": "0",
    "BR_RATE_AUTH_LIMIT": "0",
    "BR_RATE_COLLECTION_HEALTH_LIMIT": "0",
    "BR_RATE_SERVER_HEALTH_LIMIT": "0",
    "BR_CHUNKED_COMMIT_GRACE": "100ms",
}
"""Settings that only spare a test its waiting."""

_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")


class Reader:
    """The person who follows a page: a folder of their own, a shell, and perhaps a server; ``close`` must be called."""

    def __init__(self, more: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tb-docs-"))
        self._kept = self.folder / ".blocks"
        self._kept.mkdir()
        self.environment = self._make_environment(more or {})
        self._make_home()
        self._address = PORT_IN_DOCS
        self._server: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
        )

    def _make_environment(self, more: dict[str, str]) -> dict[str, str]:
        programs = self.folder / ".bin"
        programs.mkdir()
        for name, call in (("tornado-backups", "main"), ("backup-repository", "go_main")):
            program = programs / name
            program.write_text(
                f"#!{sys.executable}\nimport sys\nfrom tornado_backups.cli import {call}\nsys.exit({call}())\n"
            )
            program.chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BR_", "PG", "AWS_"))}
        first = [str(programs), more.get("PATH", ""), str(Path(sys.executable).parent), inherited["PATH"]]
        own = {"HOME": str(self.folder), "PATH": os.pathsep.join(filter(None, first)), "PYTHONPATH": str(ROOT)}
        return {**inherited, "LC_ALL": "C.UTF-8", **HASTE, **more, **own}

    def _make_home(self) -> None:
        """Let gpg ask nobody for a passphrase, whatever the page leaves to its questions."""
        gnupg = self.folder / ".gnupg"
        gnupg.mkdir(mode=0o700)
        (gnupg / "passphrase").write_text("correct horse battery staple\n")
        settings = ("batch", "pinentry-mode loopback", f"passphrase-file {gnupg}/passphrase", "s2k-count 1024")
        (gnupg / "gpg.conf").write_text("\n".join(settings) + "\n")
        subprocess.run(["gpg", "--list-keys"], env=self.environment, check=True, capture_output=True)

    def serve(self, command: str = SERVER) -> None:
        """Start the page's server, in place of the one that runs, and wait until it listens."""
        self._stop_server()
        self._log.clear()
        listen = ANY_PORT if self._address == PORT_IN_DOCS else self._address
        self._server = subprocess.Popen(
            ["bash", "-c", f"exec {command.replace(PORT_IN_DOCS, listen).strip()}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**self.environment, "BR_LISTEN": listen},
        )
        listening = threading.Event()
        self._log_reader = threading.Thread(target=self._read_log, args=(self._server, listening), daemon=True)
        self._log_reader.start()
        listening.wait(30)
        found = _LISTENING.search(self.log)
        assert found, f"the server does not listen:\n{self.log}"
        self._address = found[1]

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
            self._log_reader.join(10)

    def _read_log(self, server: subprocess.Popen[str], listening: threading.Event) -> None:
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                self._log.append(line)
                if _LISTENING.search(line):
                    listening.set()
        listening.set()

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return "".join(self._log)

    def run(self, block: Block) -> str:
        """Run a block to its end and return what it printed; fails when its exit status is another than promised."""
        script, output = self._kept / "block.sh", self._kept / "output"
        script.write_text(f"set -euo pipefail\n{block.text.replace(PORT_IN_DOCS, self._address)}")
        call = f"source {script} < /dev/null > {output} 2>&1"
        status = self._tell(f"({call})" if block.status else call)
        printed = output.read_text(encoding="utf-8", errors="replace").replace(self._address, PORT_IN_DOCS)
        logs = [self.log, *(path.read_text() for path in self.folder.glob("*.log"))]
        assert status == block.status, "\n".join([f"{block.place} ended with {status}:", printed, "-- logs --", *logs])
        return printed

    def _tell(self, call: str) -> int:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # Without -e for a moment: a block that is meant to fail must not end the shell.
        self._shell.stdin.write(f"set +e; {call}; echo $?\n" if call.startswith("(") else f"{call}; echo $?\n")
        self._shell.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            if not selector.select(BLOCK_SECONDS):
                return TIMED_OUT
        answer = self._shell.stdout.readline()
        return int(answer) if answer else self._shell.wait(5)

    def close(self) -> None:
        """End the shell, whatever it left in the background, and the server."""
        with contextlib.suppress(ProcessLookupError):  # a block that failed ended the shell
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()
        self._stop_server()
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def as_shown(shown: str, printed: str) -> bool:
    """Tell whether a page shows what was printed; ``…`` stands for anything, also for many lines."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
