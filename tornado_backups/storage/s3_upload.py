"""One object on its way into a bucket: parts of fixed size, one in flight, one PUT when it is small.

Owns: the order of multipart calls, and the decision after a *complete* whose answer was lost.
Does not own: the buffers (``storage/s3_buffers``), retries (``storage/s3_client``) and sizes (``storage/s3_limits``).
Imported only when an S3 store is opened. Explained in docs/storage.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tornado_backups.domain.errors import ObjectMissing, StorageError, StorageUnavailable
from tornado_backups.ports import Digest
from tornado_backups.storage.s3_buffers import PartBuffers
from tornado_backups.storage.s3_client import S3Client
from tornado_backups.storage.s3_faults import FAULTS, code_of, explain, is_transient, storage_error
from tornado_backups.storage.s3_limits import MOST_PARTS, PartSizes, SpareMemory
from tornado_backups.workers import Workers

_FED_AT_ONCE_BYTES = 64 * 1024
_HASHED_AT_ONCE_BYTES = 64 * 1024

_MULTIPART_ETAG = re.compile(r"[0-9a-f]{32}-(\d+)")


class S3Sink:
    """An :class:`~tornado_backups.ports.UploadSink` into a bucket.

    Nothing is readable under the key before :meth:`complete`. Holds one part in memory, two while the store has memory
    to spare: the next is filled while the one before is on its way. All transfers together take at most
    ``io_timeout_seconds``.
    """

    def __init__(
        self,
        client: S3Client,
        key: str,
        sizes: PartSizes,
        spare: SpareMemory,
        expected_bytes: int | None,
        digest: Digest | None,
        hashing: Workers,
    ) -> None:
        self._client = client
        self._expected_bytes = expected_bytes
        self._digest = digest
        self._hashing = hashing
        self._fed_bytes = 0
        self._key = key
        self._sizes = sizes
        self._deadline = asyncio.get_running_loop().time() + client.limits.io_timeout_seconds
        self._buffers = PartBuffers(spare)
        self._filling: mmap.mmap | None = None
        self._filled_bytes = 0
        self._part_bytes = sizes.of(1)
        self._total_bytes = 0
        self._etags: list[str] = []
        self._upload_id = ""
        self._flight: asyncio.Task[None] | None = None
        self._completing: asyncio.Task[None] | None = None
        self._may_exist_unknown = False
        self._may_exist_upload = False
        self._may_exist_object = False
        self._ended = ""

    def room(self) -> memoryview:
        """See ``UploadSink``: the rest of the part that is being filled; empty when it is full."""
        if self._ended:
            return memoryview(b"")
        if self._filling is None:
            self._filling = self._buffers.first(self._part_bytes)
        return memoryview(self._filling)[self._filled_bytes : self._part_bytes]

    async def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; waits for the part in flight when there is no room."""
        self._refuse_if_ended("write")
        if isinstance(data, memoryview) and data.obj is self._filling:
            self._filled_bytes += len(data)
            self._total_bytes += len(data)
            if self._filled_bytes == self._part_bytes and self._total_bytes != self._expected_bytes:
                await self._make_room()  # so that what follows is received straight into the next part
            return
        rest = memoryview(data)
        while rest:
            if self._filled_bytes == self._part_bytes:
                await self._make_room()
            room = self.room()
            count = min(len(rest), len(room))
            room[:count] = rest[:count]
            self._filled_bytes += count
            self._total_bytes += count
            rest = rest[count:]

    async def settle(self) -> None:
        """Feed the digest the part that is being filled; those before are fed while they are on their way."""
        self._refuse_if_ended("write")
        await self._landed()
        if self._filling is not None:
            view = memoryview(self._filling)[self._fed_bytes : self._filled_bytes]
            self._fed_bytes = self._filled_bytes
            await self._feed(view)

    async def _feed(self, view: memoryview) -> None:
        if self._digest is None or not view:
            return
        if len(view) <= _FED_AT_ONCE_BYTES:
            self._digest.update(view)
        else:
            await self._hashing.submit(partial(self._digest.update, view))

    async def complete(self) -> None:
        """Make the object exist: one PUT, or the last part and CompleteMultipartUpload.

        Goes on when its caller is cancelled, until :meth:`abort` has seen its end.
        """
        self._refuse_if_ended("complete")
        self._ended = "it did not complete"
        self._completing = asyncio.get_running_loop().create_task(self._finish())
        await asyncio.shield(self._completing)
        self._ended = "it is complete"

    async def _finish(self) -> None:
        if self._flight is None:
            await self._bounded(self._put, "complete")
        else:
            await self._landed()
            if self._filled_bytes:
                self._take_off()
                await self._landed()
            await self._bounded(self._complete_multipart, "complete")
        self._drop_buffers()

    async def abort(self) -> None:
        """Undo whatever exists in the bucket; repeatable, and to be repeated after an error."""
        self._ended = "it was aborted"
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])
            if not self._flight.cancelled():
                self._flight.exception()  # retrieved: what it met is of no interest any more
        await self._see_the_end_of_completing()
        self._drop_buffers()
        if self._may_exist_unknown:
            await self._client.abandon(self._key)
        elif self._may_exist_upload:
            await self._client.abort_multipart("abort", self._key, self._upload_id)
        if self._may_exist_object:
            await self._client.delete("abort", self._key)
        self._may_exist_unknown = self._may_exist_upload = self._may_exist_object = False

    async def _see_the_end_of_completing(self) -> None:
        """Wait for a *complete* that was left alone: the storage may carry it out after the object was deleted.

        When no answer comes it is given up, and this attempt to abort fails: a later one finds what was made of it.
        """
        if self._completing is None or self._completing.done():
            return
        _, unanswered = await asyncio.wait([self._completing], timeout=self._client.limits.stall_seconds)
        if unanswered:
            self._completing.cancel()
            await asyncio.wait([self._completing])
            cause = "the storage has not said whether the object exists"
            raise StorageUnavailable("abort", self._key, cause, "it is removed later")

    def _refuse_if_ended(self, operation: str) -> None:
        if self._ended:
            raise StorageUnavailable(operation, self._key, f"the upload has ended: {self._ended}")

    def _drop_buffers(self) -> None:
        self._filling, self._filled_bytes = None, 0
        self._buffers.close()

    async def _bounded(self, work: Callable[[], Awaitable[None]], operation: str) -> None:
        """Do ``work`` until the whole upload's deadline."""
        deadline = asyncio.timeout_at(self._deadline)
        try:
            async with deadline:
                await work()
        except TimeoutError:
            hint = "the network is too slow, or raise --storage-io-timeout"
            raise StorageUnavailable(operation, self._key, "the transfer took too long", hint) from None

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        """Send the full part off and get a buffer for the next one."""
        await self._landed()
        number = len(self._etags) + 1
        if number >= MOST_PARTS:
            cause = f"the upload needs more than {MOST_PARTS} parts"
            raise StorageUnavailable("write", self._key, cause, "raise partSizeMiB in the storage URL")
        self._take_off()
        self._part_bytes = self._sizes.of(number + 1)
        self._filling = self._buffers.second(self._part_bytes)
        if self._filling is None:
            await self._landed()
            self._filling = self._buffers.first(self._part_bytes)

    def _take_off(self) -> None:
        assert self._filling is not None
        buffer, size_bytes = self._filling, self._filled_bytes
        send = partial(self._send_part, len(self._etags) + 1, buffer, size_bytes, self._fed_bytes)
        self._filling, self._filled_bytes, self._fed_bytes = None, 0, 0
        self._flight = asyncio.get_running_loop().create_task(self._bounded(send, "write"))

    async def _landed(self) -> None:
        if self._flight is not None:
            await self._flight

    async def _send_part(self, number: int, buffer: mmap.mmap, size_bytes: int, fed_bytes: int) -> None:
        with memoryview(buffer) as whole, whole[:size_bytes] as body:
            hashing = self._hash_soon(body, fed_bytes, self._digest)
            if not self._upload_id:
                await self._create_multipart()
            parameters = self._named(UploadId=self._upload_id, PartNumber=number)
            sha256 = await hashing if self._client.signs_payload else ""
            answer = await self._client.call(
                "write", self._key, "upload_part", parameters, body=body, body_sha256=sha256
            )
            await hashing
        self._etags.append(answer["ETag"])
        self._buffers.landed(buffer)

    def _hash_soon(self, body: memoryview, fed_bytes: int, digest: Digest | None) -> asyncio.Future[str]:
        """Hash a body in a thread, which may outlast a cancelled caller: the slice keeps its memory."""
        return self._hashing.submit(partial(_hash, body[:], fed_bytes, digest, self._client.signs_payload))

    async def _create_multipart(self) -> None:
        """Begin the multipart upload; when a first answer is lost there may be two, of which we know one."""
        self._may_exist_unknown = True
        try:
            created = await self._client.once("create_multipart_upload", self._named())
            self._may_exist_unknown = False
        except FAULTS as error:
            if not is_transient(error):
                raise storage_error("begin", self._key, error) from error
            await self._client.pause(1)
            created = await self._client.call("begin", self._key, "create_multipart_upload", self._named())
        self._upload_id = created["UploadId"]
        self._may_exist_upload = True

    def _named(self, **parameters: Any) -> dict[str, Any]:
        return {"Key": self._client.full_key(self._key), **parameters}

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _put(self) -> None:
        self._may_exist_object = True
        with memoryview(self._filling or b"") as whole, whole[: self._filled_bytes] as body:
            sha256 = await self._hash_soon(body, len(body), None)
            await self._client.call("complete", self._key, "put_object", self._named(), body=body, body_sha256=sha256)

    async def _complete_multipart(self) -> None:
        """Complete, and where the answer is an error or does not come, ask the storage what it has."""
        if self._may_exist_unknown:
            await self._client.abort_uploads("complete", self._key, spared_id=self._upload_id)
            self._may_exist_unknown = False
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        self._may_exist_object = True
        limits = self._client.limits
        for attempt in range(1, limits.attempts + 1):
            try:
                await self._client.once(
                    "complete_multipart_upload",
                    self._named(UploadId=self._upload_id, MultipartUpload={"Parts": parts}),
                    patience_seconds=limits.complete_seconds,
                )
                return
            except FAULTS as error:
                if await self._exists_whole(error):
                    return
                if attempt == limits.attempts or not is_transient(error):
                    raise storage_error("complete", self._key, error) from error
            await self._client.pause(attempt)

    async def _exists_whole(self, error: Exception) -> bool:
        """Tell whether the object exists with our size and number of parts; raises when that cannot be known.

        The key is this attempt's own and only *complete* makes it readable, so existence at the right size is proof
        enough; the digests in ETags differ between stores and are not compared, the number of parts in them is.
        """
        try:
            head = await self._client.call("size", self._key, "head_object", self._named())
        except ObjectMissing:
            return False
        except StorageError as unknown:
            cause = f"it is unknown whether the object exists: {unknown.cause}, after {explain(error)[0]}"
            raise StorageUnavailable("complete", self._key, cause, unknown.hint) from error
        counted = _MULTIPART_ETAG.fullmatch(str(head.get("ETag", "")).strip('"'))
        if head["ContentLength"] == self._total_bytes and (not counted or int(counted[1]) == len(self._etags)):
            return True
        cause = f"another object is there after {code_of(error) or 'a lost answer'}: {head['ContentLength']} bytes"
        raise StorageUnavailable("complete", self._key, f"{cause}, not {self._total_bytes}")


def _hash(view: memoryview, fed_bytes: int, digest: Digest | None, signed: bool) -> str:
    """Feed ``digest`` what it has not been fed of a part; return the part's own hash where it is signed, or nothing.

    Both are fed in small steps: what the first has read the second finds in the processor's cache.
    """
    if not signed:
        if digest is not None:
            digest.update(view[fed_bytes:])
        return ""
    own = hashlib.sha256()
    for begin in range(0, len(view), _HASHED_AT_ONCE_BYTES):
        piece = view[begin : begin + _HASHED_AT_ONCE_BYTES]
        own.update(piece)
        unfed = piece[max(0, fed_bytes - begin) :]
        if digest is not None and unfed:
            digest.update(unfed)
    return own.hexdigest()
