"""Leases, intents and the one transaction that turns an upload into a version.

Owns: who may upload and commit, and that no number is given twice.
Does not own: when these are called (``services/upload``, ``services/maintenance``; docs/crash-order.md).

Rows are locked in one order everywhere: lease, session, collection, intent, versions by rising number. Every
decision about a collection is made while its lease's row is locked, so it cannot be taken over half-way; whether the
lease is still in time matters only for whoever wants to take it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tornado_backups.domain.errors import LeaseLost, NotAuthenticated
from tornado_backups.domain.model import Beginning, Intent, Lease, Removal, Version
from tornado_backups.registry import rows
from tornado_backups.registry.script import Script, Statement, cleaned, reads, storable, writes, writes_lightly

_LIVE = "(leases.expires_at > {now} AND leases.expires_at <= {now} + leases.ttl_us + 1000000)"
"""A lease ending later than its own time from now was written before the clock went back: it counts as over.

The second of tolerance is for clocks that are corrected a little while the lease is in use.
"""

_OURS = "name = ? AND owner = ? AND fencing = ?"
_FREE = "UPDATE leases SET owner = '', expires_at = 0"


def _ours(lease: Lease) -> tuple[str, str, int]:
    return (lease.name, lease.owner, lease.fencing)


def require_lease(lease: Lease) -> Script[None]:
    """Lock the lease's row for the rest of the transaction; raises ``LeaseLost`` unless it is live and ours."""
    found = yield Statement(f"SELECT {_LIVE} FROM leases WHERE {_OURS} {{for_update}}", _ours(lease))
    if not found.rows or not found.rows[0][0]:
        raise LeaseLost(f"the lease on {lease.name} ran out or was taken over before this upload was registered")


@writes_lightly
def acquire_lease(name: str, owner: str, ttl_seconds: float) -> Script[Lease | None]:
    """Take a lease that nobody holds or whose time is over."""
    return (yield from _acquire(name, owner, ttl_seconds))


@writes_lightly
def begin_upload(collection: str, lease_name: str, owner: str, ttl_seconds: float) -> Script[Beginning | None]:
    """Take the lease, and read under it what the upload is judged by: the lease's row is locked meanwhile."""
    lease = yield from _acquire(lease_name, owner, ttl_seconds)
    if lease is None:
        return None
    versions = yield from live_versions(collection)
    return Beginning(lease, versions, (yield from _next_number(collection)))


def _acquire(name: str, owner: str, ttl_seconds: float) -> Script[Lease | None]:
    ttl_us = round(ttl_seconds * 1_000_000)
    taken = yield Statement(
        "INSERT INTO leases (name, owner, fencing, expires_at, ttl_us) VALUES (?, ?, 1, {now} + ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, fencing = leases.fencing + 1,"
        f" expires_at = {{now}} + excluded.ttl_us, ttl_us = excluded.ttl_us WHERE NOT {_LIVE}",
        (name, owner, ttl_us, ttl_us),
    )
    if not taken.changed:
        return None
    found = yield Statement("SELECT fencing FROM leases WHERE name = ?", (name,))
    return Lease(name, owner, found.rows[0][0])


@writes_lightly
def renew_lease(lease: Lease, ttl_seconds: float) -> Script[bool]:
    """Prolong a lease that nobody took over, even when its time is over."""
    ttl_us = round(ttl_seconds * 1_000_000)
    renewed = yield Statement(
        f"UPDATE leases SET expires_at = {{now}} + ?, ttl_us = ? WHERE {_OURS}", (ttl_us, ttl_us, *_ours(lease))
    )
    return renewed.changed == 1


@writes_lightly
def release_lease(lease: Lease) -> Script[None]:
    """Give a lease back; its row stays, for the fencing number."""
    yield Statement(f"{_FREE} WHERE {_OURS}", _ours(lease))


@writes
def release_all_leases() -> Script[None]:
    """End every lease: only for who knows that no other process is alive."""
    yield Statement(_FREE)


@reads
def next_number(collection: str) -> Script[int]:
    """Return the counter plus one."""
    return (yield from _next_number(collection))


def _next_number(collection: str) -> Script[int]:
    found = yield Statement("SELECT last_number FROM collections WHERE name = ?", (collection,))
    return found.rows[0][0] + 1 if found.rows else 1


def live_versions(collection: str) -> Script[list[Version]]:
    """Return the live versions, ascending."""
    found = yield Statement(
        f"SELECT {rows.VERSION} FROM versions WHERE collection = ? AND expired_at IS NULL ORDER BY number",
        (collection,),
    )
    return [rows.version(row) for row in found.rows]


@writes
def add_intent(intent: Intent) -> Script[None]:
    """Write the intent down under its live lease; repeatable."""
    yield from require_lease(intent.lease)
    yield Statement(
        f"INSERT INTO intents ({rows.INTENT}) VALUES {rows.placeholders(9)} ON CONFLICT (id) DO NOTHING",
        rows.intent_values(intent),
    )


