"""Find a version and stream its object, whole or not at all.

Owns: that a damaged, short or missing object never ends like a good download, and that what is found is remembered.
Does not own: ranges and validators of HTTP (``web/fields``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tornado_backups.domain.errors import NotFound, ObjectDamaged, ObjectMissing, RequestError
from tornado_backups.domain.model import Actor, Version
from tornado_backups.domain.permissions import Action
from tornado_backups.ports import Clock, ObjectStore, Registry
from tornado_backups.services.catalogue import Catalogue

log = logging.getLogger(__name__)


class Downloads:
    """Serves stored versions to those who may have them."""

    def __init__(self, registry: Registry, store: ObjectStore, catalogue: Catalogue, clock: Clock) -> None:
        self._registry = registry
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    async def find(self, actor: Actor, collection_name: str, which: str) -> Version:
        """Return the version that ``latest``, ``n`` or ``vn`` means; raises ``NotFound`` or ``NotAuthorized``."""
        collection = await self._catalogue.find(actor, collection_name, Action.DOWNLOAD)
        version = await find_version(self._registry, collection.name, which)
        if version is None:
            raise NotFound(f"there is no version {which!r} in this collection")
        return version

    async def check_present(self, version: Version) -> None:
        """Raise ``ObjectMissing`` or ``ObjectDamaged`` before a first byte is promised; remembers what it found."""
        if version.damage:
            raise ObjectDamaged("read", version.object_key, version.damage)
        try:
            size_bytes = await self._store.size(version.object_key)
        except ObjectMissing as error:
            await self._remember(version, f"the object is missing: {error.cause}")
            raise
        if size_bytes != version.size_bytes:
            damage = f"the object has {size_bytes} bytes, {version.size_bytes} were registered"
            await self._remember(version, damage)
            raise ObjectDamaged("read", version.object_key, damage)

    async def stream(self, version: Version, start: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the bytes; the last buffer of a whole object only after its SHA-256 held.

        Each buffer is good until the next is asked for. Raises ``ObjectDamaged`` instead of ending normally when the
        object is short or its hash is another.
        """
        whole = start == 0 and length == version.size_bytes and bool(version.sha256)
        digest = hashlib.sha256() if whole else None
        left_bytes = length
        async with aclosing(self._store.read(version.object_key, start, length, digest)) as buffers:
            async for data in buffers:
                left_bytes -= len(data)
                if not left_bytes and digest is not None:
                    await self._check(version, digest.hexdigest())
                yield data

    async def _check(self, version: Version, sha256: str) -> None:
        if sha256 != version.sha256:
            damage = f"its SHA-256 is {sha256}, {version.sha256} was registered"
            await self._remember(version, damage)
            raise ObjectDamaged("read", version.object_key, damage)

    async def _remember(self, version: Version, damage: str) -> None:
        log.error("version %d of %s is damaged: %s", version.number, version.collection, damage)
        try:
            await self._registry.record_check(version.id, self._clock.now(), "", damage)
        except RequestError as error:
            log.warning(
                "the damage of version %d of %s was not recorded: %s", version.number, version.collection, error
            )


async def find_version(registry: Registry, collection: str, which: str) -> Version | None:
    """Return the version named ``latest``, ``n`` or ``vn``, or None; any other text names none."""
    if which == "latest":
        return await registry.latest_version(collection)
    digits = which.removeprefix("v")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        return None
    return await registry.version(collection, int(digits))
