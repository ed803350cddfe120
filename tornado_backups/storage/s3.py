"""Objects in a bucket of AWS or of any store that speaks its protocol, Google's included.

Owns: reading, listing, deleting and probing; what to say at start about a bucket that cannot be used.
Does not own: uploads (``storage/s3_upload.py``), URLs (``storage/s3_url.py``), retries (``storage/s3_client.py``).
botocore and aiohttp are imported when a store is opened, not before: they cost 25 MiB. Explained in docs/storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tornado_backups.domain.errors import ObjectMissing, StartupError, StorageError, StorageUnavailable
from tornado_backups.domain.model import StoredObject
from tornado_backups.lean import import_aiobotocore
from tornado_backups.ports import Digest
from tornado_backups.storage.background import background_threads
from tornado_backups.storage.keys import RESERVED, check_key
from tornado_backups.storage.s3_limits import MIB, S3Limits, SpareMemory, choose_part_sizes
from tornado_backups.storage.s3_url import S3Location, parse_s3_url

if TYPE_CHECKING:
    from tornado_backups.storage.s3_client import S3Client
    from tornado_backups.storage.s3_upload import S3Sink

SPARE_BYTES = 10 * MIB
"""What all running uploads together may hold beyond one part each."""

_PROBES = f"{RESERVED}probe/"
_PROBE = b"tornado-backups probe\n"
_PROBE_ATTEMPTS = 2
_STALE_PROBE = timedelta(hours=1)


class S3Store:
    """An :class:`~tornado_backups.ports.ObjectStore` in one bucket, below an optional prefix."""

    def __init__(self, location: S3Location, limits: S3Limits) -> None:
        self._location = location
        self._limits = limits
        self._spare = SpareMemory(SPARE_BYTES)
        self._downloads = asyncio.Semaphore(limits.downloads)
        self._probing = asyncio.Lock()
        self._probe_key = f"{_PROBES}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._opened: S3Client | None = None
        self._hashing = background_threads("storage-hash")

    @classmethod
    def from_url(cls, url: str, io_timeout_seconds: float) -> S3Store:
        """Return the store that ``url`` (``s3://…`` or ``gs://…``) names; raises ``ValueError`` with one sentence."""
        return cls(parse_s3_url(url), S3Limits(io_timeout_seconds=io_timeout_seconds))

    async def open(self) -> None:
        """Connect and list the bucket; raise ``StartupError`` saying what is wrong: key, bucket, clock or network.

        Probes that a killed server left behind more than an hour ago are removed: nothing else could name them.
        """
        import_aiobotocore()
        from tornado_backups.storage.s3_client import S3Client

        client = S3Client(self._location, self._limits)
        try:
            await client.open()
            self._opened = client
            await self._remove_stale_probes(client)
        except StorageError as error:
            await self.close()
            hint = f" ({error.hint})" if error.hint else ""
            raise StartupError(f"storage {self._location}: {error.cause}{hint}") from error
        except BaseException:
            await client.close()
            raise

    async def _remove_stale_probes(self, client: S3Client) -> None:
        parameters = {"Prefix": client.full_key(_PROBES), "MaxKeys": 100}
        page = await client.call("open", "", "list_objects_v2", parameters, attempts=_PROBE_ATTEMPTS)
        for entry in page.get("Contents", ()):
            if datetime.now(UTC) - entry["LastModified"] > _STALE_PROBE:
                await client.delete("open", entry["Key"].removeprefix(self._location.prefix))

    async def close(self) -> None:
        """Close every connection and end the threads; may be called again."""
        self._hashing.stop()
        self._hashing = background_threads("storage-hash")  # for who opens it again; started when they are needed
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    @property
    def _client(self) -> S3Client:
        if self._opened is None:
            raise StorageUnavailable("use", "", "the storage is not open")
        return self._opened

    async def begin(self, key: str, expected_bytes: int | None = None, digest: Digest | None = None) -> S3Sink:
        """Start an object; nothing is in the bucket before its first part is full or it is complete."""
        from tornado_backups.storage.s3_upload import S3Sink

        check_key("begin", key, self._location.prefix)
        sizes = choose_part_sizes(expected_bytes, self._location.part_bytes)
        return S3Sink(self._client, key, sizes, self._spare, expected_bytes, digest, self._hashing)

    async def read(
        self, key: str, start: int, length: int, digest: Digest | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield exactly ``length`` bytes from ``start``; a connection that breaks is taken up where it broke.

        The digest is fed with a buffer while the one before is used and the one behind it comes.
        """
        from tornado_backups.storage.s3_download import download

        check_key("read", key)
        async with self._downloads:
            feeding: asyncio.Future[None] | None = None
            fed = b""
            async for data in download(self._client, key, start, length):
                if digest is None:
                    yield data
                    continue
                if feeding is not None:
                    await feeding
                feeding = self._hashing.submit(partial(digest.update, data))
                if fed:
                    yield fed
                fed = data
            if feeding is not None:
                await feeding
                yield fed

    async def size(self, key: str) -> int:
        """Return the object's size in bytes; raises ``ObjectMissing``, and not when it is the bucket that is."""
        check_key("size", key)
        client = self._client
        try:
            head = await client.call("size", key, "head_object", {"Key": client.full_key(key)})
        except ObjectMissing:
            # A HEAD has no body to name what is missing; a listing fails with NoSuchBucket.
            await client.call("list", key, "list_objects_v2", {"Prefix": client.full_key(key), "MaxKeys": 1})
            raise
        return int(head["ContentLength"])

    async def delete(self, key: str) -> None:
        """Delete the object; one that is already gone is success."""
        check_key("delete", key)
        await self._client.delete("delete", key)

    async def abandon(self, key: str) -> None:
        """Abort every unfinished multipart upload to exactly ``key`` and delete the object."""
        check_key("abandon", key)
        await self._client.abandon(key)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix``, a page of 1,000 in memory at a time."""
        client = self._client
        asked: dict[str, Any] = {"Prefix": client.full_key(prefix), "MaxKeys": self._limits.list_page}
        while True:
            page = await client.call("list", prefix, "list_objects_v2", asked)
            for entry in page.get("Contents", ()):
                if (stored := self._stored(entry)) is not None:
                    yield stored
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _stored(self, entry: dict[str, Any]) -> StoredObject | None:
        key = entry["Key"].removeprefix(self._location.prefix)
        if key.startswith(_PROBES) or key.endswith("/"):  # probes, and the folder marks of web consoles
            return None
        return StoredObject(key, entry["Size"], entry["LastModified"])

    async def probe(self) -> None:
        """Put, get and delete a small object of this process's own; one that a break left behind is the next one's."""
        from tornado_backups.storage.s3_download import download

        client, name = self._client, {"Key": self._client.full_key(self._probe_key)}
        async with self._probing:
            try:
                body = memoryview(_PROBE)
                await client.call("probe", "", "put_object", name, body=body, attempts=_PROBE_ATTEMPTS)
                found = [data async for data in download(client, self._probe_key, 0, len(_PROBE))]
                if b"".join(found) != _PROBE:
                    raise StorageUnavailable("probe", "", "what was written did not read back")
                await client.delete("probe", self._probe_key, _PROBE_ATTEMPTS)
            except StorageError:
                with contextlib.suppress(StorageError):  # the first error says more
                    await client.delete("probe", self._probe_key, 1)
                raise
