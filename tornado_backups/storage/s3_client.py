"""One S3 client: how it is made small, how long it waits, and how often it tries again.

Owns: the aiobotocore client of one store, the retries with backoff, the watch over stalled transfers.
Does not own: what is asked of it (``storage/s3.py``, ``storage/s3_upload.py``) or what errors mean
(``storage/s3_faults.py``). Imported only when an S3 store is opened. Explained in docs/storage.md.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

from tornado_backups import __version__
from tornado_backups.storage.s3_data import small_loader
from tornado_backups.storage.s3_faults import FAULTS, code_of, explain, is_transient, storage_error
from tornado_backups.storage.s3_limits import S3Limits
from tornado_backups.storage.s3_url import S3Location

# A file-like body costs a round trip for "Expect: 100-continue"; up to here it is cheaper to send it as it is.
_WHOLE_BODY_BYTES = 64 * 1024

_WATCH_SECONDS = 0.25

_OPEN_FAULTS: tuple[type[Exception], ...] = (*FAULTS, ValueError)

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()


class PartBody(io.BytesIO):
    """A request body over memory that is not copied: what aiohttp sends a ``BytesIO`` from, piece by piece.

    Tells ``on_read`` of every piece taken, for that is the progress of an upload. ``sha256`` (hex) is that of the
    whole body where it is known already: the signature then takes it from here.
    """

    _PIECE_BYTES = 512 * 1024
    """Whatever is asked for: aiohttp asks for 64 KiB, and each piece costs it a turn of the event loop."""

    def __init__(self, view: memoryview, sha256: str, on_read: Callable[[], None]) -> None:
        super().__init__()
        self.sha256 = sha256
        self._view = view
        self._on_read = on_read
        self._position = 0

    def read(self, _: int | None = -1, /) -> memoryview:  # type: ignore[override]  # as good as bytes for its readers
        """Return the next piece, more or fewer bytes than asked for; empty at the end."""
        self._on_read()
        piece = self._view[self._position : self._position + self._PIECE_BYTES]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move as ``io.BytesIO`` does, never out of the body."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._view)}[whence]
        self._position = min(max(0, origin + offset), len(self._view))
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def getbuffer(self) -> memoryview:
        """Return the whole body, and begin it anew.

        aiohttp measures a body so when it begins to send it, which it may do twice: on a connection that turns out to
        be closed, and then by itself on another.
        """
        self._position = 0
        return self._view[:]

    def release(self) -> None:
        """Let go of the memory: a request that was given up may not keep it."""
        self._view.release()


class KnownPayloadAuth(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signature version 4 for S3 (AWS, "Authenticating Requests") that does not hash a body whose hash is known.

    botocore would hash 5 MiB in the event loop, and again at every attempt.
    """

    def payload(self, request: Any) -> str:
        """Return what stands for the body in the signature."""
        return getattr(request.body, "sha256", "") or str(super().payload(request))


# For all of the process: a body that does not know its hash is signed as ever.
AUTH_TYPE_MAPS["s3v4"] = KnownPayloadAuth


