"""What the tests of recover and import share: a local store with objects in it, a listener that remembers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import Collection


@dataclass
class Heard:
    """What a run told; equal when two runs told the same."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    read_bytes: int = field(default=0, compare=False)
    expected_bytes: int = field(default=0, compare=False)

    def took(self, what: str, why: str = "") -> None:
        self.lines.append(f"took {what}: {why}" if why else f"took {what}")

    def left(self, what: str, why: str) -> None:
        self.lines.append(f"left {what}: {why}")

    def failed(self, what: str, why: str) -> None:
        self.failures.append(f"{what}: {why}")

    def expect(self, size_bytes: int) -> None:
        self.expected_bytes = size_bytes

    def read(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes


class Source:
    """A configuration of so many collections, each with its template; those in ``broken`` cannot be read."""

    def __init__(self, **templates: str) -> None:
        self.templates = templates
        self.broken: set[str] = set()

    async def collection(self, name: str) -> Collection | None:
        if name in self.broken:
            raise ConfigurationFault(f"{name}.yaml", 3, "the key is not known", "use another")
        template = self.templates.get(name)
        return Collection(name, template, 5) if template else None


def put(root: Path, key: str, body: bytes, at: datetime) -> None:
    """Place an object into a local store's folder."""
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    os.utime(path, (at.timestamp(), at.timestamp()))


def contents(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
