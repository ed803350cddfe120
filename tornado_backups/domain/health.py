"""What a monitoring system is told about one collection.

Owns: the checks, their names, and messages that say what was expected and when the last good backup came.
Does not own: gathering the facts (``services/health``), remembering what was last told, alerts. See docs/windows.md.

Every check is a pure function of the collection, what is stored in it, and the time; times in messages are RFC 3339
in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_backups.domain.model import BackupWindow, CheckResult, Collection, Usage, Version
from tornado_backups.domain.trend import COMPARED_VERSIONS, trend_minimum
from tornado_backups.domain.units import format_duration
from tornado_backups.domain.windows import covers, last_closed, next_opening, occurrence

BACKUP_WINDOW = "BackupWindowValidator"
VERSIONS_SIZE = "VersionsSizeValidator"
SUM_OF_VERSIONS = "SumOfVersionsValidator"
INTEGRITY = "IntegrityValidator"
FRESHNESS = "FreshnessValidator"
SIZE_TREND = "SizeTrendValidator"

CHECK_NAMES = (BACKUP_WINDOW, VERSIONS_SIZE, SUM_OF_VERSIONS, INTEGRITY, FRESHNESS, SIZE_TREND)
"""Every check, in the order of the answer; the last two appear only where they are configured."""

RECENT_SIZES_NEEDED = 1 + COMPARED_VERSIONS
"""How many of a collection's newest sizes the checks look at."""

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """What is stored in a collection, as far as health asks; the defaults are those of an empty one.

    ``recent_sizes`` are bytes, newest first, at least :data:`RECENT_SIZES_NEEDED` of them where there are as many;
    ``damaged`` holds the numbers of versions known to be damaged or missing.
    """

    versions_count: int = 0
    used_bytes: int = 0
    newest: Version | None = None
    recent_sizes: tuple[int, ...] = ()
    largest_bytes: int = 0
    damaged: tuple[int, ...] = ()


def collect_facts(
    name: str,
    usages: Mapping[str, Usage],
    recent_sizes: Mapping[str, Sequence[int]],
    largest_sizes: Mapping[str, int],
    damaged_versions: Mapping[str, Sequence[Version]],
) -> CollectionFacts:
    """Pick one collection's facts out of what the registry tells about all of them at once."""
    usage = usages.get(name)
    if usage is None:
        return CollectionFacts()
    return CollectionFacts(
        versions_count=usage.versions_count,
        used_bytes=usage.used_bytes,
        newest=usage.newest,
        recent_sizes=tuple(recent_sizes.get(name, ())),
        largest_bytes=largest_sizes.get(name, 0),
        damaged=tuple(version.number for version in damaged_versions.get(name, ())),
    )


def evaluate(collection: Collection, facts: CollectionFacts, now: datetime) -> tuple[CheckResult, ...]:
    """Run every check that applies, in the order of :data:`CHECK_NAMES`; healthy means that all are ``ok``."""
    no_windows = CheckResult(BACKUP_WINDOW, True, "no backup window is configured: any time is right")
    results = (
        check_backup_window(collection, facts.newest, now) or no_windows,
        check_versions_size(collection, facts.largest_bytes),
        check_sum_of_versions(collection, facts.used_bytes),
        check_integrity(facts.damaged, facts.newest),
        check_freshness(collection, facts.newest, now),
        check_size_trend(collection, facts.newest, facts.recent_sizes),
    )
    return tuple(result for result in results if result is not None)


def check_backup_window(collection: Collection, newest: Version | None, now: datetime) -> CheckResult | None:
    """Check that the newest version came in time for at least one backup window; None when there are no windows.

    In time is an occurrence that is open now (several of one window may be) or the one that closed last.
    """
    if not collection.windows:
        return None
    last = _last_backup(newest)
    if newest and any(covers(window, newest.created_at, now) for window in collection.windows):
        return CheckResult(BACKUP_WINDOW, True, f"{last}, in time for its backup window")
    expected = " or ".join(_expected(window, now) for window in collection.windows[:_NAMED_AT_MOST])
    opens_at = next_opening(collection.windows, now)
    opening = f"; the next window opens at {_rfc3339(opens_at)}" if opens_at else ""
    return CheckResult(BACKUP_WINDOW, False, f"expected a version {expected}; {last}{opening}")


