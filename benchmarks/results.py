"""The table: what is measured, what it should reach, what came out.

Owns: the targets and how figures are judged and written down. Does not own: how they are measured.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: ``limit`` is the most (or with ``at_least`` the least) that its median may be."""

    title: str
    unit: str
    limit: float | None = None
    at_least: bool = False

    def is_met(self, value: float) -> bool | None:
        """Tell whether a figure reaches the target; None when there is none."""
        if self.limit is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit

    def wanted(self) -> str:
        """Return the target as text."""
        return "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"


TARGETS = {
    "idle-local": Target("idle resident memory, SQLite + local files", "MiB", 34),
    "idle-s3": Target("idle resident memory, PostgreSQL + S3", "MiB", 60),
    "growth-upload": Target("growth during one upload, local", "MiB", 6),
    "growth-download": Target("growth during one download, local", "MiB", 6),
    "growth-eight-local": Target("growth during eight uploads, local", "MiB", 20),
    "after-eight-local": Target("… above idle afterwards", "MiB", 10),
    "growth-eight-s3": Target("growth during eight uploads, S3", "MiB", 70),
    "after-eight-s3": Target("… above idle afterwards", "MiB", 10),
    "limit-s3": Target("128 MiB limit: upload to S3 + PostgreSQL with logins, finished", "of 1", 1, True),
    "limit-s3-kills": Target("… killed by the kernel", "times", 0),
    "limit-slow": Target("128 MiB limit: slow uploads at once with logins, finished", "share", 1, True),
    "limit-slow-kills": Target("… killed by the kernel", "times", 0),
    "upload": Target("upload, local", "MiB/s"),
    "upload-nginx": Target("upload against nginx WebDAV (PUT + fsync)", "ratio", 0.75, True),
    "upload-webdav": Target("upload against rclone serve webdav", "ratio", 3, True),
    "upload-s3": Target("upload, S3", "MiB/s"),
    "upload-copyto": Target("upload to S3 against rclone copyto", "ratio", 1.3, True),
    "upload-aws": Target("upload to S3 against aws s3 cp", "ratio"),
    "cpu-local": Target("processor time of an upload, local", "s/GiB", 1.5),
    "floor-upload": Target("upload against a bare loop that receives, hashes and writes", "ratio"),
    "floor-upload-cpu": Target("… its processor time, below which nobody gets who hashes", "s/GiB"),
    "floor-download": Target("download against a bare loop that reads, hashes and sends", "ratio"),
    "floor-download-cpu": Target("… its processor time", "s/GiB"),
    "cpu-s3": Target("processor time of an upload, S3", "s/GiB", 2.5),
    "cpu-nginx": Target("… of nginx, which does not hash", "s/GiB"),
    "download": Target("download, local", "MiB/s"),
    "download-nginx": Target("download against nginx", "ratio", 0.9, True),
    "hash-nginx": Target("… of SHA-256 of those bytes in memory: the most that who hashes can reach", "ratio"),
    "cpu-download": Target("processor time of a download, local", "s/GiB"),
    "health-one": Target("/health p99 while one upload runs", "ms", 3),
    "health-eight": Target("/health p99 while eight uploads run", "ms", 12),
    "small": Target("4 KiB upload, p50", "ms", 12),
    "small-ours": Target("… on a file system without fsync: what is ours", "ms", 4),
    "listing-few": Target("listing 1,000 versions, 10³ rows in the database, p50", "ms", 15),
    "listing-many": Target("listing 1,000 versions, many rows in the database, p50", "ms", 15),
    "start-local": Target("start to first answer, local", "s", 0.6),
    "start-s3": Target("start to first answer, PostgreSQL + S3", "s", 1.2),
    "upkeep": Target("one maintenance pass, 10,000 collections of 30 versions", "CPU s", 5),
    "metrics": Target("/metrics of 10,000 collections", "s"),
    "health-upkeep": Target("/health, longest, during that pass", "ms"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A line with its samples; ``note`` says what was special, or why there is none."""

    key: str
    samples: tuple[float, ...]
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.samples)


class Table:
    """Gathers figures, tells them as they come, and writes them down at the end."""

    def __init__(self, machine: dict[str, str]) -> None:
        self._machine = machine
        self._figures: list[Figure] = []

    def add(self, key: str, samples: Sequence[float] | float, note: str = "") -> None:
        """Add a line, or a line that the targets do not know (a peer of the command line) as ``title|unit``."""
        values = (samples,) if isinstance(samples, int | float) else tuple(samples)
        self._figures.append(Figure(key, values, note))
        print(self._line(self._figures[-1]), file=sys.stderr, flush=True)

    def missing(self, keys: Sequence[str], why: str) -> None:
        """Say that some lines could not be measured here, and why."""
        for key in keys:
            self._figures.append(Figure(key, (), why))
        print(f"left out: {', '.join(keys)}: {why}", file=sys.stderr, flush=True)

    @staticmethod
    def target(key: str) -> Target:
        """Return a line's target."""
        title, _, unit = key.partition("|")
        return TARGETS.get(key) or Target(title, unit)

    def _line(self, figure: Figure) -> str:
        target = self.target(figure.key)
        if not figure.samples:
            return f"{target.title:<66} {'–':>9} {'':>17} {target.unit:<7} {target.wanted():<8}      {figure.note}"
        spread = f"{min(figure.samples):.4g} … {max(figure.samples):.4g}" if len(figure.samples) > 1 else ""
        met = {True: "yes", False: "NO", None: ""}[target.is_met(figure.value)]
        return (
            f"{target.title:<66} {figure.value:>9.4g} {spread:>17} {target.unit:<7} {target.wanted():<8} {met:<4} "
            f"{figure.note}"
        ).rstrip()

    def text(self) -> str:
        """Return the whole table."""
        head = [f"{name}: {value}" for name, value in self._machine.items()]
        columns = f"{'':<66} {'median':>9} {'min … max':>17} {'unit':<7} {'target':<8} met"
        return "\n".join([*head, "", columns, *(self._line(figure) for figure in self._figures)]) + "\n"

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        rows: list[dict[str, Any]] = []
        for figure in self._figures:
            target = self.target(figure.key)
            row: dict[str, Any] = {"key": figure.key.partition("|")[0], "title": target.title, "unit": target.unit}
            row |= {"target": target.wanted(), "samples": list(figure.samples), "note": figure.note}
            if figure.samples:
                row |= {"median": figure.value, "met": target.is_met(figure.value)}
            rows.append(row)
        path.write_text(json.dumps({"machine": self._machine, "figures": rows}, indent=1, ensure_ascii=False) + "\n")
