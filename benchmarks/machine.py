"""What the figures were measured on. Owns: a description that a reader can judge figures by."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from tornado_backups import __version__


def describe(folder: Path) -> dict[str, str]:
    """Return processor, memory, disk, system and versions, as text."""
    model = _first("/proc/cpuinfo", "model name")
    memory_kib = int((_first("/proc/meminfo", "MemTotal") or "0").split()[0])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "program": f"tornado-backups {__version__}, Python {platform.python_version()}, tornado {version('tornado')}",
        "system": f"{platform.system()} {platform.release()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}",
        "processor": f"{len(os.sched_getaffinity(0))} × {model or platform.machine()}",
        "memory": f"{memory_kib / 1024 / 1024:.1f} GiB",
        "disk": f"{_mount_of(folder)}, 1 MiB + fsync in {_fsync_ms(folder):.1f} ms",
        "load at the beginning": load,
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _mount_of(folder: Path) -> str:
    done = subprocess.run(
        ["df", "--output=fstype,size", "-h", str(folder)], capture_output=True, text=True, check=False
    )
    return " ".join(done.stdout.splitlines()[-1].split()) if done.returncode == 0 else "unknown"


def _fsync_ms(folder: Path) -> float:
    path = folder / "fsync-probe"
    times = []
    for _ in range(5):
        begin = time.monotonic()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, bytes(1024 * 1024))
        os.fsync(descriptor)
        os.close(descriptor)
        times.append((time.monotonic() - begin) * 1000)
    path.unlink()
    return sorted(times)[2]
