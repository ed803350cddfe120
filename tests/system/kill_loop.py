"""Kill the real program again and again while clients upload, download and delete, and keep an outside ledger.

Owns: the load, the killing, and the comparison of what was acknowledged with what is there. ``python -m
tests.system.kill_loop --kills 200`` runs it by hand; ``test_kill_loop`` runs a short one. Explained in
docs/crash-order.md. Does not own: finding the one step that a bug hides behind (``tests/system/crash``).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.contract.store_places import LocalPlace, Place, S3Place
from tests.program import Program
from tests.servers.postgres import running_postgres
from tests.servers.s3 import moto
from tests.serving import REPOSITORY, Answer, Tree, message

COLLECTIONS = ("small", "medium", "large", "shared")
MOST_VERSIONS = 4
LEASE_SECONDS = 2
SIZES = {
    "small": (100, 5_000),
    "medium": (100_000, 2_000_000),
    "large": (5_300_000, 8_000_000),
    "shared": (100, 300_000),
}


@dataclass
class Ledger:
    """What clients know of one collection; nothing in here comes from the server but its acknowledgements."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    """When an acknowledged upload began, on this ledger's own clock."""
    cut: list[int] = field(default_factory=list)
    """When uploads ended without an answer, on the same clock: each may have been stored."""
    attempted: set[str] = field(default_factory=set)
    deletions: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clock: int = 0

    def tick(self) -> int:
        """Return the next moment of the ledger's clock; call it under the lock."""
        self.clock += 1
        return self.clock

    def snapshot(self) -> Ledger:
        """Return a copy that no client writes into; call it under the lock."""
        return replace(
            self,
            acknowledged=dict(self.acknowledged),
            begun=dict(self.begun),
            cut=list(self.cut),
            attempted=set(self.attempted),
            deletions=set(self.deletions),
        )

    def newer(self, number: int, live: Iterable[int]) -> int:
        """Return how many newer versions there may ever have been, for so many may have pushed this one out."""
        known = sum(other > number for other in {*self.acknowledged, *self.deletions, *live})
        return known + sum(ended > self.begun[number] for ended in self.cut)

    def missing(self, live: dict[int, str]) -> list[str]:
        """Return what is wrong with the live versions, number by SHA-256 of what was downloaded."""
        faults = []
        for number, sha256 in live.items():
            if sha256 not in self.attempted:
                faults.append(f"version {number} holds bytes that nobody sent")
            elif self.acknowledged.get(number, sha256) != sha256:
                faults.append(f"version {number} is not what was acknowledged under that number")
        for number in self.acknowledged:
            gone = number not in live and number not in self.deletions
            if gone and self.newer(number, live) < MOST_VERSIONS:
                faults.append(f"version {number} was acknowledged and is gone; live are {sorted(live)}")
        return faults


@dataclass
class Figures:
    """What a run came to."""

    kills: int = 0
    uploads: int = 0
    unanswered: int = 0
    refused: int = 0
    deletions: int = 0
    downloads: int = 0
    checked: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.uploads} uploads acknowledged, {self.unanswered} requests cut by a kill,"
            f" {self.refused} refused, {self.downloads} downloads, {self.deletions} deletions,"
            f" {self.checked} versions compared, {len(self.faults)} faults"
        )


@dataclass
class Backend:
    """A database and a storage."""

    place: Place
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def backend(kind: str, folder: Path) -> Iterator[Backend]:
    """Start what ``kind`` needs: ``sqlite-local`` nothing, ``postgres-s3`` two servers."""
    if kind == "sqlite-local":
        yield Backend(LocalPlace(folder / "data" / "objects"))
        return
    with running_postgres() as postgres, moto() as s3:
        os.environ.update(s3.environment())  # for the outside view
        options = {"db_url": postgres.create_database(), "storage_url": s3.url()}
        yield Backend(S3Place(s3, ""), options, s3.environment())


class Load:
    """Clients on threads, one a collection and two on the shared one; they go on through kills."""

    def __init__(self, loop: KillLoop) -> None:
        self._loop = loop
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(name, random.Random(f"{loop.seed} {name} {number}")))
            for number, name in enumerate((*COLLECTIONS, "shared"))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every client after its request."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, name: str, chance: random.Random) -> None:
        while not self._stopping.is_set():
            try:
                self._one_request(name, chance)
            except (OSError, http.client.HTTPException):
                self._loop.figures.unanswered += 1
                self._stopping.wait(0.02)

    def _one_request(self, name: str, chance: random.Random) -> None:
        loop, ledger = self._loop, self._loop.ledgers[name]
        what = chance.random()
        if what < 0.75:
            data = message(chance.randrange(*SIZES[name]), chance.randbytes(257))
            sha256 = hashlib.sha256(data).hexdigest()
            with ledger.lock:
                ledger.attempted.add(sha256)
                began = ledger.tick()
            try:
                answer = loop.program.upload(name, loop.token, data)
            except (OSError, http.client.HTTPException) as error:
                if not isinstance(error, ConnectionRefusedError):
                    with ledger.lock:
                        ledger.cut.append(ledger.tick())
                raise
            if answer.status == 200:
                number = answer.data["version"]["versionNumber"]
                with ledger.lock:
                    ledger.begun[number], ledger.acknowledged[number] = began, sha256
                loop.figures.uploads += 1
            else:
                loop.refused(answer)
        elif what < 0.85 and ledger.acknowledged:
            number = chance.choice(list(ledger.acknowledged))
            with ledger.lock:
                ledger.deletions.add(number)
            loop.program.request("DELETE", f"{REPOSITORY}/{name}/version/{number}", token=loop.token)
            loop.figures.deletions += 1
        else:
            loop.program.request("GET", f"{REPOSITORY}/{name}/version/latest", token=loop.token)
            loop.figures.downloads += 1