def check_versions_size(collection: Collection, largest_bytes: int) -> CheckResult:
    """Check that no version is above the soft limit, that is, that no extra space is in use."""
    limit = collection.max_one_version_bytes
    if not limit:
        return CheckResult(VERSIONS_SIZE, True, "no limit for one version (maxOneVersionSize) is configured")
    if largest_bytes <= limit:
        return CheckResult(VERSIONS_SIZE, True, f"the largest version has {largest_bytes} of {limit} bytes allowed")
    return CheckResult(
        VERSIONS_SIZE,
        False,
        f"expected no version above maxOneVersionSize, {limit} bytes; the largest has {largest_bytes} "
        "and lives on extra space",
    )


def check_sum_of_versions(collection: Collection, used_bytes: int) -> CheckResult:
    """Check that all versions together are within the hard limit."""
    limit = collection.max_collection_bytes
    if not limit:
        return CheckResult(SUM_OF_VERSIONS, True, "no limit for the collection (maxCollectionSize) is configured")
    if used_bytes <= limit:
        return CheckResult(SUM_OF_VERSIONS, True, f"all versions together have {used_bytes} of {limit} bytes allowed")
    return CheckResult(
        SUM_OF_VERSIONS,
        False,
        f"expected all versions together within maxCollectionSize, {limit} bytes; they have {used_bytes}",
    )


def check_integrity(damaged: Sequence[int], newest: Version | None) -> CheckResult:
    """Check that no version is known to be damaged or missing."""
    if not damaged:
        return CheckResult(INTEGRITY, True, "no version is known to be damaged or missing")
    named = ", ".join(str(number) for number in sorted(damaged)[-_NAMED_AT_MOST:])
    more = f" and {len(damaged) - _NAMED_AT_MOST} older" if len(damaged) > _NAMED_AT_MOST else ""
    last = "the newest version is among them" if newest and newest.number in damaged else _last_backup(newest)
    return CheckResult(
        INTEGRITY, False, f"expected every version whole; damaged or missing: version {named}{more}; {last}"
    )


def check_freshness(collection: Collection, newest: Version | None, now: datetime) -> CheckResult | None:
    """Check that the newest version is no older than ``maxAge``; None when that is not configured."""
    if not collection.max_age:
        return None
    last = _last_backup(newest)
    if newest and now - newest.created_at <= collection.max_age:
        return CheckResult(FRESHNESS, True, last)
    return CheckResult(
        FRESHNESS,
        False,
        f"expected a version no older than {format_duration(collection.max_age)}; {last}",
    )


def check_size_trend(collection: Collection, newest: Version | None, recent_sizes: Sequence[int]) -> CheckResult | None:
    """Check that the newest version is not much smaller than those before; None when that is not configured.

    ``recent_sizes`` are bytes, newest first, the newest version's own included.
    """
    if not collection.min_size_ratio:
        return None
    least = trend_minimum(collection.min_size_ratio, recent_sizes[1:])
    if least is None:
        return CheckResult(SIZE_TREND, True, "there are no two versions to compare yet")
    ratio = f"{collection.min_size_ratio:g} of the median of the {len(recent_sizes[1:RECENT_SIZES_NEEDED])} before it"
    if recent_sizes[0] >= least:
        return CheckResult(SIZE_TREND, True, f"the newest version has {recent_sizes[0]} bytes, at least {ratio}")
    return CheckResult(
        SIZE_TREND,
        False,
        f"expected the newest version to have at least {ratio}, {least:.0f} bytes; it has {recent_sizes[0]}, "
        f"and rotation removes nothing until that holds again; {_last_backup(newest)}",
    )


def _expected(window: BackupWindow, now: datetime) -> str:
    """Say in which slots of a window the newest version would be in time."""
    closed, latest = last_closed(window, now), occurrence(window, now)
    slots = [f"from {_rfc3339(slot.start)} to {_rfc3339(slot.end)}" for slot in (closed, latest) if slot]
    named = f'in the backup window "{window.cron}"' + (f" ({window.timezone})" if window.timezone else "")
    return " ".join([named, " or ".join(dict.fromkeys(slots))]).rstrip()


def _last_backup(newest: Version | None) -> str:
    """Say when the last backup came."""
    if newest is None:
        return "there is no version yet"
    return f"the last backup is version {newest.number} of {_rfc3339(newest.created_at)}"


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
