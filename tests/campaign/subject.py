"""The server under fire: the program as a process of its own, and what it must look like before and after.

Owns: starting it with short timeouts, its descriptors, memory and processor time, and asking whether it still serves.
Does not own: what is thrown at it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Self

from tests.campaign.report import Report
from tests.program import Program
from tests.serving import REPOSITORY, Tree, message

UPLOAD = f"{REPOSITORY}/files/version"
IDLE_SECONDS = 1.0
CLOSED_SECONDS = 12.0
"""Idle timeout, drain of a refused body (5 s of silence) and a slow machine: by then every connection has ended."""

_TICKS = os.sysconf("SC_CLK_TCK")
_BAD = ("Traceback", " ERROR ", "Exception", "never retrieved", "ResourceWarning")


class Subject:
    """A running program with an ``admin``, a ``downloader`` and a collection ``files`` that holds version 1."""

    def __init__(self, folder: Path, report: Report, **options: object) -> None:
        self.report = report
        self.tree = Tree(folder / "config")
        self.tree.user("admin", roles=["systemAdmin"])
        self.tree.user("downloader", roles=["backupDownloader"])
        self.tree.collection("files", maxBackupsCount=3)
        given = {"idle_timeout": f"{IDLE_SECONDS:g}s", "chunked_commit_grace": "0s", **options}
        self.program = Program(folder, self.tree, **given).wait_until_ready()
        self.port = self.program.port
        self.token = self.program.login("admin")
        self.body = message(200)
        for _ in range(4):  # with a rotation, so that every lazily opened descriptor is open by now
            assert self.program.upload("files", self.token, self.body).status == 200
        self.allowed_errors: tuple[str, ...] = ()
        self.descriptors_before = self.settled_descriptors(None)
        self.memory_before = self.program.memory_kib()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()

    def descriptors(self) -> int:
        """Return how many the process has open."""
        return len(os.listdir(f"/proc/{self.program.process.pid}/fd"))

    def settled_descriptors(self, goal: int | None, seconds: float = CLOSED_SECONDS) -> int:
        """Wait until there are no more than ``goal`` (None: until the number stays the same) and return them."""
        deadline = time.monotonic() + seconds
        found = self.descriptors()
        while time.monotonic() < deadline:
            time.sleep(0.1)
            before, found = found, self.descriptors()
            if found <= goal if goal is not None else found == before:
                break
        return found

    def processor_seconds(self) -> float:
        """Return the processor time used so far."""
        fields = Path(f"/proc/{self.program.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def serves(self, within_seconds: float = 5.0) -> float:
        """Ask as another client; return the seconds it took, and note a finding when there was no answer."""
        begun = time.monotonic()
        try:
            status = self.program.request("GET", "/health", timeout=within_seconds).status
        except OSError as error:
            self.report.finding(f"the server does not serve others: {error!r}")
            return within_seconds
        self.report.check(status == 200, f"/health answered {status}")
        return time.monotonic() - begun

    def upload_head(self, *lines: str, token: str | None = None, method: str = "POST", path: str = UPLOAD) -> bytes:
        """Return the head of an upload."""
        fixed = (
            f"{method} {path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.token if token is None else token}",
        )
        return "\r\n".join((*fixed, *lines, "", "")).encode()

    def settle(self, what: str, memory_kib: int = 24 * 1024) -> None:
        """Check that the server is as it was: descriptors, memory, no debris, no lock, nothing bad in its log."""
        report, program = self.report, self.program
        if program.process.poll() is not None:
            report.finding(f"after {what} the server has ended: {program.log[-3000:]}")
            return
        left = self.settled_descriptors(self.descriptors_before)
        report.check(left <= self.descriptors_before, f"after {what} {left - self.descriptors_before} descriptors stay")
        more = program.memory_kib() - self.memory_before
        report.check(more < memory_kib, f"after {what} the server needs {more} KiB more")
        answer = program.upload("files", self.token, self.body)
        report.check(answer.status == 200, f"after {what} an upload is answered {answer.status} {answer.body!r}")
        objects = self._settled_objects()
        kept = len(program.numbers("files", self.token))
        report.check(kept == 3 == len(objects), f"after {what} {kept} versions have the files {objects}")
        bad = [line for line in program.lines if any(word in line for word in _BAD)]
        bad = [line for line in bad if not any(word in line for word in self.allowed_errors)]
        report.check(not bad, f"after {what} the log says {''.join(bad[:3])} … {program.log[-1500:] if bad else ''}")
        program.lines.clear()
        report.note(f"after {what}: descriptors {self.descriptors_before} -> {left}, memory {more:+d} KiB")

    def _settled_objects(self) -> list[str]:
        """Return the files of the collection, once removals behind the answer of an upload are over."""
        deadline = time.monotonic() + 5
        while True:
            with contextlib.suppress(FileNotFoundError):  # removed while the folder is read
                found = [name for name in self.program.objects() if name.startswith("files/")]
                if len(found) == 3 or time.monotonic() > deadline:
                    return found
            time.sleep(0.05)
