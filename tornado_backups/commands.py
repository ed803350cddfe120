"""Commands that work on the registry and the storage without serving.

Owns: opening and closing what they need, and what they print. Does not own: their work (``services``).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tornado_backups.adapters import (
    SystemClock,
    build_registry,
    build_source,
    build_store,
    open_registry,
    prepare_data_dir,
)
from tornado_backups.config.settings import Settings, database_url
from tornado_backups.domain.errors import UsageError
from tornado_backups.domain.model import Version
from tornado_backups.domain.units import format_size
from tornado_backups.ports import ObjectStore, Registry
from tornado_backups.services.recover import Recovery
from tornado_backups.services.takeover import Takeover
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
        if only:
            await _check_collection(settings, registry, only)
        names = [only] if only else sorted(await registry.usages())
        versions = [version for name in names for version in await registry.versions(name)]
        progress = Progress(sum(version.size_bytes for version in versions))
        damaged = 0
        for version in versions:
            damage = await _verify_one(registry, store, version, progress)
            if damage:
                damaged += 1
                progress.clear()
                print(printable(f"{version.collection} version {version.number} ({version.object_key}): {damage}"))
        progress.clear()
    print(f"{len(versions)} versions checked, {damaged} damaged or missing", file=sys.stderr)
    return 1 if damaged else 0


async def _check_collection(settings: Settings, registry: Registry, name: str) -> None:
    """Refuse a name that means nothing: a timer that checks a misspelt collection would be content for ever."""
    if await registry.latest_version(name) is not None:
        return
    source = build_source(settings)
    await source.open()
    try:
        if await source.collection(name) is None:
            raise UsageError(f"--collection: no collection {name!r} is configured, and no version of it is registered")
    finally:
        await source.close()


async def _verify_one(registry: Registry, store: ObjectStore, version: Version, progress: Progress) -> str:
    reading = Reading(version)
    while True:
        before = reading.done_bytes
        damage = await reading.advance(store, STEP_BYTES)
        progress.add(reading.done_bytes - before)
        if damage and await registry.version(version.collection, version.number) is None:
            return ""  # rotated or deleted by the server while it was read
        if damage or reading.is_done:
            await registry.record_check(version.id, SystemClock().now(), reading.sha256, damage)
            return damage


async def run_recover(settings: Settings, only: str | None, dry_run: bool) -> int:
    """Register unknown objects; print each one taken or left; return 1 when something has to be done again, else 0."""
    printer = Printer()
    with ExitStack() as stack:
        if dry_run:
            settings = _without_making_a_database(settings, stack)
        source = build_source(settings)
        try:
            await source.open()
            async with opened(settings) as (registry, store):
                clock = SystemClock()
                recovery = Recovery(registry, store, source, clock, settings.lease_time, printer, dry_run)
                await recovery.run(only)
        finally:
            await source.close()
    return printer.sum_up(dry_run)


async def run_import(settings: Settings, url: str, dry_run: bool) -> int:
    """Take a Go server's database over; print what was taken and left; return 1 when something failed, else 0."""
    # It imports the PostgreSQL driver, which nobody else on SQLite needs.
    from tornado_backups.registry.go_tables import GoTables

    printer = Printer()
    tables = GoTables(url)
    with ExitStack() as stack:
        if dry_run:
            settings = _without_making_a_database(settings, stack)
        try:
            await tables.open()
            async with opened(settings) as (registry, store):
                clock = SystemClock()
                await Takeover(tables, registry, store, clock, settings.lease_time, printer, dry_run).run()
        finally:
            await tables.close()
    return printer.sum_up(dry_run)


def _without_making_a_database(settings: Settings, stack: ExitStack) -> Settings:
    """Return settings whose SQLite file, where there is none yet, is a temporary one: a dry run makes nothing."""
    url = database_url(settings)
    path = Path(url.removeprefix("sqlite://"))
    if not url.startswith("sqlite:") or path.exists() or path.with_name(f"{path.name}-wal").exists():
        return settings
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tornado-backups-"))
    return replace(settings, db_url=f"sqlite://{folder}/registry.sqlite3")


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


class Printer:
    """Prints what a run takes and leaves, a line each on stdout, and counts; the sum goes to stderr."""

    def __init__(self) -> None:
        self._counts = {"took": 0, "left": 0, "failed": 0}
        self._progress = Progress(0)

    def took(self, what: str, why: str = "") -> None:
        """See ``Listener``."""
        self._print("took", what, why)

    def left(self, what: str, why: str) -> None:
        """See ``Listener``."""
        self._print("left", what, why)

    def failed(self, what: str, why: str) -> None:
        """See ``Listener``."""
        self._print("failed", what, why)

    def expect(self, size_bytes: int) -> None:
        """See ``Listener``."""
        self._progress = Progress(size_bytes)

    def read(self, size_bytes: int) -> None:
        """See ``Listener``."""
        self._progress.add(size_bytes)

    def sum_up(self, dry_run: bool) -> int:
        """Print the sum; return the exit status."""
        self._progress.clear()
        if dry_run:
            print("this was a dry run: nothing was changed", file=sys.stderr)
        elif not any(self._counts.values()):
            print("nothing to do", file=sys.stderr)
        if self._counts["failed"]:
            print(f"{self._counts['failed']} failed: run the command again", file=sys.stderr)
        return 1 if self._counts["failed"] else 0

    def _print(self, verb: str, what: str, why: str) -> None:
        self._counts[verb] += 1
        self._progress.clear()
        print(printable(f"{verb} {what}: {why}" if why else f"{verb} {what}"))


def printable(text: str) -> str:
    """Return one line that does nothing to a terminal: names of objects may come from anywhere."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
