"""The beginning of an upload: everything that is decided before its first byte.

Owns: the order of those steps, and the places and leases that running uploads hold.
Does not own: the bytes and the commit (``services/running_upload``), HTTP (``web``), the rules (``domain``).

The order is the promise (docs/crash-order.md): permission, window, place, lease, plan, budget, intent. A refusal leaves
nothing behind; a kill leaves a lease that runs out and an intent that names what maintenance has to undo.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from datetime import datetime

from tornado_backups.domain.errors import Busy, RequestError, UploadInProgress, WindowClosed
from tornado_backups.domain.model import Actor, Beginning, Collection, Intent, Lease, Version
from tornado_backups.domain.permissions import Action, may
from tornado_backups.domain.rotation import RotationPlan
from tornado_backups.domain.windows import is_open, next_opening
from tornado_backups.ports import Clock, ObjectStore, Registry
from tornado_backups.services.catalogue import Catalogue
from tornado_backups.services.running_upload import Room, Upload, plan_upload, undo
from tornado_backups.services.upload_request import (
    Client,
    UploadLimits,
    UploadListener,
    UploadRequest,
    check_declared,
)

log = logging.getLogger(__name__)


class Uploads:
    """Begins uploads and knows those that run."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        catalogue: Catalogue,
        clock: Clock,
        limits: UploadLimits,
    ) -> None:
        self._room = Room(registry, store, clock, limits.lease_seconds, self.tell_stored, self._ended)
        self._catalogue = catalogue
        self._max_concurrent = limits.max_concurrent
        self._places_taken = 0
        self.running: set[Upload] = set()
        self.listeners: list[UploadListener] = []

    async def begin(self, request: UploadRequest, client: Client) -> Upload:
        """Check everything that the headers allow, write the intent down, and return an upload ready for bytes.

        Raises every refusal of the contract that can be known by now; then nothing is left behind.
        """
        collection = await self._catalogue.find(request.actor, request.collection, Action.UPLOAD)
        try:
            self._check_window(request.actor, collection)
            return await self._begin_in_place(request, collection, client)
        except RequestError as error:
            self.tell_refused(collection, error)
            raise

    async def _begin_in_place(self, request: UploadRequest, collection: Collection, client: Client) -> Upload:
        if self._places_taken >= self._max_concurrent:
            raise Busy(f"{self._max_concurrent} uploads are running, which is all this server accepts at a time")
        self._places_taken += 1
        try:
            return await self._begin_leased(request, collection, client)
        except BaseException:
            self._places_taken -= 1
            raise

    def tell_stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        """Tell every listener that a version was registered, and what its rotation removes."""
        for listener in self.listeners:
            listener.stored(collection, version, plan)

    def tell_refused(self, collection: Collection, error: RequestError) -> None:
        """Tell every listener that an upload to a collection was refused or failed."""
        for listener in self.listeners:
            listener.refused(collection, error)

    def _check_window(self, actor: Actor, collection: Collection) -> None:
        now = self._room.clock.now()
        if not collection.windows or is_open(collection.windows, now) or may(actor, Action.UPLOAD_ANYTIME, collection):
            return
        opens_at = next_opening(collection.windows, now)
        when = f"the next one opens at {opens_at.isoformat()}" if opens_at else "none will open again"
        raise WindowClosed(f"no backup window of this collection is open now; {when}", opens_at)

    async def _begin_leased(self, request: UploadRequest, collection: Collection, client: Client) -> Upload:
        beginning = await self._room.registry.begin_upload(
            collection.name, lease_name(collection.name), self._room.lease_seconds
        )
        if beginning is None:
            raise UploadInProgress("another upload to this collection is running; try again when it has ended")
        renewed_at = self._room.clock.monotonic()
        try:
            now = self._room.clock.now()
            plan = plan_upload(collection, beginning.versions, now, None)
            check_declared(request, plan.allowed_bytes)
            intent = await self._intend(collection, beginning, now)
        except BaseException:
            await asyncio.shield(self._give_back(beginning.lease))
            raise
        try:
            sha256 = hashlib.sha256()
            expected = None if request.is_form else request.declared_bytes
            sink = await self._room.store.begin(intent.object_key, expected, sha256)
        except BaseException:
            await asyncio.shield(undo(self._room.registry, self._room.store, intent, None))
            raise
        upload = Upload(self._room, request, collection, intent, sink, sha256, plan.allowed_bytes, client, renewed_at)
        self.running.add(upload)
        return upload

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._room.registry.release_lease(lease)
        except RequestError as error:
            log.warning("the lease %s is left to expire: %s", lease.name, error)

    async def _intend(self, collection: Collection, beginning: Beginning, now: datetime) -> Intent:
        version_id = str(uuid.uuid4())
        filename = collection.filename(beginning.next_number)
        intent = Intent(
            id=version_id,
            collection=collection.name,
            number=beginning.next_number,
            filename=filename,
            object_key=f"{collection.name}/{version_id}/{filename}",
            lease=beginning.lease,
            created_at=now,
        )
        await self._room.registry.add_intent(intent)
        return intent

    def _ended(self, upload: Upload) -> None:
        if upload in self.running:
            self.running.remove(upload)
            self._places_taken -= 1


def lease_name(collection: str) -> str:
    """Return the name of the lease that guards a collection's versions."""
    return f"collection/{collection}"
