"""Work done one piece after the other, in the threads that bring it, without any of them ever waiting.

Owns: who does a piece. Does not own: the threads (``workers``), or what is done (``storage/local_sink``,
``storage/local_source``).

A file has one hash, whose bytes are fed in order, while its buffers are read or written side by side. Would each thread
wait for its turn, the hash would stand still at every handing over, for as long as the system takes to wake a thread,
and a thread that waits is one that others do not have. So whoever hashes goes on with what others bring meanwhile: a
strand, in the words of Boost.Asio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Strand:
    """Does pieces in the order of their numbers, from 0; safe to be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._brought: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._busy = False

    def bring(self, number: int, piece: Callable[[], None]) -> None:
        """Do ``piece`` after all of lower numbers: now and here, or in the thread that does those.

        Each number must be brought once, or nothing behind it is ever done. A piece must not raise.
        """
        with self._lock:
            self._brought[number] = piece
            if self._busy:
                return
            self._busy = True
        while (following := self._take()) is not None:
            following()

    def _take(self) -> Callable[[], None] | None:
        with self._lock:
            piece = self._brought.pop(self._next, None)
            if piece is None:
                self._busy = False
            else:
                self._next += 1
            return piece
