"""Versions of a collection: list and upload; one version: download and delete.

Owns: how the bytes of a version travel over HTTP, both ways.
Does not own: the steps of an upload (``services/upload``) and what makes a download good (``services/download``).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import sys
import termios
import time
from contextlib import aclosing
from typing import Any

from tornado.httputil import HTTPServerRequest

from tornado_backups.domain.errors import (
    AppendOnly,
    NotAuthenticated,
    NotFound,
    Protected,
    RequestError,
    UploadCancelled,
)
from tornado_backups.domain.model import Version
from tornado_backups.domain.permissions import Action
from tornado_backups.domain.rotation import protected_until
from tornado_backups.services.download import find_version
from tornado_backups.services.present import timestamp, version_json, versions_text
from tornado_backups.services.removal import remove_expired
from tornado_backups.services.running_upload import Upload
from tornado_backups.services.upload_request import UploadRequest
from tornado_backups.web import fields
from tornado_backups.web.base import ApiHandler
from tornado_backups.web.direct_reads import DirectStream
from tornado_backups.web.form import FormReader
from tornado_backups.web.giving_way import give_way

log = logging.getLogger(__name__)

ABORT_WAIT_SECONDS = 10.0


class TransferHandler(ApiHandler):
    """A request that moves a file: counted, timed, and cut when its session ends meanwhile."""

    def begin_transfer(self, kind: str, timeout_seconds: float) -> None:
        """Count the transfer as running; ``kind`` is ``upload`` or ``download``."""
        self._kind = kind
        self._began_at = time.monotonic()
        self.context.transfers.add(self)
        self.context.metrics.add(f"{kind}s_running")
        self._deadline = self._loop.call_later(timeout_seconds, self.expire, "the whole request took too long")
        self._session_check = asyncio.create_task(self._watch_session())

    def end_transfer(self, result: str, moved_bytes: int) -> None:
        """Take the transfer off the list and count how it ended; only the first call counts."""
        if self not in self.context.transfers:
            return
        self.context.transfers.discard(self)
        self._session_check.cancel()
        metrics = self.context.metrics
        metrics.add(f"{self._kind}s_running", -1)
        metrics.add(f"{self._kind}s_total", result=result)
        metrics.add(f"{self._kind}_bytes_total", moved_bytes)
        if result == "ok":
            metrics.observe(f"{self._kind}_seconds", time.monotonic() - self._began_at)

    def idle_since(self) -> float:
        """A transfer may take long as long as it moves."""
        return self._progress_at

    async def still_allowed(self) -> bool:
        """Tell whether the transfer may go on: not revoked, its user not deactivated, its address still allowed."""
        return await self.context.sessions.still_valid(self.session_actor(), self.address)

    async def _watch_session(self) -> None:
        while True:
            await asyncio.sleep(self.context.settings.recheck_session_seconds)
            if not await self.still_allowed():
                self.cut(NotAuthenticated("this session was ended while the transfer ran"))
                return

    def cut(self, error: RequestError) -> None:
        """End a running transfer from outside: with an answer while that is possible, else by closing.

        A commit that is under way is left alone: its outcome must reach the client.
        """
        if self._kind == "upload" and self._verb_running:
            return
        task = asyncio.ensure_future(self._refuse(error))
        self.context.tasks.add(task)
        task.add_done_callback(self.context.tasks.discard)


class VersionsHandler(TransferHandler):
    """``…/collection/{collection}/version``: GET lists, POST and PUT store a new version."""

    starts_work = frozenset({"POST", "PUT"})
    _upload: Upload | None = None
    audits_its_refusals = False
    _form: FormReader | None = None

    async def on_get(self) -> None:
        """List the versions, ascending by number."""
        collection = await self.context.catalogue.find(
            self.session_actor(), self.path_kwargs["collection"], Action.LIST
        )
        versions = await self.context.registry.versions(collection.name)
        self.answer_written(f'{{"versions": {versions_text(versions)}}}')

    async def before_body(self) -> None:
        """Refuse an upload as long as nothing of it has been sent, or open it."""
        if self.request.method not in ("POST", "PUT"):
            return
        try:
            request = self._upload_request(self.request)
            self._upload = await self.context.uploads.begin(request, self)
        except RequestError as error:
            self.context.metrics.add("uploads_total", result=error.reason)
            raise
        self.begin_transfer("upload", self.context.settings.http_upload_timeout)
        stream = self.wire.stream
        if isinstance(stream, DirectStream) and self._form is None and request.declared_bytes:
            stream.lend(self._upload.room, request.declared_bytes)

    def _upload_request(self, request: HTTPServerRequest) -> UploadRequest:
        content_type = request.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
            self._form = FormReader.from_content_type(content_type)
        digest_of = fields.declared_digest if self._form is None else fields.declared_form_digest
        declared = request.headers.get("Content-Length")
        return UploadRequest(
            actor=self.session_actor(),
            collection=self.path_kwargs["collection"],
            declared_bytes=None if declared is None else int(declared),
            declared_sha256=digest_of(request.headers.get),
            is_form=self._form is not None,
        )

    async def take(self, chunk: bytes | memoryview) -> None:
        """Pass the bytes of the file on as they arrive; the wait for storage is what slows the client down."""
        if self._upload is None:
            await super().take(chunk)
        elif self._form is None:
            await self._upload.write(chunk)
        else:
            for payload in self._form.feed(bytes(chunk)):
                await self._upload.write(payload)

    async def on_post(self) -> None:
        """Commit what arrived, and answer with the new version."""
        assert self._upload is not None
        # From here on commit() looks for itself whether the session is still good.
        self._session_check.cancel()
        if self._form is not None:
            self._form.finish()
        if self._upload.needs_grace:
            await self._wait_for_cancellation()
        version = await self._upload.commit()
        self.end_transfer("ok", version.size_bytes)
        self._audit("ok", version)
        self.answer({"version": version_json(version)})

    on_put = on_post

    async def _wait_for_cancellation(self) -> None:
        """Give a client time to drop the connection: the only way some have to say that their dump failed."""
        grace = self.context.settings.chunked_commit_grace
        if grace <= 0:
            return
        try:
            await asyncio.wait_for(self.gone.wait(), grace)
        except TimeoutError:
            return
        raise UploadCancelled("the client disconnected within the grace for uploads without a length")

    async def on_refusal(self, error: RequestError) -> None:
        """Undo the upload before it is answered, so that the next one finds the collection free."""
        if self._upload is None:
            return
        if isinstance(self.wire.stream, DirectStream):
            self.wire.stream.take_back()
        reason = "cancelled" if isinstance(error, UploadCancelled) else error.reason
        self.end_transfer(reason, self._upload.received_bytes)
        self.audits_its_refusals = True
        self._audit(reason, None)
        self.context.uploads.tell_refused(self._upload.collection, error)
        await asyncio.wait([asyncio.ensure_future(self._upload.abort())], timeout=ABORT_WAIT_SECONDS)

    def on_connection_close(self) -> None:
        """Cancel the upload, unless its commit is under way: that one looks for itself."""
        super().on_connection_close()
        if self._upload is not None:
            self.cut(UploadCancelled("the client disconnected"))

    def _audit(self, result: str, version: Version | None) -> None:
        assert self._upload is not None
        actor = self.session_actor()
        self.context.audit.record(
            "upload",
            result,
            user=actor.user.name,
            session_id=actor.session.id,
            address=self.address,
            collection=self._upload.collection.name,
            version=version.number if version else None,
            size=self._upload.received_bytes,
            sha256=version.sha256 if version else None,
        )


class VersionHandler(TransferHandler):
    """``…/collection/{collection}/version/{version}``: GET and HEAD download, DELETE removes."""

    starts_work = frozenset({"GET", "HEAD"})
    _sent_bytes = 0
    _acknowledged = 0

    async def on_get(self) -> None:
        """Send the stored bytes, whole or one range of them."""
        downloads = self.context.downloads
        version = await downloads.find(
            self.session_actor(), self.path_kwargs["collection"], self.path_kwargs["version"]
        )
        self._describe(version)
        if fields.etag_matches(self.request.headers.get("If-None-Match", ""), self._etag(version)):
            self.set_status(304)
            self.finish()
            return
        wanted = self._wanted_range(version)
        await downloads.check_present(version)
        start, length = (0, version.size_bytes) if wanted is None else (wanted.start, wanted.length)
        if wanted is not None:
            self.set_status(206)
            self.set_header("Content-Range", wanted.content_range(version.size_bytes))
        self.set_header("Content-Length", str(length))
        if self.request.method == "HEAD":
            self.finish()
            return
        self.begin_transfer("download", self.context.settings.http_download_timeout)
        await self._send(version, start, length)

    on_head = on_get

    def _etag(self, version: Version) -> str:
        return fields.etag_for(version.sha256) if version.sha256 else f'"{version.id}"'

    def _describe(self, version: Version) -> None:
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", fields.content_disposition(version.filename))
        self.set_header("ETag", self._etag(version))
        if version.sha256:
            self.set_header("Repr-Digest", fields.repr_digest(version.sha256))
        self.set_header("Last-Modified", fields.http_date(version.created_at))
        self.set_header("Accept-Ranges", "bytes")

    def _wanted_range(self, version: Version) -> fields.ByteRange | None:
        headers = self.request.headers
        condition = headers.get("If-Range")
        if condition is not None and not fields.if_range_matches(condition, self._etag(version), version.created_at):
            return None
        return fields.parse_range(headers.get("Range", ""), version.size_bytes)

    async def _send(self, version: Version, start: int, length: int) -> None:
        async with aclosing(self.context.downloads.stream(version, start, length)) as stream:
            self._arm(self.context.settings.idle_timeout)
            await self.flush()
            async for data in stream:
                self._progress()
                await self.wire.write(data)  # type: ignore[arg-type]  # the stream takes memory of any kind
                self._sent_bytes += len(data)
                self._progress()
                if self._sent_bytes < length:
                    await give_way()
        self._disarm()
        self.end_transfer("ok", self._sent_bytes)
        self._audit("download", "ok", version)
        self.finish()

    def idle_since(self) -> float:
        """A slow reader moves on as long as its side of the connection acknowledges bytes."""
        stream = self.wire.stream
        done = getattr(stream, "_total_write_done_index", 0) - unacknowledged_bytes(stream.socket)
        if done != self._acknowledged:
            self._acknowledged = done
            self._progress()
        return self._progress_at

    def expire(self, sentence: str) -> None:
        """Drop the connection of a download: an answer has begun, so only its short body can tell."""
        log.warning("%s: %s; dropped after %d bytes", self._request_summary(), sentence, self._sent_bytes)
        self.end_transfer("timeout", self._sent_bytes)
        self.wire.stream.close()

    async def on_refusal(self, error: RequestError) -> None:
        """Count a download that broke off."""
        result = "cancelled" if isinstance(error, UploadCancelled) else error.reason
        if self in self.context.transfers:
            self.end_transfer(result, self._sent_bytes)
            self._audit("download", result, None)

    async def on_delete(self) -> None:
        """Remove a version: marked first, object next, row last."""
        context = self.context
        actor = self.session_actor()
        collection = await context.catalogue.find(actor, self.path_kwargs["collection"], Action.DELETE)
        if context.settings.append_only:
            raise AppendOnly("this server is append-only: versions leave by rotation, never by request")
        version = await find_version(context.registry, collection.name, self.path_kwargs["version"])
        if version is None:
            raise NotFound(f"there is no version {self.path_kwargs['version']!r} in this collection")
        now = context.clock.now()
        until = protected_until(collection, version, now)
        if until is not None:
            raise Protected(f"version {version.number} is protected until {until.isoformat()}", until)
        reason = f"deleted by {actor.user.name}"
        if not await context.registry.expire_version(version, reason, now):
            raise NotFound(f"there is no version {version.number} in this collection")
        self._audit("delete", "ok", version)
        await remove_expired(context.registry, context.store, [(version, reason)])
        self.answer({"version": version_json(version) | {"DeletedAt": timestamp(now)}})

    def _audit(self, event: str, result: str, version: Version | None) -> None:
        actor = self.session_actor()
        details: dict[str, Any] = {"sent": self._sent_bytes} if event == "download" else {}
        self.context.audit.record(
            event,
            result,
            user=actor.user.name,
            session_id=actor.session.id,
            address=self.address,
            collection=self.path_kwargs["collection"],
            version=version.number if version else self.path_kwargs["version"],
            **details,
        )


def unacknowledged_bytes(connection: socket.socket) -> int:
    """Return how many written bytes the kernel still holds: megabytes, where it asks for more only in large steps."""
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0  # no such question for this kind of socket: what the kernel takes is what counts then
