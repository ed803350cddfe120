"""What a part tried, how often, how it ended, and what it found: printed for people, asserted on by tests."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter


class Report:
    """Counts of one part; may be used from several threads."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.tried: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {}
        self.findings: list[str] = []
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._begun = time.monotonic()

    def count(self, what: str, outcome: str = "survived", times: int = 1) -> None:
        """Count a try and how it ended."""
        with self._lock:
            self.tried[what] += times
            self.outcomes.setdefault(what, Counter())[outcome] += times

    def finding(self, what: str) -> None:
        """Note what must not be."""
        with self._lock:
            self.findings.append(what)
        print(f"FINDING in {self.part}: {what}", file=sys.stderr, flush=True)

    def check(self, right: bool, what: str) -> None:
        """Note a finding unless ``right``."""
        if not right:
            self.finding(what)

    def note(self, text: str) -> None:
        """Add a measured figure."""
        with self._lock:
            self.notes.append(text)

    def show(self) -> None:
        """Print everything."""
        print(f"{self.part}: {sum(self.tried.values())} tries in {time.monotonic() - self._begun:.1f} s")
        for what, times in sorted(self.tried.items()):
            ends = ", ".join(f"{outcome} {count}" for outcome, count in self.outcomes[what].most_common(8))
            print(f"  {times:9d}  {what}: {ends}")
        for note in self.notes:
            print(f"             {note}")
        for finding in self.findings:
            print(f"    FINDING  {finding}")
        print(f"  {len(self.findings)} findings", flush=True)
