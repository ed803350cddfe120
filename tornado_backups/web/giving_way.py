"""Small requests before the next piece of a large transfer.

Owns: how long a transfer stands back. Does not own: when (``web/direct_reads``, ``web/versions``).

To receive or send a buffer of an upload or download holds the event loop for about a millisecond: the kernel copies it,
and does the other side's work meanwhile. A small request takes several turns of the loop, and waited for one buffer at
each of them. Figures are in docs/performance.md.
"""

from __future__ import annotations

import asyncio

TURNS = 6
"""How many turns of the event loop a small request takes in Tornado, from its arrival to its answer."""


async def give_way() -> None:
    """Stand back for as many turns of the event loop as a small request takes; microseconds when there is none."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
