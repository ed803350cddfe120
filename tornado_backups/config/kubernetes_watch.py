"""One kind of object, kept as it is now: listed once, then followed event by event.

Owns: the copy of the objects (names, versions and specs, nothing else), list and watch with resume, 410 and back-off.
Does not own: what the objects mean (``kubernetes``). docs/kubernetes.md says what happens while the server is away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tornado_backups.config.kubernetes_api import GONE, ApiFailure, KubernetesApi

WATCH_SECONDS = 60
"""How long one watch lasts. Short, because its renewal is the proof that the copy is current."""

PAGE_OBJECTS = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One object: ``version`` is its resourceVersion, equal versions mean equal specs."""

    name: str
    version: str
    spec: Any


class Reflector:
    """Keeps ``items`` equal to what the API server has of one kind in one namespace.

    A list replaces everything at once or, when any page of it fails, nothing. ``last_contact`` is the (monotonic)
    time at which the copy was last known to be current.
    """

    def __init__(
        self,
        api: KubernetesApi,
        plural: str,
        monotonic: Callable[[], float],
        first_pause_seconds: float = 0.25,
        longest_pause_seconds: float = 15.0,
    ) -> None:
        self.items: dict[str, Item] = {}
        self.last_contact = monotonic()
        self._api = api
        self._plural = plural
        self._monotonic = monotonic
        self._first_pause_seconds = first_pause_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._resume_from = ""
        self._away = False

    async def relist(self) -> None:
        """Read everything; raises ``ApiFailure`` and then changes nothing.

        A page that comes too late for its continue token (410) starts the list over, twice at most.
        """
        for _ in range(2):
            try:
                return await self._list()
            except ApiFailure as failure:
                if failure.status != GONE:
                    raise
        return await self._list()

    async def run(self) -> None:
        """Follow the server until cancelled; never ends by itself."""
        pause = 0.0
        while True:
            try:
                if not self._resume_from:
                    await self.relist()
                await self._follow()
                pause = 0.0
            except ApiFailure as failure:
                if failure.status == GONE:
                    self._resume_from = ""
                pause = min(self._longest_pause_seconds, max(self._first_pause_seconds, pause * 2))
                self._say_away(failure)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def restart(self) -> None:
        """Begin the next :meth:`run` with a list, whatever is known by now."""
        self._resume_from = ""

    async def _list(self) -> None:
        found: dict[str, Item] = {}
        token = ""
        while True:
            page = await self._api.page(self._plural, PAGE_OBJECTS, token)
            metadata = page.get("metadata")
            entries = page.get("items")
            if not isinstance(metadata, dict) or not isinstance(entries, list):
                raise ApiFailure(0, f"a list of {self._plural} without metadata or items")
            for entry in entries:
                item = _item(entry)
                found[item.name] = item
            token = str(metadata.get("continue") or "")
            if not token:
                break
        self.items = found
        self._resume_from = str(metadata.get("resourceVersion", ""))
        self._contact()

    async def _follow(self) -> None:
        """Watch once. A watch that ends at once and empty counts as a failure, or the loop would spin."""
        started = self._monotonic()
        events = 0
        async with aclosing(self._api.watch(self._plural, self._resume_from, WATCH_SECONDS)) as watch:
            async for event in watch:
                self._apply(event)
                self._contact()
                events += event["type"] != "OPENED"
        if not events and self._monotonic() - started < 1:
            raise ApiFailure(0, "the API server ended the watch at once")
        self._contact()

    def _apply(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        entry = event.get("object")
        if kind == "OPENED":
            return
        # Until the event is understood the place in the stream is in doubt: a failure below reads everything again.
        self._resume_from = ""
        if kind == "ERROR":
            code = entry.get("code") if isinstance(entry, dict) else None
            raise ApiFailure(code if isinstance(code, int) else 0, f"the watch ended with an error ({code})")
        if kind == "BOOKMARK":
            self._resume_from = _version(entry)
            return
        item = _item(entry)
        if kind in ("ADDED", "MODIFIED"):
            self.items[item.name] = item
        elif kind == "DELETED":
            self.items.pop(item.name, None)
        else:
            raise ApiFailure(0, f"an event of the unknown type {kind!r}")
        self._resume_from = item.version

    def _contact(self) -> None:
        self.last_contact = self._monotonic()
        if self._away:
            self._away = False
            _log.info("kubernetes: %s are current again", self._plural)

    def _say_away(self, failure: ApiFailure) -> None:
        if failure.status != GONE and not self._away:
            self._away = True
            _log.warning("kubernetes: cannot follow %s: %s", self._plural, failure.sentence)


def _version(entry: Any) -> str:
    metadata = entry.get("metadata") if isinstance(entry, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise ApiFailure(0, "an object without metadata.resourceVersion")
    return version


def _item(entry: Any) -> Item:
    version = _version(entry)
    name = entry["metadata"].get("name")
    if not isinstance(name, str) or not name:
        raise ApiFailure(0, "an object without metadata.name")
    return Item(name, version, entry.get("spec"))
