"""Between rows and the domain's nouns.

Owns: the columns in the order in which they are read, and how times and address lists are written.
Does not own: the tables (``schema``).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from tornado_backups.domain.model import Intent, Lease, Session, Version
from tornado_backups.registry.script import Value, cleaned

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = 0
_MICROSECOND = timedelta(microseconds=1)

_VERSION_COLUMNS = (
    "id", "collection", "number", "filename", "object_key", "size_bytes", "sha256", "session_id", "uploader",
    "created_at", "updated_at", "checked_at", "damage",
)  # fmt: skip
VERSION = ", ".join(_VERSION_COLUMNS)
"""The columns that :func:`version` reads."""
VERSION_OF_V = ", ".join(f"v.{column}" for column in _VERSION_COLUMNS)
"""The same where the table goes by the name ``v``."""
VERSION_WIDTH = len(_VERSION_COLUMNS)

INTENT = "id, collection, number, filename, object_key, lease_name, lease_owner, lease_fencing, created_at"
"""The columns that :func:`intent` reads."""

SESSION = (
    "id, user_name, access_key_name, description, requester_ip, created_at, updated_at, expires_at, "
    "deactivated, restrict_by_ip, single_use, narrowed_lifetime"
)
"""The columns that :func:`session` reads."""


def microseconds(moment: datetime) -> int:
    """Return an aware time as whole microseconds since 1970 UTC."""
    return (moment - EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """Return the time that :func:`microseconds` wrote, in UTC."""
    return EPOCH + timedelta(0, 0, value)  # by position: twice as fast, and a listing does it a thousand times


def version(row: tuple[Any, ...]) -> Version:
    """Build a version from the columns of :data:`VERSION`; further columns are ignored."""
    created_at = moment(row[9])
    updated_at = created_at if row[10] == row[9] else moment(row[10])
    checked_at = moment(row[11]) if row[11] != NEVER else None
    return Version._make((*row[:9], created_at, updated_at, checked_at, row[12]))


def version_values(version: Version) -> tuple[Value, ...]:
    """Return the values of :data:`VERSION`."""
    return (
        version.id,
        version.collection,
        version.number,
        version.filename,
        version.object_key,
        version.size_bytes,
        version.sha256,
        version.session_id,
        version.uploader,
        microseconds(version.created_at),
        microseconds(version.updated_at),
        microseconds(version.checked_at) if version.checked_at else NEVER,
        cleaned(version.damage),
    )


def intent(row: tuple[Any, ...]) -> Intent:
    """Build an intent from the columns of :data:`INTENT`."""
    fields = [*row[:5], Lease(*row[5:8]), moment(row[8])]
    return Intent(*fields)


def intent_values(intent: Intent) -> tuple[Value, ...]:
    """Return the values of :data:`INTENT`."""
    lease = intent.lease
    return (
        intent.id,
        intent.collection,
        intent.number,
        intent.filename,
        intent.object_key,
        lease.name,
        lease.owner,
        lease.fencing,
        microseconds(intent.created_at),
    )


def session(row: tuple[Any, ...]) -> Session:
    """Build a session from the columns of :data:`SESSION`."""
    networks = tuple(ip_network(network) for network in row[9].split(",") if network)
    times = (moment(row[5]), moment(row[6]), moment(row[7]))
    fields = [*row[:5], *times, bool(row[8]), networks, bool(row[10]), bool(row[11])]
    return Session(*fields)


def session_values(session: Session) -> tuple[Value, ...]:
    """Return the values of :data:`SESSION`."""
    return (
        session.id,
        session.user,
        session.access_key_name,
        cleaned(session.description),
        cleaned(session.requester_ip),
        microseconds(session.created_at),
        microseconds(session.updated_at),
        microseconds(session.expires_at),
        int(session.deactivated),
        ",".join(str(network) for network in session.restrict_by_ip),
        int(session.single_use),
        int(session.narrowed_lifetime),
    )


def placeholders(count: int) -> str:
    """Return ``count`` placeholders between brackets."""
    return "(" + ", ".join("?" * count) + ")"
