"""Thread calls that do one part of their work in the order in which they were asked for.

Owns: who waits for whom. Does not own: the calls, which begin in that order (``workers``), or what they do
(``storage/local_sink``, ``storage/local_source``).

A file has one hash, whose bytes are fed one after the other, while the threads that read or write its buffers run side
by side.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """Deals out turns; used by one thread."""

    def __init__(self) -> None:
        self._latest = threading.Lock()

    def next(self) -> Turn:
        """Return the turn behind the one dealt out before; each must be taken, or nobody behind it gets theirs."""
        mine, self._latest = self._latest, threading.Lock()
        self._latest.acquire()
        return Turn(mine, self._latest)


class Turn:
    """A block of it runs after that of the turn before, and before that of the next."""

    def __init__(self, mine: threading.Lock, following: threading.Lock) -> None:
        self._mine = mine
        self._following = following

    def __enter__(self) -> None:
        self._mine.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._following.release()
