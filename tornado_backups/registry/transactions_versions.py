"""Reading versions, and their way out: expired, then forgotten.

Owns: what lists, what is summed up, what is to be checked and removed.
Does not own: how a version comes into being (``transactions_uploads``), which ones leave (``domain/rotation``).

Nothing here keeps sums beside the rows: an index over the live versions answers them, and cannot disagree with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from tornado_backups.domain.model import Lease, Removal, Usage, Version
from tornado_backups.registry import rows
from tornado_backups.registry.script import Script, Statement, cleaned, reads, storable, writes, writes_lightly
from tornado_backups.registry.transactions_uploads import MAX_NUMBER, live_versions, mark_expired, require_lease

_KEYS_PER_STATEMENT = 400


@reads
def versions(collection: str) -> Script[list[Version]]:
    """Return the live versions, ascending."""
    if not storable(collection):
        return []
    return (yield from live_versions(collection))


@reads
def version(collection: str, number: int) -> Script[Version | None]:
    """Return one live version."""
    if not storable(collection) or not 0 < number <= MAX_NUMBER:
        return None
    found = yield Statement(
        f"SELECT {rows.VERSION} FROM versions WHERE collection = ? AND number = ? AND expired_at IS NULL",
        (collection, number),
    )
    return rows.version(found.rows[0]) if found.rows else None


@reads
def latest_version(collection: str) -> Script[Version | None]:
    """Return the live version with the highest number."""
    if not storable(collection):
        return None
    found = yield Statement(
        f"SELECT {rows.VERSION} FROM versions WHERE collection = ? AND expired_at IS NULL ORDER BY number DESC LIMIT 1",
        (collection,),
    )
    return rows.version(found.rows[0]) if found.rows else None


@writes
def expire_version(version: Version, reason: str, now: datetime) -> Script[bool]:
    """Mark one live version."""
    at = rows.microseconds(now)
    marked = yield Statement(
        "UPDATE versions SET expired_at = ?, expired_reason = ?, updated_at = ? WHERE id = ? AND expired_at IS NULL",
        (at, cleaned(reason), at, version.id),
    )
    return marked.changed == 1


@writes
def expire_versions(collection: str, removals: Sequence[Removal], lease: Lease, now: datetime) -> Script[None]:
    """Mark what a rotation removes, under the collection's lease."""
    yield from require_lease(lease)
    yield from mark_expired(collection, removals, now)


@reads
def expired_versions(limit: int) -> Script[list[tuple[Version, str]]]:
    """Return what is to be removed, oldest mark first."""
    found = yield Statement(
        f"SELECT {rows.VERSION}, expired_reason FROM versions WHERE expired_at IS NOT NULL"
        " ORDER BY expired_at, collection, number LIMIT ?",
        (max(limit, 0),),
    )
    return [(rows.version(row), row[rows.VERSION_WIDTH]) for row in found.rows]


@writes_lightly
def forget_versions(version_ids: Sequence[str]) -> Script[None]:
    """Delete expired versions' rows."""
    for part in _parts(sorted(version_ids)):
        yield Statement(
            f"DELETE FROM versions WHERE id IN {rows.placeholders(len(part))} AND expired_at IS NOT NULL", tuple(part)
        )


@reads
def usages() -> Script[dict[str, Usage]]:
    """Return count, sum and newest version of every collection that has any."""
    found = yield Statement(
        f"SELECT {rows.VERSION_OF_V}, s.versions_count, s.used_bytes FROM (SELECT collection AS name,"
        " COUNT(*) AS versions_count, CAST(SUM(size_bytes) AS BIGINT) AS used_bytes, MAX(number) AS newest"
        " FROM versions WHERE expired_at IS NULL GROUP BY collection) s"
        " JOIN versions v ON v.collection = s.name AND v.number = s.newest"
    )
    width = rows.VERSION_WIDTH
    return {row[1]: Usage(row[1], row[width], row[width + 1], rows.version(row)) for row in found.rows}


@reads
def recent_sizes(limit: int) -> Script[dict[str, list[int]]]:
    """Return the newest sizes of every collection that has any."""
    if limit < 1:
        return {}
    found = yield Statement(
        # CROSS JOIN for SQLite and GROUP BY for PostgreSQL: both then look a limit up once per collection, not per row
        "SELECT v.collection, v.size_bytes FROM (SELECT c.name, COALESCE((SELECT w.number FROM versions w"
        " WHERE w.collection = c.name AND w.expired_at IS NULL ORDER BY w.number DESC LIMIT 1 OFFSET ?), 0) AS oldest"
        " FROM collections c GROUP BY c.name) f CROSS JOIN versions v"
        " WHERE v.collection = f.name AND v.expired_at IS NULL AND v.number >= f.oldest"
        " ORDER BY v.collection, v.number DESC",
        (limit - 1,),
    )
    sizes: dict[str, list[int]] = {}
    for collection, size_bytes in found.rows:
        sizes.setdefault(collection, []).append(size_bytes)
    return sizes


@reads
def largest_sizes() -> Script[dict[str, int]]:
    """Return the largest size of every collection that has any."""
    found = yield Statement(
        "SELECT collection, MAX(size_bytes) FROM versions WHERE expired_at IS NULL GROUP BY collection"
    )
    return {row[0]: row[1] for row in found.rows}


@reads
def damaged_versions() -> Script[dict[str, list[Version]]]:
    """Return live versions that were found damaged or missing."""
    found = yield Statement(
        f"SELECT {rows.VERSION} FROM versions WHERE damage <> '' AND expired_at IS NULL ORDER BY collection, number"
    )
    damaged: dict[str, list[Version]] = {}
    for row in found.rows:
        damaged.setdefault(row[1], []).append(rows.version(row))
    return damaged


@reads
def known_keys(keys: Sequence[str]) -> Script[set[str]]:
    """Return those keys that a row names; a key that no row could hold is not known."""
    known: set[str] = set()
    for part in _parts([key for key in keys if storable(key)]):
        names = rows.placeholders(len(part))
        found = yield Statement(
            f"SELECT object_key FROM versions WHERE object_key IN {names}"
            f" UNION SELECT object_key FROM intents WHERE object_key IN {names}",
            (*part, *part),
        )
        known.update(row[0] for row in found.rows)
    return known


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    # twice this many placeholders stay below the 999 that old SQLite allows
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        yield keys[start : start + _KEYS_PER_STATEMENT]


@reads
def next_to_check(checked_before: datetime, limit: int) -> Script[list[Version]]:
    """Return versions that wait longest for a check; never checked comes first."""
    found = yield Statement(
        f"SELECT {rows.VERSION} FROM versions WHERE checked_at < ? AND expired_at IS NULL"
        " ORDER BY checked_at, collection, number LIMIT ?",
        (rows.microseconds(checked_before), max(limit, 0)),
    )
    return [rows.version(row) for row in found.rows]


@writes
def record_check(version_id: str, now: datetime, sha256: str, damage: str) -> Script[None]:
    """Store a check's result."""
    yield Statement(
        "UPDATE versions SET checked_at = ?, damage = ?, sha256 = CASE WHEN sha256 = '' THEN ? ELSE sha256 END"
        " WHERE id = ?",
        (rows.microseconds(now), cleaned(damage), sha256, version_id),
    )
