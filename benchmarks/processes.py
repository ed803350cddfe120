"""Processes under measurement: starting, stopping, memory, processor time, a hard limit on memory.

Owns: what /proc and cgroups say about a process and its children.
Does not own: which programs are measured (``ours``, ``peers``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory")
_CGROUP_V2 = Path("/sys/fs/cgroup")


class Missing(Exception):
    """Something that a measurement needs is not on this machine; the text says what, for the report."""


class Process:
    """A server process with its log in a file; stopped by :meth:`stop`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        cgroup: MemoryLimit | None = None,
    ) -> None:
        self.log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                preexec_fn=cgroup.enter if cgroup else None,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def wait_for_port(self, port: int, seconds: float = 30) -> None:
        """Return when something accepts on ``port``; raises ``Missing`` with the log's end when the process ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._popen.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.005)
        raise Missing(f"it did not start: {self.log.read_text(errors='replace')[-500:]}")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """Return user and system time of the process and of all below it that still run."""
        return sum(_cpu_seconds(pid) for pid in [self.pid, *_children(self.pid)])

    def rss_mib(self) -> float:
        """Return resident memory of the process and of all below it, in MiB (shared pages counted in each)."""
        return sum(_rss_bytes(pid) for pid in [self.pid, *_children(self.pid)]) / MIB

    def stop(self) -> None:
        """Ask it to end, then kill it with all that it started."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_children(int(child))]
    return found


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _rss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class PeakMemory:
    """Samples a process's memory in a thread while the block runs; ``peak_mib`` is the most that was seen."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self.before_mib = 0.0
        self.peak_mib = 0.0

    def __enter__(self) -> PeakMemory:
        """Begin sampling."""
        self.before_mib = self.peak_mib = self._process.rss_mib()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_mib = max(self.peak_mib, self._process.rss_mib())

    @property
    def growth_mib(self) -> float:
        """How much more it was at the most than before."""
        return self.peak_mib - self.before_mib


class MemoryLimit:
    """A cgroup (version 1 or 2) with a hard limit; everything counts: heap, page cache, kernel buffers."""

    def __init__(self, folder: Path, limit_file: str) -> None:
        self.folder = folder
        self._limit_file = limit_file

    @classmethod
    @contextlib.contextmanager
    def of(cls, limit_bytes: int) -> Iterator[MemoryLimit]:
        """Make a group for the block; raises ``Missing`` where that is not permitted."""
        name = f"benchmark-{os.getpid()}-{time.monotonic_ns()}"
        v1 = (_CGROUP_V1 / "memory.limit_in_bytes").exists()
        folder = (_CGROUP_V1 if v1 else _CGROUP_V2) / name
        try:
            folder.mkdir()
        except OSError as error:
            raise Missing(f"no memory cgroup can be made here ({error.strerror}); run as root") from None
        try:
            group = cls(folder, "memory.limit_in_bytes" if v1 else "memory.max")
            try:
                (folder / group._limit_file).write_text(str(limit_bytes))
                if not v1 and (folder / "memory.swap.max").exists():
                    (folder / "memory.swap.max").write_text("0")
            except OSError as error:
                raise Missing(f"the memory controller is not available ({error.strerror})") from None
            yield group
        finally:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.1)

    def enter(self) -> None:
        """Put the calling process into the group (between fork and exec)."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> int:
        """Return how many processes the kernel has killed for going over the limit."""
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError):
                for line in (self.folder / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0
