"""The outside ledger: what a client was told, collection by collection, and what must be there in the end.

Owns: no network; it compares what it was told with what is found. One client at a time writes to a collection, so that
the order of events is known. An upload that got no answer may have been stored or not, but nothing in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """The events of one collection that keeps the newest ``keep`` versions (fifo)."""

    collection: str
    keep: int
    _events: list[tuple[str, int, str]] = field(default_factory=list)
    _unknown: set[str] = field(default_factory=set)
    _unsure: bool = False

    def stored(self, number: int, sha256: str) -> None:
        """An upload was acknowledged."""
        self._events.append(("stored", number, sha256))
        self._unsure = False

    def unanswered(self, sha256: str) -> None:
        """An upload that was sent whole ended without an answer."""
        self._unknown.add(sha256)
        self._unsure = True

    def deleted(self, number: int) -> None:
        """A version was deleted."""
        self._events.append(("deleted", number, ""))
        self._unsure = bool(self._unknown)

    def last(self) -> tuple[int, str] | None:
        """Return the newest version that must be there, if nothing unanswered makes that unsure."""
        return None if self._unsure else max(self._kept(0).items(), default=None)

    def acknowledged(self) -> int:
        """Return how many uploads were acknowledged."""
        return sum(what == "stored" for what, _, _ in self._events)

    def faults(self, found: dict[int, str]) -> list[str]:
        """Compare with what is found (number → SHA-256 of the bytes as downloaded); one sentence per fault."""
        newest = max(found, default=0)
        kept = self._kept(newest)
        told = {number: sha256 for what, number, sha256 in self._events if what == "stored"}
        faults = []
        if len(told) != sum(what == "stored" for what, _, _ in self._events):
            faults.append("a number was given twice")
        for number, sha256 in kept.items():
            if number not in found and sha256:
                faults.append(f"version {number} was acknowledged and is gone")
        for number, sha256 in found.items():
            if number in told and told[number] != sha256:
                faults.append(f"version {number} is not what was acknowledged")
            elif number not in told and sha256 not in self._unknown:
                faults.append(f"version {number} was never uploaded whole")
            elif number not in kept:
                faults.append(f"version {number} should have left")
        return [f"{self.collection}: {fault}" for fault in faults]

    def _kept(self, newest: int) -> dict[int, str]:
        """Return number → SHA-256 of what fifo leaves; an empty one is an unanswered upload that took its number."""
        kept: dict[int, str] = {}
        highest = 0
        for what, number, sha256 in [*self._events, ("end", newest + 1, "")]:
            if what == "deleted":
                kept.pop(number, None)
                continue
            for between in range(highest + 1, number):
                self._add(kept, between, "")
            if what == "stored":
                self._add(kept, number, sha256)
                highest = max(highest, number)
        return kept

    def _add(self, kept: dict[int, str], number: int, sha256: str) -> None:
        kept[number] = sha256
        while len(kept) > self.keep:
            del kept[min(kept)]
