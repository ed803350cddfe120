"""The Go server's rows, and which of them can be taken over.

Owns: what makes a row usable, and the versions and sessions that rows become.
Does not own: reading the tables (``registry/go_tables``), registering (``services/takeover``). See docs/migrate.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_backups.domain.model import Session, Version
from tornado_backups.domain.recovery import MAX_NUMBER, storable_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class GoCollection:
    """What the table says of a collection: the highest number ever given, and how many rows are soft-deleted."""

    name: str
    highest_number: int
    deleted_count: int


@dataclass(frozen=True, slots=True)
class GoVersion:
    """A live row of ``uploaded_versions``; ``filesize`` is 0 when the row does not know it."""

    id: str
    collection: str
    number: int
    filename: str
    filesize: int
    session_id: str
    uploader: str
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def object_key(self) -> str:
        """Where the Go server keeps the object."""
        return f"{self.collection}/{self.filename}"

    def version(self, size_bytes: int, now: datetime) -> Version:
        """Return the version that the row becomes, its object having ``size_bytes``.

        The row's own size stays when it has one; an object of another size is noted as damaged. A row without a time
        counts as made ``now``. The SHA-256 is empty until the object is verified.
        """
        created_at = _time(self.created_at) or _time(self.updated_at) or now
        differs = self.filesize > 0 and self.filesize != size_bytes
        return Version(
            id=self.id,
            collection=self.collection,
            number=self.number,
            filename=self.filename,
            object_key=self.object_key,
            size_bytes=self.filesize if differs else size_bytes,
            sha256="",
            session_id=self.session_id,
            uploader=self.uploader,
            created_at=created_at,
            updated_at=_time(self.updated_at) or created_at,
            damage=f"the object has {size_bytes} bytes, {self.filesize} were registered" if differs else "",
        )


@dataclass(frozen=True, slots=True)
class GoSession:
    """A row of ``granted_accesses``; ``deleted`` tells that it is soft-deleted."""

    id: str
    user: str
    access_key_name: str
    description: str
    requester_ip: str
    expires_at: datetime | None
    deactivated: bool
    deleted: bool
    created_at: datetime | None
    updated_at: datetime | None


def sort_out(rows: Sequence[GoVersion]) -> tuple[list[GoVersion], list[tuple[GoVersion, str]]]:
    """Return one collection's rows that can be taken over, ascending by number, and the others with the reason.

    Of several rows that name one object, or one number, the newest is right: it wrote the object last.
    """
    usable: dict[str, GoVersion] = {}
    numbers: dict[int, GoVersion] = {}
    left: list[tuple[GoVersion, str]] = []
    for row in sorted(rows, key=lambda row: (_time(row.created_at) or _EPOCH, row.number, row.id), reverse=True):
        if reason := _unusable(row):
            left.append((row, reason))
        elif row.object_key in usable:
            left.append((row, f"version {usable[row.object_key].number}, a newer row, has overwritten its object"))
        elif row.number in numbers:
            left.append((row, f"a newer row, {numbers[row.number].object_key}, has the same number"))
        else:
            usable[row.object_key] = numbers[row.number] = row
    return sorted(usable.values(), key=lambda row: row.number), left


def _unusable(row: GoVersion) -> str:
    if not storable_name(row.collection) or not storable_name(row.filename):
        return "its collection and file name cannot be an object's key"
    if not 0 < row.number <= MAX_NUMBER:
        return "its number is none that a version can have"
    return "" if row.id else "it has no id"


def session_of(row: GoSession) -> Session | str:
    """Return the session that a row becomes, expired and deactivated ones as such; or why it is left."""
    if row.deleted:
        return "it is soft-deleted, so its token is not valid"
    if not _SHA256.fullmatch(row.id):
        return "its id is not the SHA-256 of a token"
    expires_at = _time(row.expires_at)
    if not row.user or expires_at is None:
        return "it has no user or no expiry"
    created_at = _time(row.created_at) or _time(row.updated_at) or _EPOCH
    return Session(
        id=row.id,
        user=row.user,
        access_key_name=row.access_key_name,
        description=row.description,
        requester_ip=row.requester_ip,
        created_at=created_at,
        updated_at=_time(row.updated_at) or created_at,
        expires_at=expires_at,
        deactivated=row.deactivated,
    )


def _time(moment: datetime | None) -> datetime | None:
    """Return a time in UTC; Go's zero time (the year 1) counts as none."""
    return moment.astimezone(UTC) if moment is not None and moment >= _EPOCH else None
