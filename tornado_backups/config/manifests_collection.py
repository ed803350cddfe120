"""BackupCollection: from its fields to a :class:`~tornado_backups.domain.model.Collection`.

Owns: the fields below ``spec``, their bounds, and which faults break the collection and which only void an entry.
Does not own: when a window is open (``domain/windows``), what rotates (``domain/rotation``).
Explained in docs/yaml.md, "BackupCollection".
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from tornado_backups.config.fields import Faults, Reading, Section, did_you_mean, is_name
from tornado_backups.config.manifest_head import COLLECTION, open_manifest
from tornado_backups.config.manifests_secret import SecretLookup, resolve
from tornado_backups.config.manifests_user import collection_roles
from tornado_backups.config.yaml_nodes import Fields, shown
from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import (
    HEALTH_CODE_UNREADABLE,
    AccessEntry,
    BackupWindow,
    Collection,
    Fifo,
    FifoPlusOlder,
    Gfs,
    NoRotation,
    RotationRule,
)
from tornado_backups.domain.phc import normalise_digest
from tornado_backups.domain.windows import check_window

COLLECTION_FIELDS = (
    "description",
    "filenameTemplate",
    "maxBackupsCount",
    "maxOneVersionSize",
    "maxCollectionSize",
    "windows",
    "window",
    "strategyName",
    "strategySpec",
    "protectFor",
    "minSizeRatio",
    "maxAge",
    "pingUrl",
    "healthSecretRef",
    "accessControl",
)
WINDOW_FIELDS = ("from", "duration", "timezone")
ACCESS_FIELDS = ("name", "userName", "type", "roles")
STRATEGIES = ("fifo", "fifo-plus-older", "gfs", "none")
FIFO_PLUS_OLDER_FIELDS = ("keepLastOlderNotMoreThan", "maxOlderCopies")
GFS_COUNTS = ("keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly")
STRATEGY_FIELDS = (*FIFO_PLUS_OLDER_FIELDS, *GFS_COUNTS, "timezone")

MAX_TEMPLATE_BYTES = 200
"""Leaves room for the number, and for what storages append while they write: file names end at 255 bytes."""

MAX_WINDOWS = 100

_MINUTE = timedelta(minutes=1)


def read_collection(document: Fields, source: str, name: str, secrets: SecretLookup) -> Reading[Collection]:
    """Read the BackupCollection ``name``, its Secret looked up with ``secrets``; never raises."""
    faults = Faults()
    manifest = open_manifest(document, source, COLLECTION, name, faults)
    manifest.required("spec")
    spec = manifest.section("spec")
    if spec is None:
        return Reading(None, tuple(faults.breaking))
    spec.only(COLLECTION_FIELDS)
    spec.required("filenameTemplate", "maxBackupsCount")
    collection = Collection(
        name=name,
        filename_template=_filename_template(spec),
        max_backups_count=spec.whole("maxBackupsCount", 1, at_least=1),
        max_one_version_bytes=spec.size("maxOneVersionSize"),
        max_collection_bytes=spec.size("maxCollectionSize"),
        description=spec.text("description"),
        windows=tuple(_windows(spec)),
        rotation=_rotation(spec),
        protect_for=spec.duration("protectFor"),
        min_size_ratio=spec.ratio("minSizeRatio"),
        max_age=spec.duration("maxAge"),
        ping_url=_ping_url(spec),
        health_code_hash=_health_code(spec, secrets),
        access_control=tuple(_access_control(spec)),
    )
    return Reading(None if faults.breaking else collection, tuple(faults.breaking), tuple(faults.voiding))


def _filename_template(spec: Section) -> str:
    template = spec.text("filenameTemplate")
    if not template:
        return "${version}"
    instead = "write a file name such as backup-${version}.tar.gz.gpg"
    if "${version}" not in template:
        spec.broken("filenameTemplate", "does not hold ${version}", instead)
    elif "/" in template or "\\" in template:
        spec.broken("filenameTemplate", "holds a path separator", instead)
    elif not template.isprintable() or template != template.strip():
        spec.broken("filenameTemplate", "holds control characters, or blanks at its ends", instead)
    elif len(template.encode()) > MAX_TEMPLATE_BYTES:
        spec.broken("filenameTemplate", f"is longer than {MAX_TEMPLATE_BYTES} bytes", instead)
    return template


def _windows(spec: Section) -> list[BackupWindow]:
    if spec.has("window") and spec.has("windows"):
        spec.broken("window", "stands beside spec.windows", "keep one of the two keys")
    field = "windows" if spec.has("windows") else "window"
    sections = spec.sections(field)
    if len(sections) > MAX_WINDOWS:
        spec.broken(field, f"has more than {MAX_WINDOWS} entries", "name several days or hours in one cron text")
        return []
    windows = []
    for section in sections:
        section.only(WINDOW_FIELDS)
        section.required("from", "duration")
        before = len(section.faults.breaking)
        window = BackupWindow(section.text("from"), section.duration("duration"), section.text("timezone"))
        if section.has("from") and section.has("duration") and len(section.faults.breaking) == before:
            windows.append(window)
            _check_window(section, window)
    return windows


def _check_window(section: Section, window: BackupWindow) -> None:
    """Check the window field by field, each with good values for the others, so that the fault has the right line."""
    for field, probe in (
        ("from", BackupWindow(window.cron, _MINUTE)),
        ("timezone", BackupWindow("0 0 * * *", _MINUTE, window.timezone)),
        ("duration", BackupWindow("0 0 * * *", window.duration)),
    ):
        try:
            check_window(probe)
        except ValueError as error:
            what, _, instead = str(error).partition("; ")
            section.broken(field, f"cannot be used: {what}", instead or "write five cron fields such as 30 2 * * *")


def _rotation(spec: Section) -> RotationRule:
    name = spec.text("strategyName") or "fifo"
    strategy = spec.section("strategySpec") or Section(
        spec.source, "spec.strategySpec", Fields({}, {}, spec.line_of("strategyName")), spec.faults
    )
    strategy.only(STRATEGY_FIELDS)
    match name:
        case "fifo":
            return Fifo()
        case "none":
            return NoRotation()
        case "fifo-plus-older":
            strategy.required(*FIFO_PLUS_OLDER_FIELDS)
            copies = strategy.whole("maxOlderCopies", 0, at_least=0)
            return FifoPlusOlder(copies, strategy.duration("keepLastOlderNotMoreThan"))
        case "gfs":
            return _gfs(strategy)
    spec.broken("strategyName", f"is {shown(name)}", did_you_mean(name, STRATEGIES, "use one of"))
    return NoRotation()


def _gfs(strategy: Section) -> Gfs:
    from zoneinfo import ZoneInfo  # here, for most collections rotate by count

    counts = [strategy.whole(field, 0, at_least=0) for field in GFS_COUNTS]
    if not any(counts):
        strategy.broken(GFS_COUNTS[0], "and the other keep… counts are all 0", f"set one of {', '.join(GFS_COUNTS)}")
    timezone = strategy.text("timezone") or "UTC"
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # unknown, not a relative path, a folder of the zone database
        strategy.broken("timezone", f"is {shown(timezone)}", "write an IANA name such as UTC or Europe/Warsaw")
    last, hourly, daily, weekly, monthly, yearly = counts
    return Gfs(last, hourly, daily, weekly, monthly, yearly, timezone)


def _ping_url(spec: Section) -> str:
    """Return the URL; messages do not repeat it, for its path is the key to the service."""
    url = spec.text("pingUrl")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if url and not (usable and url.isprintable() and not any(character.isspace() for character in url)):
        spec.broken("pingUrl", "is no URL that can be called", "write one that begins with http:// or https://")
    return url


def _health_code(spec: Section, secrets: SecretLookup) -> str:
    """Return the code's SHA-256, empty when no code is asked for.

    A code that cannot be read makes the health page a fault, but keeps nobody from storing backups: a voiding one.
    """
    reference = spec.section("healthSecretRef")
    if reference is None:
        return ""
    found = resolve(
        reference, secrets, normalise_digest, "put in what 'echo -n CODE | sha256sum' prints, without the -"
    )
    if isinstance(found, ConfigurationFault):
        spec.faults.voiding.append(found)
        return HEALTH_CODE_UNREADABLE
    return found


def _access_control(spec: Section) -> list[AccessEntry]:
    entries = []
    for section in spec.sections("accessControl"):
        section.only(ACCESS_FIELDS)
        name, user_name = section.text("name"), section.text("userName")
        kind, roles = section.text("type", "user"), collection_roles(section)
        if kind != "user":
            section.void("type", f"is {shown(kind)}, so it grants nothing", "write type: user")
        elif name and user_name and name != user_name:
            section.void("userName", "differs from name, so this entry grants nothing", "keep one of the two")
        elif not is_name(name or user_name):
            section.void("name", f"is {shown(name or user_name)}, so it grants nothing", "write the name of a user")
        elif roles:
            entries.append(AccessEntry(name or user_name, roles))
    return entries
