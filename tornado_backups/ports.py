"""The Protocols that adapters fulfil, and all that services know of the outside world.

Owns: the words between services and adapters, with their guarantees; ``tests/contract`` holds every adapter to them.
Does not own: any behaviour. The order in which services call these is drawn in docs/crash-order.md.

Errors: an :class:`ObjectStore` raises the ``StorageError`` leaves, a :class:`Registry` raises ``DatabaseUnavailable``,
a :class:`ConfigurationSource` raises ``ConfigurationFault``; anything else out of an adapter is a bug.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import (
    Alert,
    Beginning,
    Claims,
    Collection,
    Grant,
    HealthState,
    Intent,
    Lease,
    Removal,
    Session,
    StoredObject,
    Usage,
    User,
    Version,
)


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that only rise."""


class Tokens(Protocol):
    """Issues and reads the JWTs that sessions are carried by (``auth/tokens``)."""

    def issue(
        self,
        login: str,
        access_key_name: str,
        scope: tuple[Grant, ...],
        now: datetime,
        expires_at: datetime,
        originally_issued_at: datetime | None = None,
    ) -> str:
        """Return a signed token, different at every call; ``expires_at`` counts in whole seconds."""

    def verify(self, token: str, now: datetime) -> Claims:
        """Return what a token of ours that has not expired says; raises ``NotAuthenticated`` for any other text."""

    def session_id(self, token: str) -> str:
        """Return the SHA-256 of the token, lower-case hex: all of it that is ever stored."""


class Passwords(Protocol):
    """Checks passwords at a cost that is bounded and the same for everyone (``auth/passwords``)."""

    async def verify(self, password: str, phc_hash: str | None, client: str = "") -> bool:
        """Return whether the password is that of the hash; False, after the same time, when there is no hash.

        ``client`` (an address) is whom the work is for: waiting clients take turns. Raises ``Busy`` when too many wait.
        """


class Digest(Protocol):
    """What a storage sees of a hash: it is fed all bytes, once and in order, in a thread that handles them anyway."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""


class UploadSink(Protocol):
    """One object on its way to the storage; used by one task at a time.

    Bytes are gathered, and hashed and stored while the next ones are: what goes wrong may be raised by a later call.
    """

    def room(self) -> memoryview:
        """Return memory into which the next bytes may be received, so that :meth:`write` need not copy them.

        It is the sink's and good until the next call of any method. Empty when there is none at the moment.
        """

    async def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes: the beginning of what :meth:`room` gave last, or any others.

        Returns when it is ready for more (back-pressure), keeps at most three buffers or two parts in memory.
        """

    async def settle(self) -> None:
        """Return once the digest given to ``begin`` has been fed all that was written; raises what a write would."""

    async def complete(self) -> None:
        """Make the object exist, whole and durable (fsync of file and folders, or a completed multipart upload).

        Until it returns the object's key must not be readable as a shorter object. Raises ``StorageFull`` or
        ``StorageUnavailable``; after either only :meth:`abort` may be called.
        """

    async def abort(self) -> None:
        """Undo whatever exists, the completed object included; may be called at any time and any number of times."""


