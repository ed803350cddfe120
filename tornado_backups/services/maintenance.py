"""The periodic pass: mend what was killed, remove what expired, look after health, re-read what is stored.

Owns: the order of a pass, that only one server does it at a time, and that one failing step or collection does not
stop the others.
Does not own: the steps of removal (``services/removal``), health and alerts, the reading itself (``services/verify``).

Only what an abandoned intent or an expired row names is ever removed. An object that no row names is counted and
named in the log, never touched: think of a database restored from last week. See docs/crash-order.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

from tornado_backups.domain.errors import BackupError, DatabaseUnavailable, ObjectMissing
from tornado_backups.domain.model import Lease, StoredObject
from tornado_backups.ports import Clock, ObjectStore, Registry
from tornado_backups.services.alerts import Alerts
from tornado_backups.services.health import Health
from tornado_backups.services.metrics import Metrics
from tornado_backups.services.removal import remove_all_expired
from tornado_backups.services.sessions import Sessions
from tornado_backups.services.verify import Reading

log = logging.getLogger(__name__)

LEASE_NAME = "maintenance"
INTENTS_AT_A_TIME = 100
OBJECTS_PER_PASS = 5000
KEYS_AT_A_TIME = 500
SCRUB_BYTES_PER_PASS = 64 * 1024 * 1024
SCRUB_STEP_BYTES = 8 * 1024 * 1024
NAMED_UNKNOWN_OBJECTS = 1000


class Maintenance:
    """Runs passes; at most one at a time in this process, and one server at a time does their work."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        health: Health,
        sessions: Sessions,
        alerts: Alerts,
        metrics: Metrics,
        clock: Clock,
        interval_seconds: float,
        scrub_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._registry = registry
        self._store = store
        self._health = health
        self._sessions = sessions
        self._alerts = alerts
        self._metrics = metrics
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._scrub_seconds = scrub_seconds
        self._lease_seconds = lease_seconds
        self._lease: Lease | None = None
        self._running: asyncio.Task[None] | None = None
        self._sweep: AsyncIterator[StoredObject] | None = None
        self._unknown = 0
        self._named: set[str] = set()
        self._reading: Reading | None = None

    async def run_pass(self) -> None:
        """Do one pass; returns at once while another one of this process runs. Never raises."""
        if self._running is not None and not self._running.done():
            return
        self._running = asyncio.create_task(self._pass())
        await asyncio.wait([self._running])

    async def stop(self) -> None:
        """Break off a pass that runs; every step may be repeated."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _pass(self) -> None:
        steps = (
            self._take_lease,
            self._undo_abandoned,
            self._remove_expired,
            self._look_after_health,
            self._purge_sessions,
            self._count_unknown,
            self._scrub,
        )
        failed = False
        heartbeat = asyncio.create_task(self._keep_lease())
        try:
            for step in steps:
                failed |= not await self._attempt(step)
                if self._lease is None:
                    return  # another server does the work, or the database is away
        finally:
            heartbeat.cancel()
            await self._attempt(self._give_lease_back)
            self._metrics.add("maintenance_passes_total", result="failed" if failed else "ok")
            if not failed:
                self._metrics.put("maintenance_last_success_timestamp_seconds", self._clock.now().timestamp())

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except BackupError as error:
            log.warning("maintenance: %s: %s", step.__name__.strip("_"), error.sentence)
            return False
        except Exception:
            log.exception("maintenance: %s failed", step.__name__.strip("_"))
            return False
        return True

    async def _take_lease(self) -> None:
        self._lease = await self._registry.acquire_lease(LEASE_NAME, self._lease_seconds)

    async def _keep_lease(self) -> None:
        """Renew the lease while a pass runs, however long a step takes; a lost one ends the pass after its step."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                if self._lease is not None and not await self._registry.renew_lease(self._lease, self._lease_seconds):
                    log.warning("maintenance: another server took over")
                    self._lease = None
            except DatabaseUnavailable as error:
                log.warning("maintenance: the lease is not renewed: %s", error.sentence)

    async def _give_lease_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._registry.release_lease(lease)

    async def _undo_abandoned(self) -> None:
        """Storage first, intent last: killed in between, the next pass does it again."""
        while True:
            intents = await self._registry.abandoned_intents(INTENTS_AT_A_TIME)
            undone = 0
            for intent in intents:
                try:
                    await self._store.abandon(intent.object_key)
                    await self._registry.drop_intent(intent)
                except BackupError as error:
                    log.warning("maintenance: %s waits for the next pass: %s", intent.object_key, error.sentence)
                    continue
                undone += 1
                log.info("maintenance: undid an interrupted upload to %s", intent.collection)
            if len(intents) < INTENTS_AT_A_TIME or not undone:
                return

    async def _remove_expired(self) -> None:
        await remove_all_expired(self._registry, self._store)

    async def _look_after_health(self) -> None:
        collections = await self._health.all_collections()
        await self._alerts.notice(await self._health.overview(collections))
        self._alerts.deliver()

    async def _purge_sessions(self) -> None:
        await self._sessions.purge(self._clock.now())

    # -- objects that no row names ---------------------------------------------------------------------------------

    async def _count_unknown(self) -> None:
        """Go on with the sweep over the storage; a large one is spread over many passes."""
        if self._sweep is None:
            self._sweep = aiter(self._store.list())
            self._unknown = 0
        try:
            for _ in range(OBJECTS_PER_PASS // KEYS_AT_A_TIME):
                batch, ended = await self._next_objects(self._sweep)
                await self._note_unknown(batch)
                if ended:
                    self._sweep = None
                    self._metrics.put("storage_unknown_objects", self._unknown)
                    return
        except BaseException:
            self._sweep = None
            raise

    async def _next_objects(self, sweep: AsyncIterator[StoredObject]) -> tuple[list[str], bool]:
        batch: list[str] = []
        while len(batch) < KEYS_AT_A_TIME:
            try:
                batch.append((await anext(sweep)).key)
            except StopAsyncIteration:
                return batch, True
        return batch, False

    async def _note_unknown(self, keys: list[str]) -> None:
        known = await self._registry.known_keys(keys)
        for key in keys:
            if key in known or not await self._exists(key):
                continue  # a row names it, or it was removed between the listing and the question
            self._unknown += 1
            if key not in self._named and len(self._named) < NAMED_UNKNOWN_OBJECTS:
                self._named.add(key)
                log.warning("storage: no row of the registry names %s; it is left alone (see `recover`)", key)

    async def _exists(self, key: str) -> bool:
        try:
            await self._store.size(key)
        except ObjectMissing:
            return False
        return True

    # -- scrub -----------------------------------------------------------------------------------------------------

    async def _scrub(self) -> None:
        """Re-read a bounded number of bytes, oldest check first; an object larger than that takes several passes."""
        if not self._scrub_seconds:
            return
        left = await self._scrub_budget()
        while left > 0:
            if self._reading is None and not await self._next_reading():
                return
            assert self._reading is not None
            before = self._reading.done_bytes
            damage = await self._reading.advance(self._store, min(left, SCRUB_STEP_BYTES))
            left -= max(self._reading.done_bytes - before, 64 * 1024)
            if damage or self._reading.is_done:
                await self._record(self._reading, damage)
                self._reading = None

    async def _scrub_budget(self) -> int:
        """Twice the share of all bytes that keeps to the interval, and never less than a fixed amount."""
        total = sum(usage.used_bytes for usage in (await self._registry.usages()).values())
        return max(SCRUB_BYTES_PER_PASS, int(2 * total * self._interval_seconds / self._scrub_seconds))

    async def _next_reading(self) -> bool:
        before = self._clock.now() - timedelta(seconds=self._scrub_seconds)
        due = await self._registry.next_to_check(before, 1)
        if due:
            self._reading = Reading(due[0])
        return bool(due)

    async def _record(self, reading: Reading, damage: str) -> None:
        version = reading.version
        if damage:
            if await self._registry.version(version.collection, version.number) is None:
                return  # rotated or deleted while it was read
            log.error("version %d of %s is damaged: %s", version.number, version.collection, damage)
        await self._registry.record_check(version.id, self._clock.now(), reading.sha256, damage)
