"""Threads that hash and move bytes, and give way to the event loop while they do.

Owns: how many there are and how they are scheduled. Does not own: what is done in them (``storage/local_threads``,
``storage/s3``). Figures are in docs/performance.md.
"""

from __future__ import annotations

import contextlib
import os
import sys

from tornado_backups.workers import Workers

NICENESS = 10
"""How much nicer they are than the event loop: of a busy processor each gets a tenth of what it gets (sched(7))."""

_FEWEST, _MOST = 2, 4


def background_threads(name: str) -> Workers:
    """Return threads for short work, as many as there are processors (two to four); started when they are needed.

    More would keep the event loop from the processor, and with it everybody who waits for an answer.
    """
    return Workers(name, max(_FEWEST, min(_MOST, os.cpu_count() or 1)), _give_way)


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own: nice(2) would slow the event loop
        with contextlib.suppress(OSError):  # a seccomp filter may forbid it, and nothing depends on it
            os.nice(NICENESS)
