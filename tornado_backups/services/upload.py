"""One upload, from permission to registered version.

Owns: the order of its steps and the way back from each of them.
Does not own: HTTP (``web``), the rules (``domain``), how bytes and rows become durable (``storage``, ``registry``).

The order is the promise (docs/crash-order.md): permission, window, lease, plan, budget, intent; bytes; final checks;
object durable; one transaction for version, rotation marks and lease. Whatever ends an upload early,
:meth:`Upload.abort` undoes what exists; whatever kills the process, the intent names what maintenance has to undo.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import uuid
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tornado_backups.domain.errors import (
    Busy,
    DatabaseUnavailable,
    DigestMismatch,
    LeaseLost,
    NotAuthenticated,
    QuotaExceeded,
    RequestError,
    UploadCancelled,
    UploadInProgress,
    WindowClosed,
)
from tornado_backups.domain.model import Actor, Collection, Intent, Lease, Version
from tornado_backups.domain.openpgp import MessageCheck
from tornado_backups.domain.permissions import Action, may
from tornado_backups.domain.rotation import RotationPlan, plan_rotation
from tornado_backups.domain.units import format_size
from tornado_backups.domain.windows import is_open, next_opening
from tornado_backups.ports import Clock, ObjectStore, Registry, UploadSink
from tornado_backups.services.catalogue import Catalogue

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 64 * 1024
"""Smaller pieces are gathered up to this before they cost a thread call; larger ones pass through uncopied."""

FORM_FRAMING_BYTES = 64 * 1024
"""How much of a form's declared length may be framing: it is refused early only when that much less is too much."""

COMMIT_ATTEMPTS = 5
COMMIT_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What the headers of an upload say: ``declared_bytes`` is its length on the wire, None when chunked."""

    actor: Actor
    collection: str
    declared_bytes: int | None
    declared_sha256: str | None = None
    is_form: bool = False


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The server's own bounds: uploads at a time, and how long a lease lives between heartbeats."""

    max_concurrent: int
    lease_seconds: float


class Client(Protocol):
    """The other end of an upload's connection."""

    def still_there(self) -> bool:
        """Tell whether the client is still connected; a half-closed connection counts as gone."""

    async def still_allowed(self) -> bool:
        """Tell whether the session that began the upload is still good."""


class UploadListener(Protocol):
    """Hears how uploads end; must neither raise nor block."""

    def stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        """A version was registered, and ``plan`` was applied with it."""

    def refused(self, collection: Collection, error: RequestError) -> None:
        """An upload of somebody who may upload here was refused or failed."""


class Uploads:
    """Begins uploads and knows those that run."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        catalogue: Catalogue,
        clock: Clock,
        limits: UploadLimits,
        hashing: Executor,
    ) -> None:
        self._registry = registry
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._limits = limits
        self._hashing = hashing
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
        if self._places_taken >= self._limits.max_concurrent:
            raise Busy(f"{self._limits.max_concurrent} uploads are running, which is all this server accepts at a time")
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
        now = self._clock.now()
        if not collection.windows or is_open(collection.windows, now) or may(actor, Action.UPLOAD_ANYTIME, collection):
            return
        opens_at = next_opening(collection.windows, now)
        when = f"the next one opens at {opens_at.isoformat()}" if opens_at else "none will open again"
        raise WindowClosed(f"no backup window of this collection is open now; {when}", opens_at)

    async def _begin_leased(self, request: UploadRequest, collection: Collection, client: Client) -> Upload:
        lease = await self._registry.acquire_lease(lease_name(collection.name), self._limits.lease_seconds)
        if lease is None:
            raise UploadInProgress("another upload to this collection is running; try again when it has ended")
        renewed_at = self._clock.monotonic()
        try:
            now = self._clock.now()
            plan = await self._plan(collection, now, None)
            check_declared(request, plan.allowed_bytes)
            intent = await self._intend(collection, lease, now)
        except BaseException:
            await asyncio.shield(self._give_back(lease))
            raise
        try:
            sink = await self._store.begin(intent.object_key, None if request.is_form else request.declared_bytes)
        except BaseException:
            await asyncio.shield(undo(self._registry, self._store, intent, None))
            raise
        upload = Upload(self, request, collection, intent, sink, plan.allowed_bytes, client, renewed_at)
        self.running.add(upload)
        return upload

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._registry.release_lease(lease)
        except RequestError as error:
            log.warning("the lease %s is left to expire: %s", lease.name, error)

    async def _plan(self, collection: Collection, now: datetime, size_bytes: int | None) -> RotationPlan:
        versions = await self._registry.versions(collection.name)
        plan = plan_rotation(collection, versions, now, size_bytes)
        if plan.refusal is not None:
            raise plan.refusal
        return plan

    async def _intend(self, collection: Collection, lease: Lease, now: datetime) -> Intent:
        number = await self._registry.next_number(collection.name)
        version_id = str(uuid.uuid4())
        filename = collection.filename(number)
        intent = Intent(
            id=version_id,
            collection=collection.name,
            number=number,
            filename=filename,
            object_key=f"{collection.name}/{version_id}/{filename}",
            lease=lease,
            created_at=now,
        )
        await self._registry.add_intent(intent)
        return intent

    def _ended(self, upload: Upload) -> None:
        if upload in self.running:
            self.running.remove(upload)
            self._places_taken -= 1


def lease_name(collection: str) -> str:
    """Return the name of the lease that guards a collection's versions."""
    return f"collection/{collection}"