class S3Client:
    """The client of one bucket. Every error out of it is a ``StorageError``, after the retries that are worth it."""

    def __init__(self, location: S3Location, limits: S3Limits) -> None:
        self.location = location
        self.limits = limits
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Make the client; asks the storage nothing yet, but may fetch credentials."""
        try:
            session = AioSession(profile=self.location.profile)
            region = self._region(session)
            if loader := small_loader(self.location.endpoint_url, region):
                session.register_component("data_loader", loader)
            client = session.create_client(
                "s3",
                region_name=region,
                endpoint_url=self.location.endpoint_url,
                verify=False if self._plain_http else None,  # reads the authorities' certificates only where TLS is
                config=self._config(),
            )
            self._client = await self._stack.enter_async_context(client)
        except _OPEN_FAULTS as error:
            raise storage_error("open", "", error) from error

    @property
    def signs_payload(self) -> bool:
        """Whether the hash of every body is part of its request's signature."""
        return self._plain_http and self.location.sign_payload

    @property
    def _plain_http(self) -> bool:
        return (self.location.endpoint_url or "https:").startswith("http:")

    def _region(self, session: AioSession) -> str:
        configured = session.get_config_variable("region")
        return str(self.location.region or os.environ.get("AWS_REGION") or configured or "us-east-1")

    def _config(self) -> AioConfig:
        styles = {None: "auto", True: "path", False: "virtual"}
        return AioConfig(
            user_agent=f"tornado-backups/{__version__}",  # botocore's describes this machine, and is made every time
            connect_timeout=self.limits.connect_seconds,
            read_timeout=self.limits.io_timeout_seconds,  # ``stall_seconds`` is the limit that counts
            max_pool_connections=self.limits.connections,
            connector_args={"keepalive_timeout": self.limits.keepalive_seconds},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "addressing_style": styles[self.location.path_style],
                "payload_signing_enabled": self.signs_payload,
            },
        )

    async def close(self) -> None:
        """Close every connection; may be called again."""
        self._client = None
        await self._stack.aclose()

    def full_key(self, key: str) -> str:
        """Return the key in the bucket."""
        return self.location.prefix + key

    async def call(
        self,
        operation: str,
        key: str,
        method: str,
        parameters: Mapping[str, Any],
        *,
        body: memoryview | None = None,
        body_sha256: str = "",
        attempts: int | None = None,
        tolerated: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Call ``method`` of the client, again after failures that may pass; the body starts anew each time.

        ``body_sha256`` (hex) spares hashing the body where :attr:`signs_payload` says that it is hashed. An error
        whose code is in ``tolerated`` counts as a success without contents.
        """
        attempts = attempts or self.limits.attempts
        for attempt in range(1, attempts + 1):
            try:
                return await self.once(method, parameters, body, body_sha256=body_sha256)
            except FAULTS as error:
                if code_of(error) in tolerated:
                    return {}
                if attempt == attempts or not is_transient(error):
                    raise storage_error(operation, key, error) from error
                cause, _ = explain(error)
                _log.warning("storage: %s of %s: %s (attempt %d of %d)", operation, key, cause, attempt, attempts)
            await self.pause(attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def once(
        self,
        method: str,
        parameters: Mapping[str, Any],
        body: memoryview | None = None,
        patience_seconds: float | None = None,
        body_sha256: str = "",
    ) -> dict[str, Any]:
        """Call ``method`` a single time, raising what botocore raises; ``TimeoutError`` when nothing moves."""
        patience = patience_seconds or self.limits.stall_seconds
        if body is not None:
            patience += len(body) / self.limits.slowest_bytes_per_second
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(patience) as watch:
            if body is None:
                return await self._send(method, parameters)
            if len(body) <= _WHOLE_BODY_BYTES:
                return await self._send(method, {**parameters, "Body": bytes(body)})
            due = now() + _WATCH_SECONDS

            def watched() -> None:
                nonlocal due
                if now() >= due:  # setting the watch anew at every piece would cost a tenth of an upload's time
                    due = now() + _WATCH_SECONDS
                    watch.reschedule(now() + patience)

            stream = PartBody(body[:], body_sha256, watched)
            try:
                return await self._send(method, {**parameters, "Body": stream})
            finally:
                stream.release()

    async def _send(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self._client is None:
            raise ConnectionError("the storage is closed")
        answer: dict[str, Any] = await getattr(self._client, method)(Bucket=self.location.bucket, **parameters)
        return answer

    async def pause(self, attempt: int) -> None:
        """Wait between two attempts: twice as long each time, less a random part."""
        longest = min(self.limits.longest_pause_seconds, self.limits.first_pause_seconds * 2 ** (attempt - 1))
        await asyncio.sleep(longest * _jitter.uniform(0.5, 1))

    async def abandon(self, key: str) -> None:
        """Abort every unfinished multipart upload to exactly ``key``, then delete the object; repeatable."""
        await self.abort_uploads("abandon", key)
        await self.delete("abandon", key)

    async def abort_uploads(self, operation: str, key: str, spared_id: str = "") -> None:
        """Abort the unfinished multipart uploads to exactly ``key``, except the one of id ``spared_id``."""
        full_key = self.full_key(key)
        markers: dict[str, str] = {}
        while True:
            parameters = {"Prefix": full_key, **markers}
            # rclone answers NoSuchUpload when its bucket never saw any.
            page = await self.call(operation, key, "list_multipart_uploads", parameters, tolerated=("NoSuchUpload",))
            for upload in page.get("Uploads", ()):
                if upload["Key"] == full_key and upload["UploadId"] != spared_id:
                    await self.abort_multipart(operation, key, upload["UploadId"])
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            if not page.get("IsTruncated") or not following["KeyMarker"] or following == markers:
                return  # the latter two: a store that says "there is more" but not where would be asked for ever
            markers = following

    async def abort_multipart(self, operation: str, key: str, upload_id: str) -> None:
        """Abort one multipart upload; one that is gone already is success."""
        parameters = {"Key": self.full_key(key), "UploadId": upload_id}
        gone = ("NoSuchUpload", "NoSuchKey", "404")
        await self.call(operation, key, "abort_multipart_upload", parameters, tolerated=gone)

    async def delete(self, operation: str, key: str, attempts: int | None = None) -> None:
        """Delete the object; one that is gone already is success."""
        parameters, gone = {"Key": self.full_key(key)}, ("NoSuchKey", "404")
        await self.call(operation, key, "delete_object", parameters, attempts=attempts, tolerated=gone)