class KillLoop:
    """One run; ``figures.faults`` must be empty in the end."""

    def __init__(self, folder: Path, place: Backend, seed: int = 0) -> None:
        self.seed = seed
        self.figures = Figures()
        self.ledgers = {name: Ledger() for name in COLLECTIONS}
        self._chance = random.Random(seed)
        self._folder = folder
        self._backend = place
        self._tree = Tree(folder / "config")
        self._tree.user("admin", roles=["systemAdmin"])
        for name in COLLECTIONS:
            self._tree.collection(name, maxBackupsCount=MOST_VERSIONS)
        self.program = self._start()
        try:
            self.token = self.program.login("admin")
        except BaseException:
            self.program.kill()
            raise

    def _start(self) -> Program:
        options: dict[str, object] = {"lease_time": f"{LEASE_SECONDS}s", "maintenance_interval": "1s"}
        program = Program(self._folder, self._tree, self._backend.environment, **options, **self._backend.options)
        try:
            return program.wait_until_ready(60)
        except BaseException:
            program.kill()
            raise

    def refused(self, answer: Answer) -> None:
        """Note a refusal; any but "in progress" and "not now" is a fault."""
        self.figures.refused += 1
        if answer.status not in (409, 503):
            self.figures.faults.append(f"an upload was answered {answer.status}: {answer.body!r}")

    def run(self, kills: int) -> Figures:
        """Kill that many times, then compare, maintain and compare again."""
        try:
            self._kill_under_load(kills)
            for name in COLLECTIONS:
                self._compare(name)
            self._wait_until_clean()
            for name in COLLECTIONS:
                self._compare(name)
        finally:
            self.program.kill()
        return self.figures

    def _kill_under_load(self, kills: int) -> None:
        load = Load(self)
        load.start()
        try:
            for _ in range(kills):
                time.sleep(self._chance.uniform(0.02, 1.0))
                self.program.kill()
                self.figures.kills += 1
                self.program = self._start()
                self._compare(self._chance.choice(COLLECTIONS), while_loaded=True)
        finally:
            load.stop()

    def _compare(self, name: str, while_loaded: bool = False) -> None:
        """Hold what the server has against the ledger; under load what vanished meanwhile may have been rotated."""
        ledger = self.ledgers[name]
        with ledger.lock:
            known = ledger.snapshot()
        live = {}
        for number in self.program.numbers(name, self.token):
            try:
                answer = self.program.request("GET", f"{REPOSITORY}/{name}/version/{number}", token=self.token)
                said = f"answers {answer.status}"
            except http.client.IncompleteRead:
                said = "breaks off"
            else:
                if answer.status == 200:
                    live[number] = hashlib.sha256(answer.body).hexdigest()
                    self.figures.checked += 1
                    continue
            if not while_loaded:
                self.figures.faults.append(f"version {number} of {name} lists, but {said}")
        with ledger.lock:  # what was acknowledged before must be there, whatever came or was asked for meanwhile
            state = replace(ledger.snapshot(), acknowledged=known.acknowledged, begun=known.begun)
        if while_loaded:
            newest = max(self.program.numbers(name, self.token), default=0)
            past = newest - MOST_VERSIONS
            live |= {number: sha256 for number, sha256 in known.acknowledged.items() if number <= past}
        self.figures.faults += [f"{name}: {fault}" for fault in state.missing(live)]

    def _wait_until_clean(self) -> None:
        """Wait for passes of maintenance after the last lease ran out; then only live versions may lie there."""
        deadline = time.monotonic() + 3 * LEASE_SECONDS + 20
        while True:
            wanted = sum(len(self.program.numbers(name, self.token)) for name in COLLECTIONS)
            left = [name for name in self._backend.place.left() if not name.endswith("/")]
            if len(left) == wanted:
                return
            if time.monotonic() > deadline:
                self.figures.faults.append(f"{len(left)} objects or uploads lie there, {wanted} versions live: {left}")
                return
            time.sleep(0.2)


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kind", choices=("postgres-s3", "sqlite-local"), default="postgres-s3")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, backend(given.kind, Path(name)) as place:
        figures = KillLoop(Path(name), place, given.seed).run(given.kills)
    print(f"{given.kind}, seed {given.seed}: {figures} in {time.monotonic() - began:.0f} s")
    for fault in figures.faults:
        print("  " + fault)
    raise SystemExit(bool(figures.faults))


if __name__ == "__main__":
    main()
