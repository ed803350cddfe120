"""Configuration files that mean harm, or that change while they are read, under a running server.

Whatever stands in a collection's file: requests that need it get 500 (or 404 when it is none), everybody else is
served in time, memory stays bounded, and the file mended is in effect with the next request.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.campaign.report import Report
from tests.campaign.subject import Subject
from tests.serving import API, REPOSITORY

OTHERS_SECONDS = 3.0
HUGE_BYTES = 100 * 1024 * 1024
CHANGING_SECONDS = 2.0
MEMORY_KIB = 64 * 1024

_HEAD = f"apiVersion: {API}\nkind: BackupCollection\nmetadata:\n  name: victim\nspec:\n"
_GOOD = f"{_HEAD}  filenameTemplate: v-${{version}}.gpg\n  maxBackupsCount: 2\n"
_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: _write(path, text.encode())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(_GOOD.encode() + b"#")
        file.truncate(HUGE_BYTES)


def _huge_text(path: Path) -> None:
    with path.open("wb") as file:
        file.write(_GOOD.encode())
        for _ in range(HUGE_BYTES // (1 << 20)):
            file.write((b"# " + b"x" * 1022) * (1 << 10))


def _circle(path: Path) -> None:
    other = path.with_name("circle.yaml")
    other.unlink(missing_ok=True)
    other.symlink_to(path.name)
    path.symlink_to(other.name)


def _device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(name)


CASES: dict[str, Callable[[Path], None]] = {
    "a billion laughs": _text(_LAUGHS + _GOOD),
    "a quadratic bomb": _text("a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 50_000 + "]\n" + _GOOD),
    "an alias": _text(_GOOD + "  description: &a x\n  pingUrl: *a\n"),
    "an alias to itself": _text("&a a: *a\n" + _GOOD),
    "a merge key": _text(_GOOD + "  <<: {maxBackupsCount: 1}\n"),
    "a Python tag": _text(_GOOD + "  description: !!python/object/apply:os.system ['touch /tmp/campaign-pwned']\n"),
    "a tag": _text(_GOOD + "  description: !secret x\n"),
    "a binary tag": _text(_GOOD + "  description: !!binary aGVsbG8=\n"),
    "duplicate keys": _text(_GOOD + "  maxBackupsCount: 9\n"),
    "duplicate keys above": _text(_GOOD + "spec:\n  maxBackupsCount: 9\n"),
    "two documents": _text(_GOOD + "---\n" + _GOOD),
    "100,000 documents": _text("---\n" * 100_000 + _GOOD + "--- x\n" * 10),
    "nested brackets": _text("[" * 100_000),
    "nested brackets that end": _text(_GOOD + "  windows: " + "[" * 300_000 + "]" * 300_000 + "\n"),
    "nested blocks": _text("\n".join(" " * level + "a:" for level in range(1200))),
    "nested explicit keys": _text("? " * 300_000),
    "nested list dashes": _text("- " * 300_000),
    "100,000 keys": _text(_GOOD + "".join(f"  k{number}: x\n" for number in range(60_000))),
    "one long line": _text(_GOOD + "  description: " + "x" * 900_000 + "\n"),
    "a long flow": _text("{" + "a," * 400_000),
    "quotes that do not end": _text(_GOOD + '  description: "' + "\\\n" * 200_000),
    "anchors without end": _text("&" * 500_000),
    "colons": _text(":" * 900_000),
    "NUL bytes": _text(_GOOD + "\x00" * 1000),
    "not UTF-8": lambda path: _write(path, _GOOD.encode() + b"  description: \xff\xfe\n"),
    "UTF-16": lambda path: _write(path, _GOOD.encode("utf-16")),
    "an escape for a surrogate": _text(_GOOD + '  description: "\\ud800"\n'),
    "numbers without end": _text(_GOOD + "  maxOneVersionSize: " + "9" * 50_000 + "\n"),
    "a duration without end": _text(_GOOD + "  maxAge: " + "9" * 50_000 + "h\n"),
    "a cron bomb": _text(_GOOD + "  windows:\n" + "  - {from: '*/1 * * * *', duration: 60s}\n" * 2000),
    "100 MB, sparse": _huge,
    "100 MB of comments": _huge_text,
    "nothing": lambda path: _write(path, b""),
    "a folder": lambda path: path.mkdir(),
    "a link in a circle": _circle,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "/dev/zero": _device("/dev/zero"),
    "/dev/full": _device("/dev/full"),
    "/proc/self/mem": _device("/proc/self/mem"),
    "/proc/kmsg": _device("/proc/kmsg"),
    "a pipe": lambda path: os.mkfifo(path),
}  # fmt: skip


def run(report: Report, minutes: float) -> None:
    """Every case once, then a file that changes all the time; with ``minutes`` for that long."""
    with tempfile.TemporaryDirectory(prefix="campaign") as folder, Subject(Path(folder), report) as subject:
        subject.allowed_errors = ("configuration", "victim")
        path = subject.tree.path("backupcollections", "victim")
        for name, make in CASES.items():
            if name != "100 MB of comments" or minutes:
                _try(subject, path, name, make)
        changing(subject, path, 60 * minutes or CHANGING_SECONDS)
        report.check(not Path("/tmp/campaign-pwned").exists(), "a tag was executed")
        subject.settle("hostile configuration", MEMORY_KIB)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.with_name("circle.yaml").unlink(missing_ok=True)


def _try(subject: Subject, path: Path, name: str, make: Callable[[Path], None]) -> None:
    report = subject.report
    _clear(path)
    make(path)
    begun = time.monotonic()
    answer = subject.program.request("GET", f"{REPOSITORY}/victim/version", token=subject.token)
    report.check(answer.status in (200, 500), f"{name}: {answer.status} {answer.body[:300]!r}")
    report.count("files", f"{answer.status} {answer.json.get('reason', '')}".strip())
    for request in (f"{REPOSITORY}", "/metrics", "/api/stable/auth/whoami"):
        answer = subject.program.request("GET", request.replace("collection/x", ""), token=subject.token)
        report.check(
            answer.status < 500 or "configuration" in answer.json["reason"], f"{name}: {request}: {answer.body!r}"
        )
    seconds = time.monotonic() - begun
    report.check(seconds < OTHERS_SECONDS, f"{name}: four requests took {seconds:.1f} s")
    most = subject.program.memory_kib("VmHWM") - subject.memory_before
    report.check(most < 3 * MEMORY_KIB, f"{name}: memory rose by {most} KiB")
    subject.serves()
    _clear(path)
    _write(path, _GOOD.encode())
    answer = subject.program.request("GET", f"{REPOSITORY}/victim/version", token=subject.token)
    report.check(answer.status == 200, f"{name}: mended, but {answer.status} {answer.body!r}")
    report.count("mended files", str(answer.status))


def changing(subject: Subject, path: Path, seconds: float) -> None:
    """Write the file in place, byte by byte, while it is asked for: never half of it, and whole in the end."""
    report = subject.report
    over = threading.Event()
    chance = Random(1)
    texts = [
        _GOOD.replace("maxBackupsCount: 2", f"maxBackupsCount: {count}") + "#" * chance.randrange(5000)
        for count in range(2, 9)
    ]

    def write() -> None:
        while not over.is_set():
            data = chance.choice(texts).encode()
            with path.open("r+b", buffering=0) as file:
                for at in range(0, len(data), 700):
                    file.write(data[at : at + 700])
                file.truncate()

    thread = threading.Thread(target=write)
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            answer = subject.program.request("GET", f"{REPOSITORY}/victim/rotation", token=subject.token)
            report.check(answer.status in (200, 500), f"a changing file: {answer.status} {answer.body!r}")
            report.count("requests while the file is written", str(answer.status))
    finally:
        over.set()
        thread.join()
    _write(path, texts[0].encode())
    answer = subject.program.request("GET", f"{REPOSITORY}/victim/rotation", token=subject.token)
    report.check(answer.status == 200, f"after the last change: {answer.status} {answer.body!r}")