class ObjectStore(Protocol):
    """Keeps opaque objects under keys such as ``collection/uuid/filename``."""

    async def open(self) -> None:
        """Connect and prove that the storage can be used; raise ``StartupError`` in one line (no secrets) if not."""

    async def close(self) -> None:
        """Let go of connections and threads; may be called again."""

    async def begin(self, key: str, expected_bytes: int | None = None, digest: Digest | None = None) -> UploadSink:
        """Start an object; ``expected_bytes`` (declared by the client, or None) may only tune, never be trusted.

        ``digest`` is fed what is written, see :meth:`UploadSink.settle`.
        """

    def read(
        self, key: str, start: int, length: int, digest: Digest | None = None
    ) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield exactly ``length`` bytes from offset ``start`` in buffers of bounded size, never an empty one.

        A buffer may be filled anew as soon as the next is asked for: who keeps its bytes longer copies them.
        ``digest`` has been fed a buffer before it is yielded, and may be ahead of it.
        Raises ``ObjectMissing`` before the first buffer when the object does not exist, ``ObjectDamaged`` when it
        ends early: a short read never ends normally. Closing the iterator frees everything.
        """

    async def size(self, key: str) -> int:
        """Return the object's size in bytes; raises ``ObjectMissing``."""

    async def delete(self, key: str) -> None:
        """Remove the object; an object that is already gone is success."""

    async def abandon(self, key: str) -> None:
        """Remove everything that an interrupted upload to ``key`` can have left.

        The object itself, temporary files and unfinished multipart uploads. Repeatable; knows nothing but the key,
        for the process that began the upload is dead. Touches no other key.
        """

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below ``prefix`` in unspecified order, without temporary files, in bounded memory."""

    async def probe(self) -> None:
        """Write, read back and delete a small object of its own; raises a ``StorageError`` when any of it fails."""


class Registry(Protocol):
    """The database. Every method is one transaction: it happened or it did not, also when cancelled or killed.

    A method may be repeated after ``DatabaseUnavailable``. Lease times are judged by the registry's own clock (the
    database server's, where there is one), all other times are given by the caller.
    """

    async def open(self) -> None:
        """Connect, migrate the schema (safe when several servers start at once), raise ``StartupError`` if not."""

    async def close(self) -> None:
        """Close every connection; may be called again."""

    async def ping(self) -> None:
        """Prove that the database answers."""

    # -- leases ------------------------------------------------------------------------------------------------------

    async def acquire_lease(self, name: str, ttl_seconds: float) -> Lease | None:
        """Take the lease, or return None while someone else's is live. The fencing number rises with every taking."""

    async def renew_lease(self, lease: Lease, ttl_seconds: float) -> bool:
        """Prolong a lease that is still ours (same owner and fencing number); False when it was taken over."""

    async def release_lease(self, lease: Lease) -> None:
        """Give it back; no effect when it is not ours any more."""

    # -- an upload ---------------------------------------------------------------------------------------------------

    async def begin_upload(self, collection: str, lease_name: str, ttl_seconds: float) -> Beginning | None:
        """Take the lease as :meth:`acquire_lease` does, and read what is decided under it; None while it is held."""

    async def next_number(self, collection: str) -> int:
        """Return the number that the next version will get; it cannot change while the collection's lease is held."""

    async def add_intent(self, intent: Intent) -> None:
        """Write the intent down; raises ``LeaseLost`` unless ``intent.lease`` is live."""

    async def commit_upload(
        self, intent: Intent, version: Version, removals: Sequence[Removal], end_session_id: str | None = None
    ) -> None:
        """Turn the intent into the version, mark ``removals`` as expired, and release the lease, all or nothing.

        With ``end_session_id`` (a single-use token) that session is revoked in the same transaction, and
        ``NotAuthenticated`` is raised when it was already. Raises ``LeaseLost`` when the lease is not live and ours,
        the intent is gone, or the number is taken. Repeating a commit that succeeded succeeds.
        """

    async def drop_intent(self, intent: Intent) -> None:
        """Forget the intent and release its lease; repeatable. Call it after the storage is clean."""

    async def abandoned_intents(self, limit: int) -> list[Intent]:
        """Return intents whose lease is not live any more; from then on none of them can be committed."""

    # -- versions ----------------------------------------------------------------------------------------------------

    async def versions(self, collection: str) -> list[Version]:
        """Return the live versions, ascending by number."""

    async def version(self, collection: str, number: int) -> Version | None:
        """Return one live version."""

    async def latest_version(self, collection: str) -> Version | None:
        """Return the live version with the highest number."""

    async def expire_version(self, version: Version, reason: str, now: datetime) -> bool:
        """Mark a live version as expired: it lists no more, its object is to be removed. False if it was not live."""

    async def expire_versions(self, collection: str, removals: Sequence[Removal], lease: Lease, now: datetime) -> None:
        """Mark what a rotation removes, under the collection's live ``lease``; raises ``LeaseLost`` otherwise."""

    async def expired_versions(self, limit: int) -> list[tuple[Version, str]]:
        """Return versions marked as expired, oldest mark first, each with its reason."""

    async def forget_versions(self, version_ids: Sequence[str]) -> None:
        """Delete the rows of expired versions whose objects have been removed; never a live one's.

        A power cut may bring rows back: their removal is then repeated.
        """

    async def usages(self) -> dict[str, Usage]:
        """Return sums over the live versions of every collection that has any."""

    async def recent_sizes(self, limit: int) -> dict[str, list[int]]:
        """Return, per collection, the sizes in bytes of its ``limit`` newest live versions, newest first."""

    async def largest_sizes(self) -> dict[str, int]:
        """Return, per collection, the size in bytes of its largest live version."""

    async def damaged_versions(self) -> dict[str, list[Version]]:
        """Return, per collection, the live versions whose ``damage`` is set."""

    async def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Return those of ``keys`` that a version (live or expired) or an intent names; at most 1000 keys."""

    async def next_to_check(self, checked_before: datetime, limit: int) -> list[Version]:
        """Return live versions never read back, or last before ``checked_before``, oldest check first."""

    async def record_check(self, version_id: str, now: datetime, sha256: str, damage: str) -> None:
        """Store the result of reading a version's object back; ``sha256`` fills an empty one and changes no other."""

    async def adopt_version(self, version: Version, lease: Lease) -> None:
        """Register an object that exists (recover, import) under the collection's live ``lease``.

        Raises the counter to at least ``version.number``; raises ``LeaseLost`` when the lease is lost, the number or
        the object key taken.
        """

    async def raise_counter(self, collection: str, number: int) -> None:
        """Make sure that no number up to ``number`` is given again."""

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def add_session(self, session: Session) -> None:
        """Record an issued session; one that exists already stays as it is."""

    async def session(self, session_id: str) -> Session | None:
        """Return a session, revoked and expired ones too."""

    async def sessions(self, user: str, limit: int) -> list[Session]:
        """Return a user's sessions, newest first."""

    async def revoke_session(self, session_id: str, now: datetime) -> bool:
        """Revoke; False when there is no such session. Revoking again is success."""

    async def purge_sessions(self, expired_before: datetime) -> int:
        """Delete sessions whose expiry lies before; return how many."""

    # -- health and alerts -------------------------------------------------------------------------------------------

    async def health_states(self) -> dict[str, HealthState]:
        """Return what was last recorded, per collection."""

    async def record_health(self, states: Sequence[HealthState], alert_bodies: Sequence[str], now: datetime) -> None:
        """Store changed states and queue their alerts, in one transaction."""

    async def due_alerts(self, now: datetime, limit: int) -> list[Alert]:
        """Return queued alerts whose time has come, oldest first."""

    async def postpone_alert(self, alert_id: int, next_attempt_at: datetime) -> None:
        """Count a failed attempt and name the time of the next."""

    async def forget_alert(self, alert_id: int) -> None:
        """Drop an alert that was delivered or given up."""


