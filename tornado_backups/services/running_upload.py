"""One running upload: bytes in, final checks, registered version; and the way back from every step.

Owns: counting, checking, hashing and storing each buffer; the heartbeat of the lease; commit and abort.
Does not own: what comes before the first byte (``services/upload``), HTTP (``web``), how bytes and rows become durable
(``storage``, ``registry``). The order of commit is the promise: docs/crash-order.md.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tornado_backups.domain.errors import (
    DatabaseUnavailable,
    DigestMismatch,
    LeaseLost,
    NotAuthenticated,
    RequestError,
    UploadCancelled,
)
from tornado_backups.domain.model import Collection, Intent, Version
from tornado_backups.domain.openpgp import MessageCheck
from tornado_backups.domain.rotation import RotationPlan, plan_rotation
from tornado_backups.ports import Clock, Digest, ObjectStore, Registry, UploadSink
from tornado_backups.services.upload_request import Client, UploadRequest, too_large

log = logging.getLogger(__name__)

COMMIT_ATTEMPTS = 5
COMMIT_RETRY_SECONDS = 1.0


class Hash(Digest, Protocol):
    """A hash that the storage feeds and the commit reads."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hex."""


@dataclass(frozen=True, slots=True)
class Room:
    """What every upload of this server uses, and whom it tells about its end."""

    registry: Registry
    store: ObjectStore
    clock: Clock
    lease_seconds: float
    stored: Callable[[Collection, Version, RotationPlan], None]
    ended: Callable[[Upload], None]


def plan_upload(
    collection: Collection, versions: Sequence[Version], now: datetime, size_bytes: int | None
) -> RotationPlan:
    """Return the rotation plan of an upload of ``size_bytes`` (None: not known yet); raises its refusal."""
    plan = plan_rotation(collection, versions, now, size_bytes)
    if plan.refusal is not None:
        raise plan.refusal
    return plan


async def undo(registry: Registry, store: ObjectStore, intent: Intent, sink: UploadSink | None) -> None:
    """Clean the storage, then forget the intent and release its lease; a failure leaves both to maintenance."""
    try:
        if sink is not None:
            await sink.abort()
        else:
            await store.abandon(intent.object_key)
        await registry.drop_intent(intent)
    except RequestError as error:
        log.warning("upload to %s: clean-up is left to the next maintenance pass: %s", intent.collection, error)


