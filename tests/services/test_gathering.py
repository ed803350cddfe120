"""Bytes of running uploads are gathered in order and in a bounded sum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.services.gathering import LARGEST_BYTES, SMALLEST_BYTES, SUM_BYTES, Gathered, Shares


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40_000), max_size=30), st.integers(1, 5))
def test_what_is_taken_is_what_was_added_in_order(sizes: list[int], take_every: int) -> None:
    gathered, added, taken = Gathered(), [], []
    for number, size in enumerate(sizes):
        piece = bytes([number % 256]) * size
        added.append(piece)
        gathered.add(piece)
        if number % take_every == 0:
            assert gathered.size_bytes == len(b"".join(added)) - len(b"".join(taken))
            taken += gathered.take()
            assert gathered.size_bytes == 0
    assert b"".join(taken + gathered.take()) == b"".join(added)


def test_the_drops_of_a_slow_client_are_joined() -> None:
    gathered = Gathered()
    for _ in range(10_000):
        gathered.add(b"x")
    gathered.add(b"y" * 20_000)
    assert [len(piece) for piece in gathered.take()] == [10_000, 20_000]


@pytest.mark.parametrize(
    ("uploads", "each"), [(0, LARGEST_BYTES), (1, LARGEST_BYTES), (8, SUM_BYTES // 8), (100, SMALLEST_BYTES)]
)
def test_each_upload_may_gather_its_share_of_a_fixed_sum(uploads: int, each: int) -> None:
    shares = Shares()
    for upload in range(uploads):
        shares.join(upload)
    assert shares.each_bytes == each


def test_leaving_twice_counts_once() -> None:
    shares = Shares()
    for upload in range(8):
        shares.join(upload)
    for _ in range(2):
        shares.leave(7)
    assert shares.each_bytes == SUM_BYTES // 7
