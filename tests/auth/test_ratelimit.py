"""Token buckets per address: counts, waiting times, memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.auth.ratelimit import MAX_ADDRESSES, RateLimiter
from tornado_backups.domain.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def allowed(limiter: RateLimiter, address: str) -> bool:
    try:
        limiter.check(address)
    except RateLimited:
        return False
    return True


def test_a_full_bucket_holds_the_limit_and_is_refilled_evenly() -> None:
    clock = Clock()
    limiter = RateLimiter(10, 60.0, clock, "auth")
    assert [allowed(limiter, "192.0.2.1") for _ in range(12)] == [True] * 10 + [False] * 2
    clock.seconds += 6
    assert [allowed(limiter, "192.0.2.1") for _ in range(2)] == [True, False]
    clock.seconds += 3600
    assert [allowed(limiter, "192.0.2.1") for _ in range(11)] == [True] * 10 + [False]


def test_a_refusal_names_the_limit_and_a_waiting_time_after_which_it_succeeds() -> None:
    clock = Clock()
    limiter = RateLimiter(10, 60.0, clock, "auth")
    for _ in range(10):
        limiter.check("192.0.2.1")
    clock.seconds += 0.5
    with pytest.raises(RateLimited) as caught:
        limiter.check("192.0.2.1")
    assert (caught.value.limit, caught.value.retry_after_seconds) == ("auth", 6)
    clock.seconds += caught.value.retry_after_seconds
    limiter.check("192.0.2.1")


def test_the_waiting_time_is_at_least_one_second() -> None:
    limiter = RateLimiter(5, 1.0, Clock(), "default")
    for _ in range(5):
        limiter.check("192.0.2.1")
    with pytest.raises(RateLimited) as caught:
        limiter.check("192.0.2.1")
    assert caught.value.retry_after_seconds == 1


def test_refused_requests_do_not_prolong_the_wait() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 10.0, clock, "auth")
    assert allowed(limiter, "192.0.2.1")
    for _ in range(99):
        clock.seconds += 0.1
        assert not allowed(limiter, "192.0.2.1")
    clock.seconds += 0.1
    assert allowed(limiter, "192.0.2.1")


def test_one_address_does_not_use_up_what_another_has() -> None:
    limiter = RateLimiter(1, 60.0, Clock(), "auth")
    assert allowed(limiter, "192.0.2.1")
    assert not allowed(limiter, "192.0.2.1")
    assert allowed(limiter, "192.0.2.2")


def test_addresses_of_one_ipv6_64_share_a_bucket_and_mapped_ones_that_of_their_ipv4_address() -> None:
    limiter = RateLimiter(1, 60.0, Clock(), "auth")
    assert allowed(limiter, "2001:db8::1")
    assert not allowed(limiter, "2001:db8::2")
    assert allowed(limiter, "2001:db8:0:1::1")
    assert allowed(limiter, "192.0.2.1")
    assert not allowed(limiter, "::ffff:192.0.2.1")


def test_a_limit_of_zero_allows_everything_and_remembers_nobody() -> None:
    limiter = RateLimiter(0, 60.0, Clock(), "auth")
    assert all(allowed(limiter, "192.0.2.1") for _ in range(1000))
    assert len(limiter) == 0


def test_memory_is_bounded_whatever_the_number_of_addresses() -> None:
    limiter = RateLimiter(1, 60.0, Clock(), "auth")
    for number in range(MAX_ADDRESSES * 2):
        limiter.check(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
    assert len(limiter) == MAX_ADDRESSES
    assert not allowed(limiter, f"2001:db8:0:{MAX_ADDRESSES * 2 - 1:x}::1"), "the most recent ones are remembered"


def test_an_address_that_keeps_coming_is_not_forgotten_for_newer_ones() -> None:
    limiter = RateLimiter(1, 60.0, Clock(), "auth")
    limiter.check("192.0.2.1")
    for number in range(MAX_ADDRESSES * 2):
        limiter.check(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
        if number % 1000 == 0:
            assert not allowed(limiter, "192.0.2.1")


@settings(max_examples=50, deadline=None)
@given(
    limit=st.integers(1, 20),
    per_seconds=st.sampled_from([1.0, 60.0]),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_no_stretch_of_time_ever_sees_more_than_a_bucket_and_its_refill(
    limit: int, per_seconds: float, pauses: list[float]
) -> None:
    clock = Clock()
    limiter = RateLimiter(limit, per_seconds, clock, "auth")
    passed: list[float] = []
    for pause in pauses:
        clock.seconds += pause
        if allowed(limiter, "192.0.2.1"):
            passed.append(clock.seconds)
    for first, start in enumerate(passed):
        for count, end in enumerate(passed[first:], start=1):
            assert count <= limit + (end - start) * limit / per_seconds + 1e-3
