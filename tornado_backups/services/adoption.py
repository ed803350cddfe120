"""What recovering and importing share: a collection held for as long as it takes, and words for what was done.

Owns: the lease with its heartbeat, the listener that hears of every step.
Does not own: which objects become versions (``services/recover``, ``services/takeover``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol, TypeVar

from tornado_backups.domain.errors import DatabaseUnavailable
from tornado_backups.domain.model import Lease
from tornado_backups.ports import Registry
from tornado_backups.services.upload import lease_name

KEYS_AT_A_TIME = 500

T = TypeVar("T")


class Listener(Protocol):
    """Hears what is done, as it is done; a dry run tells the same."""

    def took(self, what: str, why: str = "") -> None:
        """Something was registered."""

    def left(self, what: str, why: str) -> None:
        """Something was deliberately left as it is."""

    def failed(self, what: str, why: str) -> None:
        """Something could not be done now: running the command again may help."""

    def expect(self, size_bytes: int) -> None:
        """So many bytes are going to be read."""

    def read(self, size_bytes: int) -> None:
        """So many more bytes were read."""


@contextlib.asynccontextmanager
async def collection_held(registry: Registry, collection: str, ttl_seconds: float) -> AsyncIterator[Lease | None]:
    """Hold a collection's lease while the block runs; yield None when somebody else has it.

    A lease that is lost on the way shows when something is registered under it (``LeaseLost``).
    """
    lease = await registry.acquire_lease(lease_name(collection), ttl_seconds)
    if lease is None:
        yield None
        return
    heartbeat = asyncio.create_task(_renew(registry, lease, ttl_seconds))
    try:
        yield lease
    finally:
        heartbeat.cancel()
        await asyncio.wait([heartbeat])
        with contextlib.suppress(DatabaseUnavailable):  # then the lease runs out by itself
            await asyncio.shield(registry.release_lease(lease))


async def _renew(registry: Registry, lease: Lease, ttl_seconds: float) -> None:
    still_ours = True
    while still_ours:
        await asyncio.sleep(ttl_seconds / 3)
        with contextlib.suppress(DatabaseUnavailable):  # the next beat may succeed in time
            still_ours = await registry.renew_lease(lease, ttl_seconds)


async def unknown_keys(registry: Registry, keys: Iterable[str]) -> set[str]:
    """Return those of ``keys`` that no version, expired version or running upload names."""
    unknown: set[str] = set()
    for batch in batches(keys):
        unknown |= set(batch) - await registry.known_keys(batch)
    return unknown


def batches(items: Iterable[T], size: int = KEYS_AT_A_TIME) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` items."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
