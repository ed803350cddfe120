"""Take over what a Go server's database knows: versions, counters, sessions.

Owns: the order (versions and counters collection by collection, then sessions), and that doing it again changes
nothing. Does not own: reading the tables (``registry/go_tables``), which rows are usable (``domain/go_server``).
Objects stay where they are. Explained in docs/migrate.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from tornado_backups.domain.errors import LeaseLost, ObjectMissing
from tornado_backups.domain.go_server import GoCollection, GoSession, GoVersion, session_of, sort_out
from tornado_backups.domain.model import Lease, Session
from tornado_backups.domain.recovery import MAX_NUMBER, storable_name
from tornado_backups.ports import Clock, ObjectStore, Registry
from tornado_backups.services.adoption import Listener, collection_held, unknown_keys


class GoDatabase(Protocol):
    """The Go server's database, read only; raises ``StartupError`` in one line that holds no password."""

    def collections(self) -> AsyncIterator[GoCollection]:
        """Yield every collection that a row names, soft-deleted rows included, in bounded memory."""

    async def versions(self, collection: str) -> list[GoVersion]:
        """Return a collection's live rows."""

    def sessions(self) -> AsyncIterator[GoSession]:
        """Yield every session, soft-deleted ones too, in bounded memory."""


@dataclass(slots=True)
class _Sessions:
    """How many sessions were taken over, and why the others were not."""

    taken: int = 0
    known: int = 0
    expired: int = 0
    deactivated: int = 0


class Takeover:
    """One run of ``import``; with ``dry_run`` it tells the same and changes nothing."""

    def __init__(
        self,
        database: GoDatabase,
        registry: Registry,
        store: ObjectStore,
        clock: Clock,
        lease_seconds: float,
        listener: Listener,
        dry_run: bool,
    ) -> None:
        self._database = database
        self._registry = registry
        self._store = store
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._listener = listener
        self._dry_run = dry_run

    async def run(self) -> None:
        """Take over everything that can be; repeatable at any point.

        Raises ``StartupError`` when the Go server's database fails, ``StorageUnavailable`` and ``DatabaseUnavailable``
        when ours do; what was taken over before stays.
        """
        async for collection in self._database.collections():
            try:
                await self._take_collection(collection)
            except LeaseLost as error:
                self._listener.failed(f"collection {collection.name}", f"{error.sentence}; run this again")
        await self._take_sessions()

    # -- versions --------------------------------------------------------------------------------------------------

    async def _take_collection(self, collection: GoCollection) -> None:
        name = collection.name
        if not storable_name(name):
            self._listener.left(f"the rows of collection {name!r}", "its name cannot be part of an object's key")
            return
        rows, left = sort_out(await self._database.versions(name))
        for row, reason in left:
            self._listener.left(_row(row), reason)
        unknown = await unknown_keys(self._registry, [row.object_key for row in rows])
        known_count = len(rows) - len(unknown)
        if known_count:
            self._listener.left(f"{known_count} versions of {name}", "they are registered already")
        if collection.deleted_count:
            why = (
                f"they are soft-deleted, and only keep numbers up to {collection.highest_number} from being used again"
            )
            self._listener.left(f"{collection.deleted_count} rows of {name}", why)
        news = [row for row in rows if row.object_key in unknown]
        last_number = await self._registry.next_number(name) - 1
        raise_to = collection.highest_number if last_number < collection.highest_number <= MAX_NUMBER else 0
        if not news and not raise_to:
            return
        if self._dry_run:
            await self._take_rows(name, news, raise_to, None)
            return
        async with collection_held(self._registry, name, self._lease_seconds) as lease:
            if lease is None:
                why = "an upload to it is running here; run this again when it has ended"
                self._listener.failed(f"collection {name}", why)
                return
            await self._take_rows(name, news, raise_to, lease)

    async def _take_rows(self, name: str, rows: list[GoVersion], raise_to: int, lease: Lease | None) -> None:
        taken = [row.number for row in rows if await self._take_row(row, lease)]
        if raise_to and lease is not None:
            await self._registry.raise_counter(name, raise_to)
        if raise_to > max(taken, default=0):
            self._listener.took(f"the counter of {name}", f"its next version is number {raise_to + 1} or higher")

    async def _take_row(self, row: GoVersion, lease: Lease | None) -> bool:
        """Tell whether the row became a version."""
        try:
            size_bytes = await self._store.size(row.object_key)
        except ObjectMissing:
            self._listener.left(_row(row), "the storage holds no such object")
            return False
        version = row.version(size_bytes, self._clock.now())
        if other := await self._registry.version(row.collection, row.number):
            self._listener.left(_row(row), f"its number is registered here for {other.object_key}")
            return False
        if lease is not None:
            try:
                await self._registry.adopt_version(version, lease)
            except LeaseLost:
                if not await self._registry.renew_lease(lease, self._lease_seconds):
                    raise
                self._listener.left(_row(row), "its number or id is in use here, by a version that is being removed")
                return False
        self._listener.took(f"{row.object_key} as version {row.number} of {row.collection}", version.damage)
        return True

    # -- sessions --------------------------------------------------------------------------------------------------

    async def _take_sessions(self) -> None:
        counts = _Sessions()
        now = self._clock.now()
        async for row in self._database.sessions():
            session = session_of(row)
            if isinstance(session, str):
                self._listener.left(f"session {row.id} of user {row.user}", session)
            elif await self._registry.session(session.id) is not None:
                counts.known += 1
            else:
                counts.taken += 1
                counts.expired += session.expires_at <= now
                counts.deactivated += session.deactivated
                await self._add(session)
        if counts.taken:
            kept = f"{counts.expired} expired and {counts.deactivated} revoked ones among them stay so"
            self._listener.took(f"{counts.taken} sessions", kept)
        if counts.known:
            self._listener.left(f"{counts.known} sessions", "they are registered already")

    async def _add(self, session: Session) -> None:
        if not self._dry_run:
            await self._registry.add_session(session)


def _row(row: GoVersion) -> str:
    return f"{row.object_key!r} (version {row.number} of {row.collection})"
