"""Sessions: recorded, listed, revoked, purged.

Owns: the rows behind issued tokens, known by their SHA-256 alone.
Does not own: what a session may do (``domain/permissions``); the end of a single-use one comes with its upload
(``transactions_uploads``).
"""

from __future__ import annotations

from datetime import datetime

from tornado_backups.domain.model import Session
from tornado_backups.registry import rows
from tornado_backups.registry.script import Script, Statement, reads, storable, writes


@writes
def add_session(session: Session) -> Script[None]:
    """Record a session; one that exists already stays as it is."""
    yield Statement(
        f"INSERT INTO sessions ({rows.SESSION}) VALUES {rows.placeholders(12)} ON CONFLICT (id) DO NOTHING",
        rows.session_values(session),
    )


@reads
def session(session_id: str) -> Script[Session | None]:
    """Return a session in whatever state."""
    if not storable(session_id):
        return None
    found = yield Statement(f"SELECT {rows.SESSION} FROM sessions WHERE id = ?", (session_id,))
    return rows.session(found.rows[0]) if found.rows else None


@reads
def sessions(user: str, limit: int) -> Script[list[Session]]:
    """Return a user's sessions, newest first."""
    if not storable(user):
        return []
    found = yield Statement(
        f"SELECT {rows.SESSION} FROM sessions WHERE user_name = ? ORDER BY created_at DESC, id LIMIT ?",
        (user, max(limit, 0)),
    )
    return [rows.session(row) for row in found.rows]


@writes
def revoke_session(session_id: str, now: datetime) -> Script[bool]:
    """Revoke; the time of the first revocation stays."""
    if not storable(session_id):
        return False
    at = rows.microseconds(now)
    found = yield Statement(
        "UPDATE sessions SET updated_at = CASE WHEN deactivated = 0 THEN ? ELSE updated_at END, deactivated = 1"
        " WHERE id = ?",
        (at, session_id),
    )
    return found.changed == 1


@writes
def purge_sessions(expired_before: datetime) -> Script[int]:
    """Delete sessions that expired before; return how many."""
    gone = yield Statement("DELETE FROM sessions WHERE expires_at < ?", (rows.microseconds(expired_before),))
    return gone.changed