class Upload:
    """One running upload; used by one task at a time, but :meth:`abort` may come from anywhere."""

    def __init__(
        self,
        room: Room,
        request: UploadRequest,
        collection: Collection,
        intent: Intent,
        sink: UploadSink,
        sha256: Hash,
        allowed_bytes: int | None,
        client: Client,
        renewed_at: float,
    ) -> None:
        self.collection = collection
        self.actor = request.actor
        self.received_bytes = 0
        self._request = request
        self._room = room
        self._intent = intent
        self._sink = sink
        self._allowed_bytes = allowed_bytes
        self._client = client
        self._check = MessageCheck()
        self._sha256 = sha256
        self._lease_lost = False
        self._outcome_unknown = False
        self._ending: asyncio.Future[None] | None = None
        self._writing = asyncio.Lock()
        self._renewed_at = renewed_at
        self._heartbeat = asyncio.create_task(self._keep_lease())

    @property
    def needs_grace(self) -> bool:
        """Whether only the connection tells that the body is whole: no length, no digest was declared."""
        return self._request.declared_bytes is None and self._request.declared_sha256 is None

    def room(self) -> memoryview:
        """Return memory into which the next bytes may be received, see ``UploadSink``; empty once the upload ended."""
        return memoryview(b"") if self._ending is not None else self._sink.room()

    async def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file: count, check, hash, store; awaiting it is the back-pressure.

        They are hashed and stored while the next ones arrive: what goes wrong there may be raised by a later call or
        by :meth:`commit`. Raises ``QuotaExceeded`` at the first byte too many, ``NotEncrypted``, ``LeaseLost`` or a
        ``StorageError``; the caller then calls :meth:`abort`.
        """
        self.received_bytes += len(data)
        if self._allowed_bytes is not None and self.received_bytes > self._allowed_bytes:
            raise too_large(self.received_bytes, self._allowed_bytes, declared=False)
        self._check.feed(data)
        async with self._writing:
            self._raise_if_ended()
            await self._sink.write(data)

    async def _settle(self) -> None:
        """Have all of it hashed."""
        async with self._writing:
            self._raise_if_ended()
            await self._sink.settle()

    def _raise_if_ended(self) -> None:
        if self._lease_lost:
            raise LeaseLost("this upload lost its lock on the collection; nothing was stored, try again")
        if self._ending is not None:
            raise UploadCancelled("the upload was aborted")

    async def commit(self) -> Version:
        """Finish: final checks, object durable, version registered, rotation marked, lease released; return it.

        Raises the refusals that only the whole body shows (``EmptyUpload``, ``Truncated``, ``NotEncrypted``,
        ``DigestMismatch``, quota while rotation is withheld), and ``UploadCancelled`` when the client has gone before
        the version was registered. The caller then calls :meth:`abort`.
        """
        await self._settle()
        self._check.finish()
        sha256 = self._sha256.hexdigest()
        declared = self._request.declared_sha256
        if declared is not None and not hmac.compare_digest(declared, sha256):
            raise DigestMismatch(f"the body's SHA-256 is {sha256}, but {declared} was declared")
        self._raise_if_gone()
        versions = await self._room.registry.versions(self.collection.name)
        # Judged by the time it began: what the headers were promised must not age away while the bytes arrive.
        plan = plan_upload(self.collection, versions, self._intent.created_at, self.received_bytes)
        async with self._writing:
            self._raise_if_ended()
            await self._sink.complete()
        if not await self._client.still_allowed():
            raise NotAuthenticated("this session was ended while the upload ran; nothing was stored")
        self._raise_if_gone()
        self._raise_if_ended()
        version = self._version(sha256)
        await self._register(version, plan)
        self._finish()
        self._room.stored(self.collection, version, plan)
        return version

    def _finish(self) -> None:
        self._heartbeat.cancel()
        self._room.ended(self)
        self._ending = asyncio.get_running_loop().create_future()
        self._ending.set_result(None)

    def _raise_if_gone(self) -> None:
        if not self._client.still_there():
            raise UploadCancelled("the client disconnected before the version was registered")

    def _version(self, sha256: str) -> Version:
        now = self._room.clock.now()
        session = self.actor.session
        return Version(
            id=self._intent.id,
            collection=self.collection.name,
            number=self._intent.number,
            filename=self._intent.filename,
            object_key=self._intent.object_key,
            size_bytes=self.received_bytes,
            sha256=sha256,
            session_id=session.id,
            uploader=self.actor.user.name,
            created_at=now,
            updated_at=now,
            checked_at=now,
        )

    async def _register(self, version: Version, plan: RotationPlan) -> None:
        """Commit, and ask again while the answer is lost: until it is known the object must not be touched."""
        session = self.actor.session
        end_session_id = session.id if session.single_use else None
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            self._outcome_unknown = True
            try:
                await self._room.registry.commit_upload(self._intent, version, plan.removals, end_session_id)
                return
            except DatabaseUnavailable:
                if attempt == COMMIT_ATTEMPTS:
                    raise
                await asyncio.sleep(COMMIT_RETRY_SECONDS)
            except RequestError:
                self._outcome_unknown = False
                raise

    async def abort(self) -> None:
        """Undo whatever exists and give the collection free; may be called at any time, any number of times.

        After a commit whose outcome is unknown (the database went away while it answered) it touches nothing:
        maintenance finds either an intent, and cleans, or a version, and keeps it.
        """
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._undo())
        await asyncio.shield(self._ending)

    async def _undo(self) -> None:
        self._heartbeat.cancel()
        try:
            async with self._writing:
                if not self._outcome_unknown:
                    await undo(self._room.registry, self._room.store, self._intent, self._sink)
        finally:
            self._room.ended(self)

    async def _keep_lease(self) -> None:
        """Renew the lease every third of its life; once it cannot be ours any more, let nothing be written."""
        room = self._room
        ttl = room.lease_seconds
        while True:
            await asyncio.sleep(ttl / 3)
            asked_at = room.clock.monotonic()
            try:
                renewed = await room.registry.renew_lease(self._intent.lease, ttl)
            except DatabaseUnavailable:
                renewed = room.clock.monotonic() - self._renewed_at < ttl
            else:
                self._renewed_at = asked_at
            if not renewed:
                self._lease_lost = True
                log.warning("upload to %s lost its lease", self.collection.name)
                return
