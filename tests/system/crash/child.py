"""Forks a process for every job, lets it work until it kills itself at a step, and tells what it had acknowledged.

Run as ``python -m tests.system.crash.child``; a line in is a pickled :class:`Job` in base64, a line out is JSON. It is
a process of its own so that no thread of the test run is forked, and everything is imported once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.system.crash.scenarios import SCENARIOS
from tests.system.crash.steps import Numbered, Steps, numbered
from tests.system.crash.worlds import World


@dataclass(frozen=True)
class Job:
    """Do a scenario in a world and die at step ``at``."""

    world: World
    scenario: str
    below_the_ports: bool
    at: int


@dataclass(frozen=True)
class Outcome:
    """How a child ended, and the versions it acknowledged before."""

    status: int
    acknowledged: list[str]


class Children:
    """The other end: hands out jobs, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.crash.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            text=True,
        )

    def do(self, job: Job) -> Outcome:
        """Run one job in a process of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(pickle.dumps(job)).decode() + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextlib.contextmanager
def children() -> Iterator[Children]:
    """Children for as long as the block runs."""
    running = Children()
    try:
        yield running
    finally:
        running.close()


async def work(job: Job, acknowledgements: int) -> None:
    """Be the process that dies."""
    steps = Steps("kill", job.at)
    async with job.world.process() as (registry, store):
        with numbered(steps, job.below_the_ports):
            ports = Numbered(registry, steps, "registry"), Numbered(store, steps, "store")
            act = SCENARIOS[job.scenario].act
            await act(job.world, *ports, lambda id_: os.write(acknowledgements, f"{id_}\n".encode()))


def main() -> None:
    """Serve jobs until the input ends."""
    for line in sys.stdin:
        job: Job = pickle.loads(base64.b64decode(line))
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            status = 1
            try:
                asyncio.run(work(job, writing))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            acknowledged = pipe.read().split()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"status": status, "acknowledged": acknowledged}), flush=True)


if __name__ == "__main__":
    main()
