"""Register the objects that a lost or rolled-back registry does not know.

Owns: finding them, reading them once for size and SHA-256, registering them under their collection's lease.
Does not own: which number each gets (``domain/recovery``). Changes no object.
Explained in docs/restore-after-losing-the-database.md.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field

from tornado_backups.domain.errors import ConfigurationFault, LeaseLost, ObjectDamaged, ObjectMissing
from tornado_backups.domain.model import Lease, StoredObject, Version
from tornado_backups.domain.recovery import Adoption, Place, RecoveryPlan, place_of, plan_recovery
from tornado_backups.ports import Clock, ConfigurationSource, ObjectStore, Registry
from tornado_backups.services.adoption import KEYS_AT_A_TIME, Listener, collection_held, unknown_keys

EXPIRED_AT_MOST = 100_000
"""How many versions that wait for their removal are looked at for the numbers they still hold."""

STRANGERS_NAMED = 10

_IDS = uuid.UUID("5f0ff5a7-6f3c-4a43-9f0e-3d3a8f9b0c11")
"""Makes ids from keys, always the same from the same, for objects whose key holds none."""


@dataclass(slots=True)
class _Survey:
    """What one listing of the storage found that the registry does not know."""

    collections: set[str] = field(default_factory=set)
    size_bytes: int = 0
    strangers: int = 0
    named: list[str] = field(default_factory=list)

    def add_stranger(self, key: str) -> None:
        """Count an object that no collection explains, and keep the names of the first few."""
        self.strangers += 1
        if len(self.named) < STRANGERS_NAMED:
            self.named.append(key)


class Recovery:
    """One run of ``recover``; with ``dry_run`` it tells the same and changes nothing."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        source: ConfigurationSource,
        clock: Clock,
        lease_seconds: float,
        listener: Listener,
        dry_run: bool,
    ) -> None:
        self._registry = registry
        self._store = store
        self._source = source
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._listener = listener
        self._dry_run = dry_run
        self._templates: dict[str, str | None] = {}

    async def run(self, only: str | None = None) -> None:
        """Register what is unknown, in all collections or ``only`` one; repeatable at any point.

        Raises ``StorageUnavailable`` and ``DatabaseUnavailable``; what was registered before stays.
        """
        survey = await self._survey(f"{only}/" if only else "")
        self._listener.expect(0 if self._dry_run else survey.size_bytes)
        for collection in sorted(survey.collections):
            try:
                await self._recover(collection)
            except ConfigurationFault as fault:
                self._listener.failed(f"collection {collection}", f"its configuration is broken: {fault.sentence}")
            except LeaseLost as error:
                why = f"{error.sentence}; it may have been taken by a server that started meanwhile: run this again"
                self._listener.failed(f"collection {collection}", why)
        if survey.strangers:
            more = ", …" if survey.strangers > len(survey.named) else ""
            self._listener.left(
                f"{survey.strangers} objects that belong to no collection's layout",
                ", ".join(sorted(survey.named)) + more,
            )

    async def _survey(self, prefix: str) -> _Survey:
        """Look through the storage in bounded memory: names of collections, not of objects, are kept."""
        survey = _Survey()
        batch: list[StoredObject] = []
        async for stored in self._store.list(prefix):
            batch.append(stored)
            if len(batch) == KEYS_AT_A_TIME:
                await self._sort(batch, survey)
                batch.clear()
        await self._sort(batch, survey)
        return survey

    async def _sort(self, batch: list[StoredObject], survey: _Survey) -> None:
        unknown = await unknown_keys(self._registry, (stored.key for stored in batch))
        for stored in batch:
            if stored.key not in unknown:
                continue
            place = place_of(stored.key)
            if place is None or not await self._may_be_ours(place):
                survey.add_stranger(stored.key)
            else:
                survey.collections.add(place.collection)
                survey.size_bytes += stored.size_bytes

    async def _may_be_ours(self, place: Place) -> bool:
        """Nothing but a configured collection tells a file of the Go server's layout from a stranger's."""
        if place.version_id:
            return True
        try:
            return await self._template(place.collection) is not None
        except ConfigurationFault:
            return True  # told, with its fault, when it is the collection's turn

    async def _template(self, collection: str) -> str | None:
        if collection not in self._templates:
            found = await self._source.collection(collection)
            self._templates[collection] = found.filename_template if found else None
        return self._templates[collection]

    # -- one collection --------------------------------------------------------------------------------------------

    async def _recover(self, collection: str) -> None:
        template = await self._template(collection)
        if self._dry_run:
            await self._apply(await self._plan(collection, template), None)
            return
        async with collection_held(self._registry, collection, self._lease_seconds) as lease:
            if lease is None:
                why = "an upload to it is running; run this again when it has ended"
                self._listener.failed(f"collection {collection}", why)
                return
            plan = await self._plan(collection, template)
            # First, so that an upload after a recovery that was killed half-way gets a number above all of these.
            await self._registry.raise_counter(collection, plan.highest)
            await self._apply(plan, lease)

    async def _plan(self, collection: str, template: str | None) -> RecoveryPlan:
        """Plan under the lease: nobody adds an object or takes a number meanwhile."""
        found = [stored async for stored in self._store.list(f"{collection}/")]
        unknown = await unknown_keys(self._registry, (stored.key for stored in found))
        objects = [stored for stored in found if stored.key in unknown and self._is_here(stored, template)]
        taken = {version.number for version in await self._registry.versions(collection)}
        for version, _ in await self._registry.expired_versions(EXPIRED_AT_MOST):
            if version.collection == collection:
                taken.add(version.number)
        last_number = await self._registry.next_number(collection) - 1
        return plan_recovery(objects, template, taken, last_number)

    def _is_here(self, stored: StoredObject, template: str | None) -> bool:
        place = place_of(stored.key)
        return place is not None and (bool(place.version_id) or template is not None)

    async def _apply(self, plan: RecoveryPlan, lease: Lease | None) -> None:
        for adoption in plan.adoptions:
            try:
                if lease is not None:
                    await self._adopt(adoption, lease)
            except ObjectMissing:
                continue  # removed since it was listed
            except ObjectDamaged as error:
                self._listener.failed(adoption.stored.key, error.sentence)
                continue
            renumbered = adoption.number != adoption.named_number
            self._listener.took(
                f"{adoption.stored.key} as version {adoption.number} of {adoption.place.collection}",
                f"number {adoption.named_number} is taken" if renumbered else "",
            )
        for stored, reason in plan.left:
            self._listener.left(stored.key, reason)

    async def _adopt(self, adoption: Adoption, lease: Lease) -> None:
        version = await self._read(adoption)
        try:
            await self._registry.adopt_version(version, lease)
        except LeaseLost:
            if not await self._registry.renew_lease(lease, self._lease_seconds):
                raise
            # The lease is ours, so it is the id that is taken: the object is a copy, made by hand.
            await self._registry.adopt_version(_with_own_id(version), lease)

    async def _read(self, adoption: Adoption) -> Version:
        """Read the whole object, a buffer at a time."""
        key, place = adoption.stored.key, adoption.place
        size_bytes = await self._store.size(key)
        digest = hashlib.sha256()
        async for data in self._store.read(key, 0, size_bytes, digest):
            self._listener.read(len(data))
        return Version(
            id=place.version_id or str(uuid.uuid5(_IDS, key)),
            collection=place.collection,
            number=adoption.number,
            filename=place.filename,
            object_key=key,
            size_bytes=size_bytes,
            sha256=digest.hexdigest(),
            session_id="",
            uploader="",
            created_at=adoption.stored.modified_at,
            updated_at=adoption.stored.modified_at,
            checked_at=self._clock.now(),
        )


def _with_own_id(version: Version) -> Version:
    return version._replace(id=str(uuid.uuid5(_IDS, version.object_key)))
