"""Users and collections from the objects of a Kubernetes namespace.

Owns: :class:`KubernetesSource`: what is served from the watched copies, for how long without the API server, and
when a reading is made anew. Does not own: the copies (``kubernetes_watch``), Secrets (``kubernetes_secrets``), fields
(``manifests``). docs/kubernetes.md says what an operator sees.

While the API server is away the last known objects serve, for ``stale_seconds``; after that nobody is let in on the
word of an object that may have been revoked since. Nothing is ever granted that the API server had not said before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tornado_backups.config.kubernetes_access import Access, find_access
from tornado_backups.config.kubernetes_api import ApiFailure, KubernetesApi
from tornado_backups.config.kubernetes_secrets import Fetched, SecretCache
from tornado_backups.config.kubernetes_watch import WATCH_SECONDS, Item, Reflector
from tornado_backups.config.manifests import (
    COLLECTION,
    USER,
    Kind,
    Reading,
    Secret,
    SecretLookup,
    read_collection,
    read_user,
    secret_names,
)
from tornado_backups.config.yaml_nodes import Fields, from_plain
from tornado_backups.domain.errors import ConfigurationFault, StartupError
from tornado_backups.domain.model import Collection, User

STALE_SECONDS = 600.0
"""How long the last known objects serve while the API server is away."""

OPEN_SECONDS = 30.0
PING_SECONDS = 5.0

_HINTS = {
    401: "the account's token is not accepted",
    403: "the account needs a Role that allows list and watch on both kinds and get on their Secrets",
    404: "the CRDs are not installed in this cluster",
}

_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Reader(Protocol[T]):
    """Makes a reading of one object's fields."""

    def __call__(self, document: Fields, source: str, name: str, secrets: SecretLookup) -> Reading[T]: ...


@dataclass(frozen=True, slots=True)
class _Made:
    """A reading, and what it was made of: it holds while object and Secrets are the same."""

    version: str
    secret_names: frozenset[str]
    stamps: dict[str, str]
    reading: Reading[Any]


