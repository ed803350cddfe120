"""Reading a range of an object, whatever happens to the connection meanwhile.

Owns: going on after a break, and the proof that exactly the bytes asked for were given.
Does not own: retries before the first byte (``storage/s3_client.py``). Imported only when an S3 store is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

from tornado_backups.domain.errors import ObjectDamaged, StorageUnavailable
from tornado_backups.storage.s3_client import S3Client
from tornado_backups.storage.s3_faults import FAULTS, explain, is_transient, storage_error
from tornado_backups.storage.s3_limits import MIB

BUFFER_BYTES = 512 * 1024

_PROGRESS_BYTES = MIB
_BEHIND_THE_END = ("InvalidRange", "RequestedRangeNotSatisfiable", "416")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

_log = logging.getLogger(__name__)


async def download(client: S3Client, key: str, start: int, length: int) -> AsyncIterator[bytes]:
    """Yield exactly ``length`` bytes from ``start``, or raise; see :meth:`~tornado_backups.ports.ObjectStore.read`.

    Breaks are mended with a new ranged request as long as at least 1 MiB came between two of them, and otherwise as
    often as any request is retried.
    """
    position, end = start, start + length
    if not length:
        await _require(client, key, end)
    failures, mark = 0, start
    while position < end:
        body, skip = await _open(client, key, position, end)
        try:
            while position < end:
                data = await _next(client, body, skip or end - position)
                if not data:
                    raise ObjectDamaged("read", key, f"the object ends at {position}, not at {end}")
                if skip:
                    skip -= len(data)
                    continue
                position += len(data)
                yield data
        except FAULTS as error:
            failures = 1 if position - mark >= _PROGRESS_BYTES else failures + 1
            mark = position
            if failures >= client.limits.attempts or not is_transient(error):
                raise storage_error("read", key, error) from error
            _log.warning("storage: read of %s: %s: going on at byte %d", key, explain(error)[0], position)
            await client.pause(failures)
        finally:
            body.close()


async def _require(client: S3Client, key: str, end: int) -> None:
    head = await client.call("size", key, "head_object", {"Key": client.full_key(key)})
    if head["ContentLength"] < end:
        raise ObjectDamaged("read", key, f"the object has {head['ContentLength']} bytes, not {end}")


async def _open(client: S3Client, key: str, start: int, end: int) -> tuple[Any, int]:
    """Return the body of a ranged GET and how many of its bytes lie before ``start``."""
    parameters = {"Key": client.full_key(key), "Range": f"bytes={start}-{end - 1}"}
    answer = await client.call("read", key, "get_object", parameters, tolerated=_BEHIND_THE_END)
    if not answer:
        raise ObjectDamaged("read", key, f"the object ends before byte {start}")
    try:
        return answer["Body"], _bytes_before(answer, key, start, end)
    except BaseException:
        with contextlib.suppress(OSError):  # the connection is given up either way
            answer["Body"].close()
        raise


def _bytes_before(answer: dict[str, Any], key: str, start: int, end: int) -> int:
    """Check what the storage says it sends; a store that ignores ``Range`` answers 200 with the whole object."""
    given = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
        begin, size = 0, answer.get("ContentLength")
        if given and int(given[1]) == start:  # the right bytes under the wrong status, as rclone sends them
            begin, size = start, None if given[3] == "*" else int(given[3])
    elif given:
        begin, size = int(given[1]), None if given[3] == "*" else int(given[3])
    else:
        begin, size = start, None
    if begin > start:
        raise StorageUnavailable("read", key, f"the storage sent bytes from {begin} when asked for {start}")
    if size is not None and size < end:
        raise ObjectDamaged("read", key, f"the object has {size} bytes, not {end}")
    return start - begin


async def _next(client: S3Client, body: Any, wanted: int) -> bytes:
    async with asyncio.timeout(client.limits.stall_seconds):
        data: bytes = await body.read(min(wanted, BUFFER_BYTES))
        return data
