"""Does the time of a refused login tell whose it was? `python -m benchmarks.login_timing [--tries 200]`.

Starts a server over a tree of its own, sends every kind of refused login over HTTP in random order, round by round, and
compares the times. The hashes have the cost of `encode-password`, as the decoy for unknown users has. Prints medians,
quartiles and each kind's distance from the median of all; exits 1 when a distance exceeds the noise, which is the
distance between the quartiles of all tries.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.serving import RunningServer, Tree
from tornado_backups.auth.passwords import hash_password

PASSWORD = "the right password of the timing bench"
LOGIN = "/api/stable/auth/login"
KINDS: Mapping[str, tuple[str, str]] = {
    "wrong password": ("known", "wrong"),
    "unknown user": ("nobody", PASSWORD),
    "deactivated user": ("deactivated", PASSWORD),
    "refused address": ("elsewhere", PASSWORD),
    "unknown access key": ("known$nothing", PASSWORD),
    "wrong password of an access key": ("known$key", "wrong"),
    "refused address of an access key": ("known$elsewhere", PASSWORD),
    "a name that nobody can have": ("a$b$c", PASSWORD),
    "a very long password": ("known", "x" * 10_000),
}


def build_tree(root: Path) -> Tree:
    """Write users whose hashes cost what new hashes cost."""
    tree = Tree(root)
    phc = hash_password(PASSWORD)
    bound = {"restrictByIP": ["192.0.2.0/24"]}
    keys = [{"name": "key", "password": phc}, {"name": "elsewhere", "password": phc, **bound}]
    tree.user("known", password=phc, accessKeys=keys)
    tree.user("deactivated", password=phc, deactivated=True)
    tree.user("elsewhere", password=phc, **bound)
    return tree


def measure(server: RunningServer, tries: int, seed: int = 1) -> dict[str, list[float]]:
    """Return the seconds of ``tries`` refused logins of each kind, sent round by round in random order."""
    order, chance = list(KINDS), random.Random(seed)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(tries):
        chance.shuffle(order)
        for kind in order:
            username, password = KINDS[kind]
            began = time.perf_counter()
            answer = server.request("POST", LOGIN, {"username": username, "password": password})
            seconds[kind].append(time.perf_counter() - began)
            if answer.status != 401:
                raise SystemExit(f"{kind}: {answer.status} instead of 401")
    return seconds


def noise_of(seconds: Mapping[str, list[float]]) -> float:
    """Return the distance between the quartiles of all tries."""
    low, _, high = statistics.quantiles([each for times in seconds.values() for each in times], n=4)
    return high - low


def distances(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return how far each kind's median is from the median of all, in seconds."""
    middle = statistics.median([each for times in seconds.values() for each in times])
    return {kind: statistics.median(times) - middle for kind, times in seconds.items()}


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=200, help="refused logins of each kind")
    tries = parser.parse_args().tries
    with tempfile.TemporaryDirectory(prefix="tb-timing-") as name:
        server = RunningServer(Path(name), build_tree(Path(name) / "config"), log_level="error")
        try:
            measure(server, 2)
            seconds = measure(server, tries)
        finally:
            server.stop()
    noise, apart = noise_of(seconds), distances(seconds)
    for kind, times in seconds.items():
        low, median, high = (1000 * each for each in statistics.quantiles(times, n=4))
        print(
            f"{kind:<34} median {median:6.1f} ms  quartiles {low:6.1f} {high:6.1f}  apart {1000 * apart[kind]:+6.2f} ms"
        )
    print(f"noise: {1000 * noise:.1f} ms between the quartiles of all {tries * len(seconds)} tries")
    return int(any(abs(distance) > noise for distance in apart.values()))


if __name__ == "__main__":
    sys.exit(main())