class ConfigurationSource(Protocol):
    """Users and collections, as they are now. Names come unchecked from clients: no name may reach outside the tree."""

    async def open(self) -> None:
        """Prove that the source can be read; raise ``StartupError`` in one line if not."""

    async def close(self) -> None:
        """Let go of connections; may be called again."""

    async def ping(self) -> None:
        """Prove that the source still answers; raise ``ConfigurationFault`` if not."""

    async def user(self, name: str) -> User | None:
        """Return the user with secrets resolved; None when there is none; raises ``ConfigurationFault`` when broken."""

    async def collection(self, name: str) -> Collection | None:
        """Return the collection; None when there is none; raises ``ConfigurationFault`` when broken."""

    async def collection_names(self) -> list[str]:
        """Return the names of all collections, broken ones too, sorted."""

    async def faults(self) -> list[ConfigurationFault]:
        """Read everything and return every fault, those that break an object and those that only void an entry."""

    def reload(self) -> None:
        """Forget what is cached (SIGHUP)."""


class AuditTrail(Protocol):
    """Who did what, when, from where, with what result; never a token, password, hash or code."""

    def record(
        self,
        event: str,
        result: str,
        *,
        user: str = "",
        session_id: str = "",
        address: str = "",
        collection: str = "",
        **details: str | int | float | bool | None,
    ) -> None:
        """Write one event.

        ``event`` is one of ``login``, ``refresh``, ``logout``, ``upload``, ``download``, ``delete``, ``rotate``,
        ``refusal``, ``configuration``; ``result`` is ``ok`` or an error's reason. Never raises, never blocks for long.
        """


class CallbackClient(Protocol):
    """Calls webhooks and dead-man services on the outside."""

    async def call(self, url: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """GET ``url``, or POST ``body`` to it; raises ``CallbackFailed`` unless it answers 2xx within its time.

        Refuses to connect to loopback, link-local and private addresses unless that was allowed: every address the
        name resolves to is checked, and the checked one is connected to.
        """

    async def close(self) -> None:
        """Let go of connections; may be called again."""