class KubernetesSource:
    """The ``ConfigurationSource`` of a server inside (or beside) a Kubernetes cluster.

    A change takes effect when its watch event arrives, within a moment; a changed Secret within five seconds.
    ``on_fault`` is told, once per change, of each fault that voids an entry; faults that break an object are raised.
    """

    def __init__(
        self,
        namespace: str,
        on_fault: Callable[[ConfigurationFault], None],
        access: Access | None = None,
        stale_seconds: float = STALE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        api = KubernetesApi(namespace, access or find_access())
        self._api = api
        self._namespace = namespace
        self._on_fault = on_fault
        self._stale_seconds = stale_seconds
        self._monotonic = monotonic
        self._copies = {kind: Reflector(api, kind.plural, monotonic) for kind in (USER, COLLECTION)}
        self._secrets = SecretCache(api, monotonic, stale_seconds)
        self._made: dict[tuple[Kind, str], _Made] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """List both kinds, then keep watching; raise ``StartupError`` when that is not possible within 30 seconds."""
        for kind, copy in self._copies.items():
            where = f"kubernetes: cannot list {kind.plural} in the namespace {self._namespace}"
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await copy.relist()
            except TimeoutError:
                raise StartupError(f"{where}: no answer within {OPEN_SECONDS:g} seconds") from None
            except ApiFailure as failure:
                hint = _HINTS.get(failure.status)
                raise StartupError(f"{where}: {failure.sentence}" + (f"; {hint}" if hint else "")) from None
        self._watch()

    async def close(self) -> None:
        """Stop watching; may be called again."""
        for task in self._watching:
            task.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        await self._secrets.close()

    async def ping(self) -> None:
        """Ask the API server for one object; raise ``ConfigurationFault`` when it fails or a watch lags behind.

        The fault says for how long yet the last known objects serve.
        """
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._api.page(COLLECTION.plural, limit=1)
        except TimeoutError:
            raise self._away(f"it did not answer within {PING_SECONDS:g} seconds") from None
        except ApiFailure as failure:
            raise self._away(failure.sentence) from None
        if self._age() > 2 * WATCH_SECONDS:
            raise self._away("it answers, but watching it fails")

    async def user(self, name: str) -> User | None:
        """Return the user as the API server last told it, passwords from the Secrets that it refers to."""
        reading = await self._reading(USER, name, read_user)
        return reading.value() if reading else None

    async def collection(self, name: str) -> Collection | None:
        """Return the collection as the API server last told it."""
        reading = await self._reading(COLLECTION, name, read_collection)
        return reading.value() if reading else None

    async def collection_names(self) -> list[str]:
        """Return the names of all collections, broken ones too, sorted."""
        return sorted(self._copy(COLLECTION).items)

    async def faults(self) -> list[ConfigurationFault]:
        """Read every object and Secret in use, and return every fault."""
        found: list[ConfigurationFault] = []
        for name in sorted(self._copy(USER).items):
            user = await self._reading(USER, name, read_user)
            found += user.faults() if user else []
        for name in await self.collection_names():
            collection = await self._reading(COLLECTION, name, read_collection)
            found += collection.faults() if collection else []
        return found

    def reload(self) -> None:
        """Forget Secrets and readings and list everything anew; until that is done the present copies serve."""
        self._secrets.forget()
        self._made.clear()
        for task in self._watching:
            task.cancel()
        for copy in self._copies.values():
            copy.restart()
        self._watch()

    # -- readings ----------------------------------------------------------------------------------------------------

    async def _reading(self, kind: Kind, name: str, reader: _Reader[T]) -> Reading[T] | None:
        while True:
            item = self._copy(kind).items.get(name)
            if item is None:
                self._made.pop((kind, name), None)
                return None
            reading = await self._made_of(kind, item, reader)
            # A change or removal that arrived while Secrets were on their way must not be answered from before it.
            if self._copies[kind].items.get(name) is item:
                return reading

    async def _made_of(self, kind: Kind, item: Item, reader: _Reader[T]) -> Reading[T]:
        source = f"{kind.name}/{item.name}"
        known = self._made.get((kind, item.name))
        document: Fields | None = None
        if known is None or known.version != item.version:
            try:
                document = _document(kind, item, source)
            except ConfigurationFault as broken:
                return Reading(None, (broken,))
            known = None
        names = known.secret_names if known else secret_names(document or Fields({}, {}, 0))
        secrets = await self._secrets.fetch(names)
        stamps = {name: fetched.stamp for name, fetched in secrets.items()}
        if known and known.stamps == stamps:
            return known.reading
        reading = reader(document or _document(kind, item, source), source, item.name, _lookup(secrets))
        self._made[kind, item.name] = _Made(item.version, names, stamps, reading)
        for fault in reading.voiding:
            self._on_fault(fault)
        return reading

    def _copy(self, kind: Kind) -> Reflector:
        """Return the copy, unless it is older than it may be."""
        copy = self._copies[kind]
        if self._monotonic() - copy.last_contact > self._stale_seconds:
            raise self._away("its objects are too old to be relied on")
        return copy

    def _age(self) -> float:
        return self._monotonic() - min(copy.last_contact for copy in self._copies.values())

    def _away(self, why: str) -> ConfigurationFault:
        age = self._age()
        left = self._stale_seconds - age
        serving = f"serve for {left:.0f} more" if left > 0 else "serve no more"
        what = f"the API server: {why}; objects last known {age:.0f} seconds ago {serving}"
        return ConfigurationFault("kubernetes", 0, what, "bring it back or look at this server's account and network")

    # -- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        for copy in self._copies.values():
            task = asyncio.create_task(copy.run())
            self._watching.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._watching.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # A bug. The copy grows old and is refused in time; the log has the reason.
            _log.error("kubernetes: a watch ended for good", exc_info=error)


def _document(kind: Kind, item: Item, source: str) -> Fields:
    head = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": item.name}}
    return from_plain({**head, "spec": item.spec}, source)


def _lookup(secrets: dict[str, Fetched]) -> SecretLookup:
    def lookup(name: str) -> Secret | None:
        result = secrets[name].result if name in secrets else None
        if isinstance(result, ConfigurationFault):
            raise ConfigurationFault(result.source, result.line, result.what, result.instead)
        return result

    return lookup
