"""Remove what rows marked as expired name: object first, then row.

Owns: the last two steps of a rotation or deletion, repeatable after a kill at any point.
Does not own: the decision what leaves (``domain/rotation``), nor the mark itself (one registry transaction).
Crash order: docs/crash-order.md, row "commit and removal".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from tornado_backups.domain.errors import RequestError
from tornado_backups.domain.model import Collection, Version
from tornado_backups.domain.rotation import RotationPlan
from tornado_backups.ports import AuditTrail, ObjectStore, Registry

log = logging.getLogger(__name__)

BATCH = 100
"""How many expired versions are asked for at a time."""


async def remove_expired(registry: Registry, store: ObjectStore, expired: Iterable[tuple[Version, str]]) -> int:
    """Delete the objects of ``expired`` versions, then their rows, all in one transaction; return how many went.

    A failure is logged and leaves rows marked, so that the next maintenance pass tries again. The rest goes on.
    """
    gone = []
    for version, reason in expired:
        try:
            await store.delete(version.object_key)
        except RequestError as error:
            log.warning("version %d of %s stays until the next pass: %s", version.number, version.collection, error)
            continue
        log.info("removed version %d of %s: %s", version.number, version.collection, reason)
        gone.append(version.id)
    if not gone:
        return 0
    try:
        await registry.forget_versions(gone)
    except RequestError as error:
        log.warning("the rows of %d removed versions stay until the next pass: %s", len(gone), error)
        return 0
    return len(gone)


async def remove_all_expired(registry: Registry, store: ObjectStore) -> int:
    """Remove batch after batch until none is left or a whole batch could not be removed; return how many went."""
    total = 0
    while True:
        batch = await registry.expired_versions(BATCH)
        removed = await remove_expired(registry, store, batch)
        total += removed
        if len(batch) < BATCH or not removed:
            return total


class Rotation:
    """Removes what an upload's rotation marked, at once but after its answer; listens to :class:`Uploads`."""

    def __init__(self, registry: Registry, store: ObjectStore, audit: AuditTrail) -> None:
        self._registry = registry
        self._store = store
        self._audit = audit
        self._again = False
        self._running: asyncio.Task[None] | None = None

    def stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        """Write what leaves into the audit trail and start the removal."""
        for removal in plan.removals:
            self._audit.record(
                "rotate", "ok", collection=collection.name, version=removal.number, reason=removal.reason
            )
        if not plan.removals:
            return
        self._again = True
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    def refused(self, collection: Collection, error: RequestError) -> None:
        """A refused upload removes nothing."""

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await remove_all_expired(self._registry, self._store)
            except RequestError as error:
                log.warning("rotation: the removal is left to the next maintenance pass: %s", error.sentence)

    async def close(self) -> None:
        """Wait for the removal that runs."""
        if self._running is not None:
            await asyncio.wait([self._running])
