"""How much may be uploaded: the contract's sums, by table and by property."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_backups.domain.model import Collection, Version
from tornado_backups.domain.quota import allowed_bytes, extra_space

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def collection(count: int, soft: int, hard: int) -> Collection:
    return Collection("db", "db-${version}.gpg", count, max_one_version_bytes=soft, max_collection_bytes=hard)


def stored(*sizes: int) -> list[Version]:
    return [
        Version(str(n), "db", n, f"db-{n}.gpg", f"db/{n}/db-{n}.gpg", size, "", "", "ann", NOON, NOON)
        for n, size in enumerate(sizes, 1)
    ]


@pytest.mark.parametrize(
    ("count", "soft", "hard", "extra"),
    [(5, 10, 60, 10), (5, 10, 50, 0), (5, 10, 30, 0), (5, 10, 0, 0), (5, 0, 60, 0), (5, 0, 0, 0)],
)
def test_extra_space_is_what_the_hard_limit_leaves_beyond_full_soft_limits(
    count: int, soft: int, hard: int, extra: int
) -> None:
    assert extra_space(collection(count, soft, hard)) == extra


@pytest.mark.parametrize(
    ("soft", "hard", "kept", "allowed"),
    [
        (0, 0, (), None),
        (0, 0, (1000,), None),
        (10, 0, (), 10),
        (10, 0, (10, 25), 10),
        (0, 60, (), 60),
        (0, 60, (20, 30), 10),
        (0, 60, (80,), 0),
        (10, 60, (), 20),
        (10, 60, (10, 10, 10, 10), 20),
        (10, 60, (14,), 16),
        (10, 60, (20,), 10),
        (10, 60, (14, 13), 13),
        (10, 60, (20, 13), 7),
        (10, 60, (10, 10, 10, 10, 10, 5), 5),
        (10, 60, (30, 30), 0),
        (10, 30, (10, 10, 5), 5),
    ],
)
def test_what_may_be_uploaded_is_bound_by_soft_limit_extra_space_and_hard_limit(
    soft: int, hard: int, kept: tuple[int, ...], allowed: int | None
) -> None:
    assert allowed_bytes(collection(5, soft, hard), stored(*kept)) == allowed


@given(st.integers(1, 9), st.integers(0, 100), st.integers(0, 1000), st.lists(st.integers(0, 300), max_size=8))
def test_what_may_be_uploaded_is_never_negative_and_never_passes_the_hard_limit(
    count: int, soft: int, hard: int, kept: list[int]
) -> None:
    allowed = allowed_bytes(collection(count, soft, hard), stored(*kept))
    if allowed is None:
        assert soft == hard == 0
        return
    assert allowed >= 0
    if hard and sum(kept) <= hard:
        assert sum(kept) + allowed <= hard


@given(st.integers(1, 9), st.integers(1, 100), st.integers(0, 500), st.lists(st.integers(0, 200), max_size=8))
def test_every_place_in_the_queue_can_still_be_filled_to_the_soft_limit(
    count: int, soft: int, spare: int, offered: list[int]
) -> None:
    """Whatever was uploaded within what was allowed, the free places keep a whole soft limit each."""
    limits = collection(count, soft, count * soft + spare)
    kept: list[int] = []
    for size in offered[:count]:
        allowed = allowed_bytes(limits, stored(*kept))
        assert allowed is not None
        assert allowed >= soft
        kept.append(min(size, allowed))
