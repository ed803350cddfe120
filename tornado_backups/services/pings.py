"""Tell a collection's dead-man service how each upload ended.

Owns: when ``pingUrl`` is called and with what path. Does not own: the call itself and where it may go (``outbound``).
A ping never holds up or fails an upload: it is tried a few times in the background and then given up, for silence is
what a dead-man service alarms on.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit, urlunsplit

from tornado_backups.domain.errors import CallbackFailed, RequestError
from tornado_backups.domain.model import Collection, Version
from tornado_backups.domain.rotation import RotationPlan
from tornado_backups.ports import CallbackClient

log = logging.getLogger(__name__)

WAITS_SECONDS = (0.0, 5.0, 30.0)
MOST_AT_A_TIME = 100


class Pings:
    """Listens to :class:`~tornado_backups.services.upload.Uploads`."""

    def __init__(self, client: CallbackClient) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    def stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        """Call ``pingUrl``."""
        self._start(collection, collection.ping_url)

    def refused(self, collection: Collection, error: RequestError) -> None:
        """Call ``pingUrl`` with ``/fail`` behind its path, as Healthchecks and its kin have it."""
        self._start(collection, fail_url(collection.ping_url))

    def _start(self, collection: Collection, url: str) -> None:
        if not collection.ping_url:
            return
        if len(self._tasks) >= MOST_AT_A_TIME:
            log.warning("the ping of %s is dropped: %d others are on their way", collection.name, MOST_AT_A_TIME)
            return
        task = asyncio.create_task(self._ping(collection.name, url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ping(self, collection: str, url: str) -> None:
        for wait in WAITS_SECONDS:
            await asyncio.sleep(wait)
            try:
                await self._client.call(url)
                return
            except CallbackFailed as error:
                log.warning("the ping of %s was not delivered: %s", collection, error.sentence)

    async def close(self) -> None:
        """Give up what is still on its way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def fail_url(ping_url: str) -> str:
    """Return the URL with ``/fail`` appended to its path, query kept."""
    parts = urlsplit(ping_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/fail"))
