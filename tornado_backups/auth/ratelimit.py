"""Token buckets per client address, in bounded memory.

Owns: counting, and the refusal with its waiting time.
Does not own: which request counts against which limit (``web``), how addresses are found (``domain/addresses``).
Explained in docs/security.md, "Rate limits".
"""

from __future__ import annotations

import math
from collections import OrderedDict

from tornado_backups.domain.addresses import address_group
from tornado_backups.domain.errors import RateLimited
from tornado_backups.ports import Clock

MAX_ADDRESSES = 8192
"""How many addresses one limiter remembers (about 2 MiB); the one that was quiet for longest is forgotten first."""


class RateLimiter:
    """Allow each address ``limit`` requests at once, refilled evenly over ``per_seconds``.

    A limit of 0 allows everything. IPv6 addresses of one /64 share a bucket, IPv4-mapped ones that of their IPv4
    address. Each bucket is kept as one number, the time at which it will be full again (the generic cell rate
    algorithm, which gives the same answers as a token bucket): a bucket that is full needs no entry at all.
    """

    def __init__(self, limit: int, per_seconds: float, clock: Clock, name: str) -> None:
        self.name = name
        self._clock = clock
        self._unlimited = limit <= 0
        self._per_seconds = per_seconds
        self._interval = 0.0 if self._unlimited else per_seconds / limit
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many addresses are remembered, never more than ``MAX_ADDRESSES``."""
        return len(self._full_at)

    def check(self, address: str) -> None:
        """Count one request of ``address``; raises ``RateLimited`` when its bucket is empty.

        A refused request is not counted, so that a client that keeps trying gets its share all the same.
        """
        if self._unlimited:
            return
        key = address_group(address)
        now = self._clock.monotonic()
        full_at = max(self._full_at.pop(key, now), now)
        wait_seconds = full_at + self._interval - self._per_seconds - now
        # A remainder below a microsecond is rounding: the client waited as long as it was told to.
        allowed = wait_seconds < 1e-6
        self._full_at[key] = full_at + self._interval if allowed else full_at
        if len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)
        if not allowed:
            retry_after_seconds = max(1, math.ceil(wait_seconds - 1e-6))
            raise RateLimited(
                f"too many requests from this address; try again in {retry_after_seconds} s",
                self.name,
                retry_after_seconds,
            )