def check_declared(request: UploadRequest, allowed_bytes: int | None) -> None:
    """Raise ``QuotaExceeded`` when the declared length alone is too much (a form's framing is let off)."""
    if request.declared_bytes is None or allowed_bytes is None:
        return
    least = request.declared_bytes - (FORM_FRAMING_BYTES if request.is_form else 0)
    if least > allowed_bytes:
        raise too_large(request.declared_bytes, allowed_bytes, declared=True)


def too_large(size_bytes: int, allowed_bytes: int, declared: bool) -> QuotaExceeded:
    """Return the refusal, with both figures in its text."""
    verb = "declared" if declared else "received"
    return QuotaExceeded(
        f"the file is too large: {size_bytes} bytes {verb}, {allowed_bytes} bytes"
        f" ({format_size(allowed_bytes)}) allowed now",
        size_bytes,
        allowed_bytes,
        declared,
    )


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
        uploads: Uploads,
        request: UploadRequest,
        collection: Collection,
        intent: Intent,
        sink: UploadSink,
        allowed_bytes: int | None,
        client: Client,
        renewed_at: float,
    ) -> None:
        self.collection = collection
        self.actor = request.actor
        self.received_bytes = 0
        self._request = request
        self._uploads = uploads
        self._intent = intent
        self._sink = sink
        self._allowed_bytes = allowed_bytes
        self._client = client
        self._check = MessageCheck()
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()
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

    async def write(self, data: bytes) -> None:
        """Take the next bytes of the file: count, check, hash, store; awaiting it is the back-pressure.

        Raises ``QuotaExceeded`` at the first byte too many, ``NotEncrypted``, ``LeaseLost`` or a ``StorageError``;
        the caller then calls :meth:`abort`.
        """
        self.received_bytes += len(data)
        if self._allowed_bytes is not None and self.received_bytes > self._allowed_bytes:
            raise too_large(self.received_bytes, self._allowed_bytes, declared=False)
        self._check.feed(data)
        if not self._buffer and len(data) >= WRITE_BUFFER_BYTES:
            await self._pass_on(data)
            return
        self._buffer += data
        if len(self._buffer) >= WRITE_BUFFER_BYTES:
            await self._pass_on(self._take_buffer())

    def _take_buffer(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def _pass_on(self, data: bytes) -> None:
        async with self._writing:
            self._raise_if_ended()
            if len(data) < WRITE_BUFFER_BYTES:
                self._sha256.update(data)
                await self._sink.write(data)
                return
            # Both release the interpreter lock, so hashing costs no time of its own while the storage is written.
            hashed = asyncio.get_running_loop().run_in_executor(self._uploads._hashing, self._sha256.update, data)
            try:
                await self._sink.write(data)
            finally:
                await hashed

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
        uploads = self._uploads
        if self._buffer:
            await self._pass_on(self._take_buffer())
        self._check.finish()
        sha256 = self._sha256.hexdigest()
        declared = self._request.declared_sha256
        if declared is not None and not hmac.compare_digest(declared, sha256):
            raise DigestMismatch(f"the body's SHA-256 is {sha256}, but {declared} was declared")
        self._raise_if_gone()
        # Judged by the time it began: what the headers were promised must not age away while the bytes arrive.
        plan = await uploads._plan(self.collection, self._intent.created_at, self.received_bytes)
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
        uploads.tell_stored(self.collection, version, plan)
        return version

    def _finish(self) -> None:
        self._heartbeat.cancel()
        self._uploads._ended(self)
        self._ending = asyncio.get_running_loop().create_future()
        self._ending.set_result(None)

    def _raise_if_gone(self) -> None:
        if not self._client.still_there():
            raise UploadCancelled("the client disconnected before the version was registered")

    def _version(self, sha256: str) -> Version:
        now = self._uploads._clock.now()
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
                await self._uploads._registry.commit_upload(self._intent, version, plan.removals, end_session_id)
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
                    await undo(self._uploads._registry, self._uploads._store, self._intent, self._sink)
        finally:
            self._buffer.clear()
            self._uploads._ended(self)

    async def _keep_lease(self) -> None:
        """Renew the lease every third of its life; once it cannot be ours any more, let nothing be written."""
        uploads = self._uploads
        ttl = uploads._limits.lease_seconds
        while True:
            await asyncio.sleep(ttl / 3)
            asked_at = uploads._clock.monotonic()
            try:
                renewed = await uploads._registry.renew_lease(self._intent.lease, ttl)
            except DatabaseUnavailable:
                renewed = uploads._clock.monotonic() - self._renewed_at < ttl
            else:
                self._renewed_at = asked_at
            if not renewed:
                self._lease_lost = True
                log.warning("upload to %s lost its lease", self.collection.name)
                return
