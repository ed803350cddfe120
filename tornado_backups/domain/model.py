"""The nouns: users, collections, versions, sessions, leases, intents.

Owns: plain frozen values, with units in their names; all times are aware datetimes in UTC.
Does not own: how they are read (``config/manifests``), stored (``registry``) or judged (the other domain modules).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class Role(StrEnum):
    """What a user may be; the hierarchy between them is in ``domain/permissions``."""

    SYSTEM_ADMIN = "systemAdmin"
    USER_MANAGER = "userManager"
    COLLECTION_MANAGER = "collectionManager"
    BACKUP_UPLOADER = "backupUploader"
    BACKUP_DOWNLOADER = "backupDownloader"
    UPLOADS_ANYTIME = "uploadsAnytime"


COLLECTION_ROLES = frozenset(
    {Role.COLLECTION_MANAGER, Role.BACKUP_UPLOADER, Role.BACKUP_DOWNLOADER, Role.UPLOADS_ANYTIME}
)
"""The roles that act on one collection: all that access lists, access keys and token scopes may name."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles on one collection, as access keys and token scopes narrow a session to."""

    collection: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A second password of a user, good for its ``grants`` only and from its own addresses only (none: anywhere)."""

    name: str
    password_hash: str
    restrict_by_ip: tuple[Network, ...] = ()
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A BackupUser; an empty ``password_hash`` lets nobody in."""

    name: str
    email: str = ""
    organization: str = ""
    about: str = ""
    deactivated: bool = False
    password_hash: str = ""
    restrict_by_ip: tuple[Network, ...] = ()
    roles: frozenset[Role] = frozenset()
    access_keys: tuple[AccessKey, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupWindow:
    """A recurring slot: ``cron`` (five fields) says when it starts, half-open ``[start, start + duration)``.

    ``timezone`` is an IANA name, empty for the server's own zone. Checked by ``domain/windows.check_window``.
    """

    cron: str
    duration: timedelta
    timezone: str = ""


@dataclass(frozen=True, slots=True)
class Fifo:
    """Keep the newest ``maxBackupsCount`` versions."""


@dataclass(frozen=True, slots=True)
class FifoPlusOlder:
    """Like fifo, and up to ``max_older_copies`` that fell out of it keep a place until older than ``max_older_age``."""

    max_older_copies: int
    max_older_age: timedelta


@dataclass(frozen=True, slots=True)
class Gfs:
    """Keep the newest version of each of the last N hours, days, ISO weeks, months and years that have one."""

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class NoRotation:
    """Rotate nothing: a full collection refuses uploads."""


RotationRule = Fifo | FifoPlusOlder | Gfs | NoRotation


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One line of a collection's ``accessControl``."""

    user_name: str
    roles: frozenset[Role]


HEALTH_CODE_UNREADABLE = "unreadable"
"""Stands for the hash of a health code that cannot be read: the health page is a fault then, never open."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A BackupCollection. Sizes in bytes, 0 meaning no limit.

    ``health_code_hash`` is lower-case hex SHA-256, empty (no code is asked for) or :data:`HEALTH_CODE_UNREADABLE`.
    """

    name: str
    filename_template: str
    max_backups_count: int
    max_one_version_bytes: int = 0
    max_collection_bytes: int = 0
    description: str = ""
    windows: tuple[BackupWindow, ...] = ()
    rotation: RotationRule = Fifo()
    protect_for: timedelta = timedelta(0)
    min_size_ratio: float = 0.0
    max_age: timedelta = timedelta(0)
    ping_url: str = ""
    health_code_hash: str = ""
    access_control: tuple[AccessEntry, ...] = ()

    def filename(self, number: int) -> str:
        """Return the name a person sees for version ``number``: the first ``${version}`` of the template replaced."""
        return self.filename_template.replace("${version}", str(number), 1)


class Version(NamedTuple):
    """One stored backup. ``number`` rises by one per stored version and is never used twice in a collection.

    A tuple, and no dataclass like the others: listings make thousands of them, and it is made in a third of the time.

    ``sha256`` is lower-case hex, empty when the version was imported and not verified yet. ``checked_at`` is when the
    object was last read back whole; ``damage`` is empty or says what was found wrong with it.
    """

    id: str
    collection: str
    number: int
    filename: str
    object_key: str
    size_bytes: int
    sha256: str
    session_id: str
    uploader: str
    created_at: datetime
    updated_at: datetime
    checked_at: datetime | None = None
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One issued JWT; ``id`` is the SHA-256 of the token, hex. The token itself is stored nowhere.

    ``narrowed_lifetime``: the login asked for less than the default, so refreshing keeps ``expires_at``.
    """

    id: str
    user: str
    access_key_name: str
    description: str
    requester_ip: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    deactivated: bool = False
    restrict_by_ip: tuple[Network, ...] = ()
    single_use: bool = False
    narrowed_lifetime: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as proven by a verified token: everything that permissions look at and nothing they don't.

    ``access_key`` is set when the session was opened with one; ``scope`` is empty when the token is not narrowed.
    """

    user: User
    session: Session
    access_key: AccessKey | None = None
    scope: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token with a good signature says; whether its session still lives is a matter of the registry."""

    login: str
    access_key_name: str
    scope: tuple[Grant, ...]
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock with an owner, a fencing number that rises with every change of owner, and an expiry."""

    name: str
    owner: str
    fencing: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an upload begins with, all of one moment: its lease, the live versions (ascending), the next number.

    The number cannot change while the lease is held.
    """

    lease: Lease
    versions: Sequence[Version]
    next_number: int


@dataclass(frozen=True, slots=True)
class Intent:
    """What an upload is about to put on the storage, written down before it does so.

    ``lease`` must be live for the intent to become a version; an intent without a live lease is debris to remove.
    """

    id: str
    collection: str
    number: int
    filename: str
    object_key: str
    lease: Lease
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Removal:
    """A version that leaves, and why (one short sentence for the log)."""

    version_id: str
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing of the storage shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """A collection's live versions in sum; ``newest`` is None when there are none."""

    collection: str
    versions_count: int
    used_bytes: int
    newest: Version | None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of a health answer: a check's name, whether it holds, and what was expected and found."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class HealthState:
    """What was last known of a collection's health, so that only changes are reported."""

    collection: str
    healthy: bool
    since: datetime
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """A webhook call that must outlive a restart: ``body`` is the exact JSON text that gets signed."""

    id: int
    body: str
    attempts: int
    next_attempt_at: datetime
