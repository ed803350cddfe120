"""Which versions a rotation rule keeps, and why: one pure function per strategy.

Owns: ``fifo``, ``fifo-plus-older`` and ``none``, the protection of young versions, and the words for what stays and
what leaves. Does not own: ``gfs`` (its own module), sizes, nor whether the upload is refused (``rotation``).
Explained in docs/rotation.md.

The order of versions is always that of their numbers: clocks step back, numbers do not. There is no stored state; what
a rule needs to know of the past it reads off the versions that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tornado_backups.domain.model import Collection, FifoPlusOlder, Version
from tornado_backups.domain.units import format_duration


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as rotation sees it; ``version`` is None for the upload being planned, which never leaves.

    ``protected_until`` is None when ``protectFor`` does not hold it now.
    """

    number: int
    created_at: datetime
    protected_until: datetime | None = None
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of one candidate, why, and until when at the earliest (None: that hangs on uploads alone).

    A verdict to leave on a protected candidate cannot be carried out: the upload that causes it is refused.
    """

    candidate: Candidate
    stays: bool
    reason: str
    until: datetime | None = None

    @property
    def is_blocked(self) -> bool:
        """Tell whether the candidate would have to leave but is protected."""
        return not self.stays and self.candidate.protected_until is not None


def protected_until(collection: Collection, version: Version, now: datetime) -> datetime | None:
    """Return when ``protectFor`` lets go of the version, None when it does not hold it at ``now``.

    A version from the future (the clock was set back) is younger than any ``protectFor`` and so protected by it.
    """
    if not collection.protect_for:
        return None
    end = later(version.created_at, collection.protect_for)
    return end if now < end else None


def later(moment: datetime, span: timedelta) -> datetime:
    """Return ``moment + span``, or the last moment there is where the calendar ends before that."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def queue_length(collection: Collection) -> int:
    """Return ``maxBackupsCount``, at least 1: whatever the configuration says, the newest version stays."""
    return max(1, collection.max_backups_count)


def fifo(collection: Collection, candidates: Sequence[Candidate]) -> list[Verdict]:
    """Keep the newest ``maxBackupsCount`` of ``candidates`` (ascending by number); verdicts are in the same order."""
    length = queue_length(collection)
    beyond = [
        Verdict(candidate, False, f"not among the newest {length} (maxBackupsCount)")
        for candidate in candidates[:-length]
    ]
    return beyond + _queue(collection, candidates)


def fifo_plus_older(
    collection: Collection, rule: FifoPlusOlder, candidates: Sequence[Candidate], now: datetime
) -> list[Verdict]:
    """Keep what ``fifo`` keeps and up to ``maxOlderCopies`` that fell out of its queue; ascending by number.

    Everything beyond the queue holds a place or has just fallen out. Taken in the order of their numbers, each takes a
    free place, or the place of the first holder that is older than ``keepLastOlderNotMoreThan`` and not protected, or
    leaves itself. So nothing has to be remembered: who held a place before comes first, and a smaller queue or fewer
    places after a change of configuration are settled as if the versions had fallen out one by one.
    """
    length = queue_length(collection)
    age = format_duration(rule.max_older_age)
    holders: list[Candidate] = []
    leaving: dict[int, Verdict] = {}
    for candidate in candidates[:-length]:
        if len(holders) < rule.max_older_copies:
            holders.append(candidate)
            continue
        leaver = next((holder for holder in holders if _may_give_way(rule, holder, now)), candidate)
        if leaver is candidate:
            reason = (
                f"not among the newest {length} (maxBackupsCount), and no older copy's place (maxOlderCopies) is free"
            )
        else:
            holders.remove(leaver)
            holders.append(candidate)
            reason = f"older than {age} (keepLastOlderNotMoreThan), and version {candidate.number} takes its place"
        leaving[leaver.number] = Verdict(leaver, False, reason)
    placed = {holder.number: _older_copy(rule, holder, now) for holder in holders}
    beyond = [leaving.get(candidate.number) or placed[candidate.number] for candidate in candidates[:-length]]
    return beyond + _queue(collection, candidates)


def keep_all(candidates: Sequence[Candidate], reason: str) -> list[Verdict]:
    """Keep every candidate for the same ``reason``."""
    return [stay(candidate, reason) for candidate in candidates]


def stay(candidate: Candidate, reason: str, until: datetime | None = None) -> Verdict:
    """Return the verdict to stay; protection, where it lasts, is added to the reason and prolongs ``until``."""
    protection = candidate.protected_until
    if protection is None:
        return Verdict(candidate, True, reason, until)
    return Verdict(candidate, True, f"{reason}; protected (protectFor)", max(protection, until or protection))


def _queue(collection: Collection, candidates: Sequence[Candidate]) -> list[Verdict]:
    length = queue_length(collection)
    return keep_all(candidates[-length:], f"among the newest {length} (maxBackupsCount)")


def _may_give_way(rule: FifoPlusOlder, holder: Candidate, now: datetime) -> bool:
    return later(holder.created_at, rule.max_older_age) < now and holder.protected_until is None


def _older_copy(rule: FifoPlusOlder, holder: Candidate, now: datetime) -> Verdict:
    until = later(holder.created_at, rule.max_older_age)
    reason = f"one of up to {rule.max_older_copies} older copies (maxOlderCopies)"
    if until < now:
        return stay(holder, f"{reason}, until a next one falls out of the queue")
    return stay(holder, f"{reason}, at least until older than {format_duration(rule.max_older_age)}", until)
