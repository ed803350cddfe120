"""Places that an object store can be on, each with an outside view of everything that lies there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.s3 import S3Server, client, unfinished_uploads
from tornado_backups.ports import ObjectStore
from tornado_backups.storage.local import LocalStore
from tornado_backups.storage.s3 import S3Store
from tornado_backups.storage.s3_limits import S3Limits
from tornado_backups.storage.s3_url import parse_s3_url


class Place(Protocol):
    """Where a store keeps its objects; from ``visible_bytes`` on an unfinished one shows in :meth:`left`."""

    visible_bytes: int

    def store(self) -> ObjectStore:
        """Return a new store on this place, not open yet."""

    def left(self) -> list[str]:
        """Return everything that lies there, seen without the store: objects, temporary files, unfinished uploads."""


@dataclass
class LocalPlace:
    """A local folder; folders of versions count as things that lie there, those of collections do not."""

    root: Path
    visible_bytes = 1024 * 1024

    def store(self) -> LocalStore:
        return LocalStore(self.root)

    def left(self) -> list[str]:
        return tree(self.root)


@dataclass
class S3Place:
    """A prefix in a bucket; ``folder`` is where the server keeps the bucket, when that can be looked at."""

    server: S3Server
    prefix: str
    folder: Path | None = None

    visible_bytes = 5 * 1024 * 1024 + 1

    def store(self, **limits: float) -> S3Store:
        location = parse_s3_url(self.server.url(prefix=self.prefix))
        return S3Store(location, S3Limits(io_timeout_seconds=60, **limits))  # type: ignore[arg-type]

    def left(self) -> list[str]:
        pages = (
            client(self.server).get_paginator("list_objects_v2").paginate(Bucket=self.server.bucket, Prefix=self.prefix)
        )
        objects = [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", ())]
        uploads = [f"upload:{key.removeprefix(self.prefix)}" for key in unfinished_uploads(self.server, self.prefix)]
        files = tree(self.folder / self.prefix) if self.folder else []
        return sorted({*objects, *uploads, *(name for name in files if not name.endswith("/"))})


def tree(root: Path) -> list[str]:
    """Return all files and, with a slash at the end, all folders below the first level, relative to ``root``."""
    found = []
    for folder, _, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        if len(relative.parts) > 1:
            found.append(f"{relative}/")
        found += [str(relative / name) for name in files]
    return sorted(found)


def enter(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the server's credentials."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


async def put(store: ObjectStore, key: str, data: bytes, piece_bytes: int = 512 * 1024) -> None:
    """Store ``data`` under ``key`` in pieces."""
    sink = await store.begin(key, len(data))
    for start in range(0, len(data), piece_bytes):
        await sink.write(data[start : start + piece_bytes])
    await sink.complete()


async def get(store: ObjectStore, key: str, start: int, length: int) -> bytes:
    """Read a range."""
    return b"".join([bytes(data) async for data in store.read(key, start, length)])


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """List, sorted."""
    return sorted([stored.key async for stored in store.list(prefix)])


def pattern(size_bytes: int) -> bytes:
    """Return bytes in which no two stretches are alike, cheaply."""
    block = b"".join(number.to_bytes(4, "big") for number in range(1 << 14))
    pieces: Sequence[bytes] = [block[index % 251 :] for index in range(size_bytes // (len(block) - 251) + 1)]
    return b"".join(pieces)[:size_bytes]
