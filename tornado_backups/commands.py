"""Commands that work on the registry and the storage without serving.

Owns: opening and closing what they need, and what they print. Does not own: their work (``services``).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tornado_backups.app import SystemClock, build_registry, build_store, open_registry, prepare_data_dir
from tornado_backups.config.settings import Settings
from tornado_backups.domain.model import Version
from tornado_backups.domain.units import format_size
from tornado_backups.ports import ObjectStore, Registry
from tornado_backups.services.verify import Reading

STEP_BYTES = 8 * 1024 * 1024
BAR_WIDTH = 30


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Registry, ObjectStore]]:
    """Open registry and storage as the settings name them, and close them again."""
    clock = SystemClock()
    prepare_data_dir(settings)
    registry, store = build_registry(settings, clock), build_store(settings)
    try:
        await store.open()
        await open_registry(registry, settings.db_wait, clock)
        yield registry, store
    finally:
        await registry.close()
        await store.close()


async def run_verify(settings: Settings, only: str | None) -> int:
    """Read every live version back; print each damaged one; return 0 when all are good, else 1."""
    async with opened(settings) as (registry, store):
        names = [only] if only else sorted(await registry.usages())
        versions = [version for name in names for version in await registry.versions(name)]
        progress = Progress(sum(version.size_bytes for version in versions))
        damaged = 0
        for version in versions:
            damage = await _verify_one(registry, store, version, progress)
            if damage:
                damaged += 1
                progress.clear()
                print(f"{version.collection} version {version.number} ({version.object_key}): {damage}")
        progress.clear()
    print(f"{len(versions)} versions checked, {damaged} damaged or missing", file=sys.stderr)
    return 1 if damaged else 0


async def _verify_one(registry: Registry, store: ObjectStore, version: Version, progress: Progress) -> str:
    reading = Reading(version)
    while True:
        before = reading.done_bytes
        damage = await reading.advance(store, STEP_BYTES)
        progress.add(reading.done_bytes - before)
        if damage or reading.is_done:
            sha256 = "" if damage else reading.sha256
            await registry.record_check(version.id, SystemClock().now(), sha256, damage)
            return damage


class Progress:
    """A bar on stderr, drawn only when a person looks at it."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._drawn = sys.stderr.isatty()

    def add(self, size_bytes: int) -> None:
        """Move on and draw."""
        self._done_bytes += size_bytes
        if not self._drawn:
            return
        share = self._done_bytes / self._total_bytes if self._total_bytes else 1.0
        bar = ("#" * int(share * BAR_WIDTH)).ljust(BAR_WIDTH, ".")
        text = f"[{bar}] {share:4.0%} of {format_size(self._total_bytes)}"
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipe the bar off the line."""
        if self._drawn:
            print("\r" + " " * (BAR_WIDTH + 30) + "\r", end="", file=sys.stderr, flush=True)
