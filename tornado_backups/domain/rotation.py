"""The rotation plan of an upload: what stays, what leaves and why, how large it may be, and whether it is refused.

Owns: putting rule, protection, size trend and quota together. Does not own: what a single strategy keeps
(``retention``, ``gfs``), the sums (``quota``, ``trend``), nor removing anything (``services``): a plan is only a value.
Explained in docs/rotation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from tornado_backups.domain.errors import ConfigurationFault, Protected, QuotaExceeded, RequestError
from tornado_backups.domain.gfs import grandfather_father_son
from tornado_backups.domain.model import (
    Collection,
    Fifo,
    FifoPlusOlder,
    Gfs,
    NoRotation,
    Removal,
    RotationRule,
    Version,
)
from tornado_backups.domain.quota import allowed_bytes
from tornado_backups.domain.retention import (
    Candidate,
    Verdict,
    fifo,
    fifo_plus_older,
    keep_all,
    later,
    protected_until,
    queue_length,
)
from tornado_backups.domain.trend import COMPARED_VERSIONS, median, trend_minimum
from tornado_backups.domain.units import format_duration, format_size

__all__ = ["Kept", "RotationPlan", "plan_rotation", "protected_until", "simulate", "strategy_name", "trend_holds"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that stays, why, and until when at the earliest (None: only later uploads or an administrator decide).

    ``version`` is None for the upload being planned.
    """

    number: int
    reason: str
    until: datetime | None
    version: Version | None


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What an upload would do; ``keep`` and ``removals`` ascend by number and together are all versions.

    ``keep`` ends with the upload itself, unless ``refusal`` says why it may not be; a refused upload removes nothing.
    ``allowed_bytes`` is how large it may be, None without a limit, 0 when no upload is accepted whatever its size.
    """

    keep: tuple[Kept, ...]
    removals: tuple[Removal, ...]
    allowed_bytes: int | None
    refusal: RequestError | None


def plan_rotation(
    collection: Collection,
    versions: Sequence[Version],
    now: datetime,
    new_size_bytes: int | None = None,
    *,
    new_number: int | None = None,
) -> RotationPlan:
    """Return the plan for an upload at ``now``, with ``versions`` the live ones (ascending by number).

    Without ``new_size_bytes`` (at the begin of an upload) the plan assumes a size that follows the trend; with it (at
    commit) an upload that is too small for ``minSizeRatio`` holds rotation back, and ``allowed_bytes`` and ``refusal``
    judge the size itself. Pass the same ``now`` both times, or a place that ages in between may change the budget.
    ``new_number`` defaults to one more than the highest there is.

    Never raises; ``refusal`` is ``Protected``, ``QuotaExceeded``, ``ConfigurationFault`` (unknown time zone) or None.
    """
    existing = sorted(versions, key=lambda version: version.number)
    candidates = [Candidate(v.number, v.created_at, protected_until(collection, v, now), v) for v in existing]
    number = new_number if new_number is not None else 1 + max((v.number for v in existing), default=0)
    end = later(now, collection.protect_for) if collection.protect_for else None
    try:
        verdicts = _select(collection, [*candidates, Candidate(number, now, end)], now)
    except ConfigurationFault as fault:
        return _refused(candidates, fault, 0)
    allowed = _allowed(collection, existing, verdicts, new_size_bytes)
    full = _full(collection, existing)
    if full is not None:
        return _refused(candidates, full, 0)
    if new_size_bytes is not None and _is_too_small(collection, existing, new_size_bytes):
        verdicts = keep_all(
            [verdict.candidate for verdict in verdicts],
            "rotation is held back: the new version is too small (minSizeRatio)",
        )
    blocked = _protected(collection, verdicts)
    if blocked is not None:
        return _refused(candidates, blocked, 0)
    over = _too_large(collection, allowed, new_size_bytes)
    if over is not None:
        return _refused(candidates, over, allowed)
    return _accepted(verdicts, allowed)


def strategy_name(rule: RotationRule) -> str:
    """Return what the rule is called in ``strategyName``."""
    return _STRATEGY_NAMES[type(rule)]


_STRATEGY_NAMES: dict[type[RotationRule], str] = {
    Fifo: "fifo",
    FifoPlusOlder: "fifo-plus-older",
    Gfs: "gfs",
    NoRotation: "none",
}


def trend_holds(collection: Collection, sizes_newest_first: Sequence[int]) -> bool:
    """Tell whether the newest size follows the trend of those before it; True where nothing is asked or known."""
    minimum = trend_minimum(collection.min_size_ratio, sizes_newest_first[1:])
    return minimum is None or sizes_newest_first[0] >= minimum


def simulate(
    collection: Collection,
    versions: Sequence[Version],
    uploads: Sequence[datetime],
    now: datetime,
    next_number: int | None = None,
) -> list[tuple[datetime, RotationPlan]]:
    """Return each of ``uploads`` with its plan, one after the other in the given order; changes nothing.

    Ages are counted at the time of each upload. Every simulated upload is as large as the median of the up to five
    newest ``versions`` (0 when there are none), so that it follows the trend and shows what quotas would do; numbers
    go on from ``next_number`` or the highest there is, and a refused upload takes none. ``now`` is when the simulation
    is made: simulated versions carry it as ``updated_at``, nothing else depends on it.
    """
    live = sorted(versions, key=lambda version: version.number)
    number = next_number if next_number is not None else 1 + max((v.number for v in live), default=0)
    size_bytes = ceil(median([v.size_bytes for v in live[-COMPARED_VERSIONS:]]))
    steps = []
    for time in uploads:
        plan = plan_rotation(collection, live, time, size_bytes, new_number=number)
        steps.append((time, plan))
        if plan.refusal is None:
            live = [kept.version or _simulated(collection, number, size_bytes, time, now) for kept in plan.keep]
            number += 1
    return steps


def _simulated(collection: Collection, number: int, size_bytes: int, time: datetime, now: datetime) -> Version:
    return Version(
        id=f"simulated-{number}",
        collection=collection.name,
        number=number,
        filename=collection.filename(number),
        object_key="",
        size_bytes=size_bytes,
        sha256="",
        session_id="",
        uploader="",
        created_at=time,
        updated_at=now,
    )


def _select(collection: Collection, candidates: Sequence[Candidate], now: datetime) -> list[Verdict]:
    rule = collection.rotation
    if isinstance(rule, FifoPlusOlder):
        return fifo_plus_older(collection, rule, candidates, now)
    if isinstance(rule, Gfs):
        return grandfather_father_son(collection, rule, candidates)
    if isinstance(rule, NoRotation):
        return keep_all(candidates, "nothing is rotated (strategy none)")
    return fifo(collection, candidates)


def _is_too_small(collection: Collection, existing: Sequence[Version], size_bytes: int) -> bool:
    return not trend_holds(collection, [size_bytes, *(v.size_bytes for v in reversed(existing))])


def _allowed(
    collection: Collection, existing: Sequence[Version], verdicts: Sequence[Verdict], new_size_bytes: int | None
) -> int | None:
    """Return the budget; where rotation will be held back, everything that exists counts towards the hard limit.

    With the size still unknown that is certain only when even the largest upload allowed would be too small.
    """
    kept = [verdict.candidate.version for verdict in verdicts if verdict.stays]
    allowed = allowed_bytes(collection, [version for version in kept if version is not None])
    if allowed is None or not collection.max_collection_bytes:
        return allowed
    if not _is_too_small(collection, existing, allowed if new_size_bytes is None else new_size_bytes):
        return allowed
    return max(0, min(allowed, collection.max_collection_bytes - sum(v.size_bytes for v in existing)))


def _full(collection: Collection, existing: Sequence[Version]) -> QuotaExceeded | None:
    if not isinstance(collection.rotation, NoRotation) or len(existing) < queue_length(collection):
        return None
    return QuotaExceeded(
        f"collection {collection.name} holds {len(existing)} of {queue_length(collection)} versions (maxBackupsCount) "
        "and its strategy 'none' rotates nothing; delete a version or raise maxBackupsCount",
        0,
        0,
    )


def _protected(collection: Collection, verdicts: Sequence[Verdict]) -> Protected | None:
    blocked = [verdict.candidate for verdict in verdicts if verdict.is_blocked]
    ends = [candidate.protected_until for candidate in blocked if candidate.protected_until is not None]
    if not ends:
        return None
    until = max(ends)
    more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
    return Protected(
        f"this upload would rotate out version {blocked[0].number}{more} of collection {collection.name}, protected by "
        f"protectFor ({format_duration(collection.protect_for)}); "
        f"try again after {until.isoformat(timespec='seconds')}",
        until,
    )


def _too_large(collection: Collection, allowed: int | None, new_size_bytes: int | None) -> QuotaExceeded | None:
    """Refuse what is over the budget, and everything when there is none: an empty body is no backup either."""
    if allowed is None or (allowed > 0 and (new_size_bytes is None or new_size_bytes <= allowed)):
        return None
    limits = (
        f"maxOneVersionSize {format_size(collection.max_one_version_bytes)}, "
        f"maxCollectionSize {format_size(collection.max_collection_bytes)}"
    )
    if new_size_bytes is None:
        sentence = f"collection {collection.name} has no room for another version ({limits})"
    else:
        sentence = f"the upload has {new_size_bytes} bytes, collection {collection.name} allows {allowed} ({limits})"
    return QuotaExceeded(sentence, new_size_bytes or 0, allowed)


def _refused(candidates: Sequence[Candidate], refusal: RequestError, allowed: int | None) -> RotationPlan:
    """Return the plan in which everything stays as it is."""
    verdicts = keep_all(candidates, "nothing leaves: the upload is refused")
    return RotationPlan(tuple(_kept(verdict) for verdict in verdicts), (), allowed, refusal)


def _accepted(verdicts: Sequence[Verdict], allowed: int | None) -> RotationPlan:
    removals = [
        Removal(verdict.candidate.version.id, verdict.candidate.number, verdict.reason)
        for verdict in verdicts
        if not verdict.stays and verdict.candidate.version is not None
    ]
    return RotationPlan(tuple(_kept(v) for v in verdicts if v.stays), tuple(removals), allowed, None)


def _kept(verdict: Verdict) -> Kept:
    return Kept(verdict.candidate.number, verdict.reason, verdict.until, verdict.candidate.version)
