"""Which adapter a setting chooses: the clock, the configuration, the storage and the database that it names.

Owns: making and opening them; heavy ones are imported only when they are asked for. Does not own: what uses them
(``app`` for the server, ``commands`` for everything else).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime

from tornado_backups.config.settings import Settings, database_url
from tornado_backups.domain.errors import ConfigurationFault, StartupError, UsageError
from tornado_backups.ports import AuditTrail, Clock, ConfigurationSource, ObjectStore, Registry

log = logging.getLogger(__name__)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only rise."""
        return time.monotonic()


def build_registry(settings: Settings, clock: Clock, exclusive: bool = False) -> Registry:
    """Return the registry that the settings name; PostgreSQL's driver is imported only when it is asked for."""
    url = database_url(settings)
    owner = str(uuid.uuid4())
    if url.startswith("sqlite:"):
        from tornado_backups.registry.sqlite import SqliteRegistry

        return SqliteRegistry(url.removeprefix("sqlite://"), clock, owner, exclusive=exclusive)
    from tornado_backups.registry.postgres import PostgresRegistry

    return PostgresRegistry(url, owner, clock)


def build_store(settings: Settings) -> ObjectStore:
    """Return the object store that the settings name; the S3 client is imported only when it is asked for."""
    url = settings.storage_url
    if not url:
        from tornado_backups.storage.local import LocalStore

        return LocalStore(settings.data_dir / "objects")
    if url.startswith("file://"):
        from pathlib import Path

        from tornado_backups.storage.local import LocalStore

        return LocalStore(Path(url.removeprefix("file://")))
    from tornado_backups.storage.s3 import S3Store

    try:
        return S3Store.from_url(url, settings.storage_io_timeout)
    except ValueError as error:
        raise UsageError(f"--storage-url: {error}") from None


def build_source(settings: Settings, audit: AuditTrail | None = None) -> ConfigurationSource:
    """Return where users and collections come from; faults are logged once and audited."""

    def report(fault: ConfigurationFault) -> None:
        log.error("configuration: %s", fault.sentence)
        if audit is not None:
            audit.record("configuration", fault.reason, source=fault.source, line=fault.line, what=fault.what)

    if settings.provider == "kubernetes":
        from tornado_backups.config.kubernetes import KubernetesSource

        return KubernetesSource(settings.namespace, on_fault=report)
    from tornado_backups.config.filesystem import FilesystemSource

    return FilesystemSource(settings.config_local_path, settings.namespace, on_fault=report)


async def open_registry(registry: Registry, wait_seconds: float, clock: Clock) -> None:
    """Open the registry, trying again for ``wait_seconds`` while its database is not up yet."""
    deadline = clock.monotonic() + wait_seconds
    while True:
        try:
            await registry.open()
            return
        except StartupError as error:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise
            log.warning("waiting for the database (%d s left): %s", left, error.sentence)
            await asyncio.sleep(min(1.0, left))


def prepare_data_dir(settings: Settings) -> None:
    """Make the data folder; raises ``StartupError`` when it cannot be made or written."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = settings.data_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartupError(f"the data folder {settings.data_dir} cannot be written: {error.strerror}") from None