@writes
def commit_upload(
    intent: Intent, version: Version, removals: Sequence[Removal], end_session_id: str | None
) -> Script[None]:
    """Register the version, mark the removals, forget the intent, release the lease."""
    lease = intent.lease
    # locked before the version is looked up: a first try whose answer was lost may still be running
    yield Statement("SELECT 1 FROM leases WHERE name = ? {for_update}", (lease.name,))
    if (yield Statement("SELECT 1 FROM versions WHERE id = ?", (version.id,))).rows:
        return
    yield from require_lease(lease)
    if end_session_id is not None:
        yield from _end_session(end_session_id, version.created_at)
    yield from _take_number(version.collection, version.number)
    dropped = yield Statement("DELETE FROM intents WHERE id = ? AND abandoned = 0", (intent.id,))
    if not dropped.changed:
        raise LeaseLost(f"the upload to {version.collection} was given up before it was registered")
    yield from insert_version(version)
    yield from mark_expired(version.collection, removals, version.created_at)
    yield Statement(f"{_FREE} WHERE {_OURS}", _ours(lease))


def _end_session(session_id: str, now: datetime) -> Script[None]:
    ended = yield Statement(
        "UPDATE sessions SET deactivated = 1, updated_at = ? WHERE id = ? AND deactivated = 0",
        (rows.microseconds(now), session_id),
    )
    if not ended.changed:
        raise NotAuthenticated("the session has ended: its token was good for one upload, or was revoked meanwhile")


def _take_number(collection: str, number: int) -> Script[None]:
    yield Statement(
        "INSERT INTO collections (name, last_number) VALUES (?, 0) ON CONFLICT (name) DO NOTHING", (collection,)
    )
    taken = yield Statement(
        "UPDATE collections SET last_number = ? WHERE name = ? AND last_number = ?", (number, collection, number - 1)
    )
    if not taken.changed:
        raise LeaseLost(f"version {number} of {collection} was registered by someone else meanwhile")


def insert_version(version: Version) -> Script[None]:
    """Add a live version's row."""
    yield Statement(
        f"INSERT INTO versions ({rows.VERSION}) VALUES {rows.placeholders(rows.VERSION_WIDTH)}",
        rows.version_values(version),
    )


def mark_expired(collection: str, removals: Sequence[Removal], now: datetime) -> Script[None]:
    """Mark those of ``removals`` that are live."""
    at = rows.microseconds(now)
    for removal in sorted(removals, key=lambda removal: removal.number):
        yield Statement(
            "UPDATE versions SET expired_at = ?, expired_reason = ?, updated_at = ?"
            " WHERE id = ? AND collection = ? AND expired_at IS NULL",
            (at, cleaned(removal.reason), at, removal.version_id, collection),
        )


@writes
def drop_intent(intent: Intent) -> Script[None]:
    """Forget the intent and release its lease, if it still has it."""
    yield Statement(f"{_FREE} WHERE {_OURS}", _ours(intent.lease))
    yield Statement("DELETE FROM intents WHERE id = ?", (intent.id,))


@writes
def abandoned_intents(limit: int) -> Script[list[Intent]]:
    """Take the leases that ran out from their intents, mark every intent without one, and return the oldest."""
    match = "i.lease_name = leases.name AND i.lease_owner = leases.owner AND i.lease_fencing = leases.fencing"
    yield Statement(f"{_FREE} WHERE NOT {_LIVE} AND EXISTS (SELECT 1 FROM intents i WHERE {match})")
    yield Statement(
        "UPDATE intents SET abandoned = 1 WHERE abandoned = 0 AND NOT EXISTS (SELECT 1 FROM leases"
        " WHERE name = intents.lease_name AND owner = intents.lease_owner AND fencing = intents.lease_fencing)"
    )
    found = yield Statement(
        f"SELECT {rows.INTENT} FROM intents WHERE abandoned = 1 ORDER BY created_at, id LIMIT ?", (max(limit, 0),)
    )
    return [rows.intent(row) for row in found.rows]


@writes
def adopt_version(version: Version, lease: Lease) -> Script[None]:
    """Register an object that exists; one that was registered under the same id and key stays as it is."""
    yield from require_lease(lease)
    if not (0 < version.number <= MAX_NUMBER and storable(version.object_key) and storable(version.filename)):
        raise LeaseLost(f"{version.object_key!a} cannot be registered as version {version.number}")
    known = yield Statement(
        "SELECT id, object_key, collection, number FROM versions"
        " WHERE id = ? OR object_key = ? OR (collection = ? AND number = ?)",
        (version.id, version.object_key, version.collection, version.number),
    )
    if known.rows == [(version.id, version.object_key, version.collection, version.number)]:
        return
    if known.rows or (yield Statement("SELECT 1 FROM intents WHERE object_key = ?", (version.object_key,))).rows:
        raise LeaseLost(f"version {version.number} of {version.collection}, or its object, is registered already")
    yield from _raise_counter(version.collection, version.number)
    yield from insert_version(version)


@writes
def raise_counter(collection: str, number: int) -> Script[None]:
    """Let the next number be greater than ``number``."""
    yield from _raise_counter(collection, min(number, MAX_NUMBER))


def _raise_counter(collection: str, number: int) -> Script[None]:
    yield Statement(
        "INSERT INTO collections (name, last_number) VALUES (?, ?) ON CONFLICT (name)"
        " DO UPDATE SET last_number = excluded.last_number WHERE collections.last_number < excluded.last_number",
        (collection, number),
    )


MAX_NUMBER = 2**53 - 1
"""The highest version number: the last that every JSON reader understands exactly (RFC 8259, 6)."""
