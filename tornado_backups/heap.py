"""Memory that was freed, given back to the system.

Owns: the one call of the C library for it. Does not own: when it is worthwhile (``app``). See docs/performance.md.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable


def give_back() -> None:
    """Return the free pages of the heap to the system; does nothing where the C library is not GNU's. Takes 1 ms."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    with contextlib.suppress(ImportError, OSError, AttributeError):  # no ctypes, no such function
        import ctypes

        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    return None
