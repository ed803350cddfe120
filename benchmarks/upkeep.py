"""What ten thousand collections cost: one maintenance pass, one scrape. Owns: those figures."""

from __future__ import annotations

import re
import time

from benchmarks.client import Connection
from benchmarks.latency import fill
from benchmarks.ours import Ours
from benchmarks.plan import Plan

VERSIONS = 30
PASSES = 3
_PASSES = re.compile(rb"tornado_backups_maintenance_passes_total\{[^}]*\} (\d+)")


def measure(plan: Plan) -> None:
    """Run passes over many collections, all of which are healthy; then scrape ``/metrics``."""
    with plan.space() as folder:
        with Ours.running(folder):
            pass  # makes the database
        fill(folder / "data" / "registry.sqlite3", plan.collections * VERSIONS, plan.collections)
        with Ours.running(folder, maintenance_interval="2s") as ours:
            for number in range(plan.collections):
                ours.collection(f"c{number}", maxBackupsCount=VERSIONS)
            with Connection.to(ours.port) as connection:
                _scrape(connection)  # reads every file once
                costs, longest = [], 0.0
                for _ in range(PASSES):
                    used, waited = _one_pass(ours, connection)
                    costs.append(used)
                    longest = max(longest, waited)
                scrapes = [_scrape(connection)[0] for _ in range(PASSES)]
    plan.table.add("upkeep", costs, f"{plan.collections:,} collections")
    plan.table.add("health-upkeep", longest)
    plan.table.add("metrics", scrapes)


def _scrape(connection: Connection) -> tuple[float, int]:
    """Return how long a scrape took and how many passes there were."""
    begin = time.monotonic()
    answer = connection.request("GET", "/metrics")
    return time.monotonic() - begin, sum(int(count) for count in _PASSES.findall(answer.body))


def _one_pass(ours: Ours, connection: Connection) -> tuple[float, float]:
    """Return processor time of one pass, and the longest that ``/health`` waited meanwhile.

    A pass shows as work between two quiet moments; asking for health costs little, and is taken off.
    """
    longest = 0.0
    quiet, work, began = 0, 0.0, ours.process.cpu_seconds()
    last = began
    while quiet < 10 or not work:
        begin = time.monotonic()
        connection.request("GET", "/health").data()
        longest = max(longest, (time.monotonic() - begin) * 1000)
        time.sleep(0.05)
        now = ours.process.cpu_seconds()
        busy = now - last > 0.02
        quiet = 0 if busy else quiet + 1
        work += now - last if busy else 0.0
        last = now
    return work, longest
