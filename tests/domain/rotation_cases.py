"""What the rotation tests share: short ways to write collections and versions, and to let uploads happen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tornado_backups.domain.model import Collection, Fifo, RotationRule, Version
from tornado_backups.domain.rotation import RotationPlan, plan_rotation

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def collection(
    count: int,
    rule: RotationRule | None = None,
    protect: timedelta = timedelta(0),
    soft: int = 0,
    hard: int = 0,
    ratio: float = 0.0,
) -> Collection:
    """A collection with just what rotation looks at."""
    return Collection(
        "db",
        "db-${version}.gpg",
        count,
        max_one_version_bytes=soft,
        max_collection_bytes=hard,
        rotation=rule or Fifo(),
        protect_for=protect,
        min_size_ratio=ratio,
    )


def version(number: int, created_at: datetime = NOON, size: int = 10) -> Version:
    """A stored version with just what rotation looks at."""
    return Version(
        f"id-{number}",
        "db",
        number,
        f"db-{number}.gpg",
        f"db/id-{number}/db-{number}.gpg",
        size,
        "",
        "",
        "ann",
        created_at,
        created_at,
    )


def kept(plan: RotationPlan) -> list[int]:
    """The numbers that stay."""
    return [entry.number for entry in plan.keep]


def removed(plan: RotationPlan) -> list[int]:
    """The numbers that leave."""
    return [removal.number for removal in plan.removals]


def upload(
    of: Collection, versions: Sequence[Version], now: datetime, size: int = 10
) -> tuple[list[Version], RotationPlan]:
    """Plan an upload at commit and carry the plan out, as the upload service would."""
    plan = plan_rotation(of, versions, now, size)
    if plan.refusal is not None:
        return list(versions), plan
    return [entry.version or version(entry.number, now, size) for entry in plan.keep], plan


def upload_all(of: Collection, times: Sequence[datetime], size: int = 10) -> list[Version]:
    """Let uploads happen one after the other; none of them may be refused."""
    versions: list[Version] = []
    for now in times:
        versions, plan = upload(of, versions, now, size)
        assert plan.refusal is None, plan.refusal
    return versions


def numbers(versions: Sequence[Version]) -> list[int]:
    """The numbers of versions, in their order."""
    return [entry.number for entry in versions]
