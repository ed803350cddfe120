"""Gather what health checks need, for one collection or for all at once.

Owns: the readiness probes, the facts behind collection health, the series of collections in ``/metrics``.
Does not own: what counts as healthy (``domain/health``), alerts about it (``services/alerts``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tornado_backups.domain.errors import BackupError, ConfigurationFault
from tornado_backups.domain.health import RECENT_SIZES_NEEDED, CollectionFacts, collect_facts, evaluate
from tornado_backups.domain.model import CheckResult, Collection, Usage
from tornado_backups.ports import Clock, ConfigurationSource, ObjectStore, Registry
from tornado_backups.services.metrics import Labels

log = logging.getLogger(__name__)

FACTS_FROM_BULK = 8
"""From how many collections on the registry is asked for sums over all instead of one by one."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A collection's figures and the result of every check."""

    usage: Usage
    checks: tuple[CheckResult, ...]

    @property
    def healthy(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)


class Health:
    """Answers what monitoring asks; reads only, and may be asked at any time."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        source: ConfigurationSource,
        clock: Clock,
        storage_timeout_seconds: float,
    ) -> None:
        self._registry = registry
        self._store = store
        self._source = source
        self._clock = clock
        self._storage_timeout_seconds = storage_timeout_seconds
        self._probing: asyncio.Future[tuple[CheckResult, ...]] | None = None

    async def ready(self) -> tuple[CheckResult, ...]:
        """Probe database, storage (write, read back, delete) and configuration; askers at one time share one probe."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._probe_all())
        return await asyncio.shield(self._probing)

    async def _probe_all(self) -> tuple[CheckResult, ...]:
        return tuple(
            await asyncio.gather(
                self._probe("DbValidator", self._registry.ping),
                self._probe("StorageAvailabilityValidator", self._store.probe),
                self._probe("ConfigurationProviderValidator", self._source.ping),
            )
        )

    async def _probe(self, name: str, probe: Callable[[], Awaitable[None]]) -> CheckResult:
        try:
            await asyncio.wait_for(probe(), self._storage_timeout_seconds)
        except TimeoutError:
            return CheckResult(name, False, f"no answer within {self._storage_timeout_seconds:g} s")
        except BackupError as error:
            log.warning("%s: %s", name, error.sentence)
            return CheckResult(name, False, error.sentence)
        return CheckResult(name, True, "OK")

    async def overview(self, collections: Sequence[Collection]) -> dict[str, Overview]:
        """Return figures and checks of ``collections``, by name, as they are now."""
        if len(collections) < FACTS_FROM_BULK:
            facts = {each.name: await self._facts_of(each.name) for each in collections}
        else:
            facts = await self._facts_of_all([each.name for each in collections])
        now = self._clock.now()
        overviews: dict[str, Overview] = {}
        for count, each in enumerate(collections):
            if count % 100 == 99:
                await asyncio.sleep(0)  # ten thousand evaluations must not hold up transfers
            found = facts[each.name]
            usage = Usage(each.name, found.versions_count, found.used_bytes, found.newest)
            overviews[each.name] = Overview(usage, evaluate(each, found, now))
        return overviews

    async def _facts_of(self, name: str) -> CollectionFacts:
        versions = await self._registry.versions(name)
        if not versions:
            return CollectionFacts()
        return CollectionFacts(
            versions_count=len(versions),
            used_bytes=sum(version.size_bytes for version in versions),
            newest=versions[-1],
            recent_sizes=tuple(version.size_bytes for version in reversed(versions[-RECENT_SIZES_NEEDED:])),
            largest_bytes=max(version.size_bytes for version in versions),
            damaged=tuple(version.number for version in versions if version.damage),
        )

    async def _facts_of_all(self, names: Sequence[str]) -> dict[str, CollectionFacts]:
        usages = await self._registry.usages()
        recent = await self._registry.recent_sizes(RECENT_SIZES_NEEDED)
        largest = await self._registry.largest_sizes()
        damaged = await self._registry.damaged_versions()
        return {name: collect_facts(name, usages, recent, largest, damaged) for name in names}

    async def all_collections(self) -> list[Collection]:
        """Return every collection that can be read; the broken ones are reported by the source itself."""
        found: list[Collection] = []
        for count, name in enumerate(await self._source.collection_names()):
            if count % 100 == 99:
                await asyncio.sleep(0)
            try:
                collection = await self._source.collection(name)
            except ConfigurationFault as error:
                log.debug("left out: %s", error.sentence)
                continue
            if collection is not None:
                found.append(collection)
        return found

    async def series(self) -> dict[str, dict[Labels, float]]:
        """Return the figures of every collection for ``/metrics``, by metric name without the common prefix."""
        collections = await self.all_collections()
        overviews = await self.overview(collections)
        names = ("last_success_timestamp_seconds", "versions", "used_bytes", "max_bytes", "last_size_bytes", "healthy")
        series: dict[str, dict[Labels, float]] = {f"collection_{name}": {} for name in names}
        for collection in collections:
            label = (("collection", collection.name),)
            overview = overviews[collection.name]
            newest = overview.usage.newest
            series["collection_versions"][label] = overview.usage.versions_count
            series["collection_used_bytes"][label] = overview.usage.used_bytes
            series["collection_max_bytes"][label] = collection.max_collection_bytes
            if newest is not None:
                series["collection_last_success_timestamp_seconds"][label] = newest.created_at.timestamp()
                series["collection_last_size_bytes"][label] = newest.size_bytes
            for check in overview.checks:
                series["collection_healthy"][(("check", check.name), *label)] = float(check.ok)
        return series
