"""A busy hour in minutes: twenty tenants, all sizes, aborts, wrong tokens, rotation, maintenance, restarts in between.

In the end an outside ledger is compared with what is there, bit for bit, and with what lies in the storage; memory and
descriptors are sampled all the time and written down (``benchmarks/results/load.csv`` and ``load.svg``).
"""

from __future__ import annotations

import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.campaign import plot
from tests.campaign.report import Report
from tests.campaign.tenant import Tenant
from tests.program import Program
from tests.serving import Tree

TENANTS = 20
SMALLEST_BYTES = 1024
SHORT_SECONDS, SHORT_LARGEST_BYTES = 10.0, 4 * 1024 * 1024
LONG_LARGEST_BYTES = 200 * 1024 * 1024
LEASE_SECONDS = 3
MEMORY_BOUND_KIB = 160 * 1024
GROWTH_KIB = 16 * 1024
OPTIONS = {
    "maintenance_interval": "500ms",
    "lease_time": f"{LEASE_SECONDS}s",
    "shutdown_timeout": "2s",
    "chunked_commit_grace": "50ms",
    "max_concurrent_uploads": 12,
}


class World:
    """The server in its changing processes, and the samples taken of it."""

    def __init__(self, folder: Path, report: Report) -> None:
        self.report = report
        self.folder = folder
        self.tree = Tree(folder / "config")
        self.tree.user("admin", roles=["systemAdmin"])
        self.samples: list[plot.Sample] = []
        self.tenants: list[Tenant] = []
        self.over = threading.Event()
        self.life = 0
        self._begun = time.monotonic()
        self.start()

    def start(self) -> None:
        """Start a process on the same data; clients find its port here."""
        self.program = Program(self.folder, self.tree, **OPTIONS).wait_until_ready()
        self.port = self.program.port
        self.life += 1

    def restart(self, number: signal.Signals) -> None:
        """End the process by a signal and start the next one."""
        self.program.send(number)
        status = self.program.wait(30)
        right = status == (0 if number is signal.SIGTERM else -number)
        self.report.check(right, f"after {number.name} it ended with {status}: {self.program.log[-2000:]}")
        self.check_log()
        self.program.kill()
        self.port = 0  # nobody: the old port may soon be another program's
        self.report.count(f"restarts by {number.name}")
        self.start()

    def check_log(self) -> None:
        """Look for faults of the program."""
        self.report.check("Traceback" not in self.program.log, f"the log has a traceback: {self.program.log[-4000:]}")

    def sample(self) -> None:
        """Look at the process, if there is one just now."""
        try:
            memory = self.program.memory_kib()
            descriptors = len(list(Path(f"/proc/{self.program.process.pid}/fd").iterdir()))
        except (OSError, StopIteration):
            return  # between two processes
        uploads = sum(tenant.ledger.acknowledged() for tenant in self.tenants)
        seconds = round(time.monotonic() - self._begun, 2)
        self.samples.append(plot.Sample(seconds, self.life, memory, descriptors, uploads))

    def work(self, tenant: Tenant) -> None:
        """Let a tenant act until it is over."""
        while not self.over.is_set():
            tenant.act()
            self.over.wait(0.01)


def run(report: Report, minutes: float) -> None:
    """Run for ``minutes``, or for seconds with smaller files."""
    seconds = 60 * minutes or SHORT_SECONDS
    largest = LONG_LARGEST_BYTES if minutes else SHORT_LARGEST_BYTES
    with tempfile.TemporaryDirectory(prefix="campaign") as folder:
        world = World(Path(folder), report)
        try:
            for number in range(TENANTS):
                world.tenants.append(_tenant(world, number, largest))
            fresh = world.program.memory_kib()
            _work(world, seconds)
            _compare(world)
            _judge_samples(world, fresh)
            world.check_log()
        finally:
            world.over.set()
            world.program.kill()
    report.note(f"plotted: {plot.write('load', world.samples)}")


def _tenant(world: World, number: int, largest: int) -> Tenant:
    name, keep = f"tenant{number}", 1 + number % 4
    world.tree.user(name)
    access = [{"userName": name, "roles": ["collectionManager"]}]
    world.tree.collection(name, maxBackupsCount=keep, accessControl=access)
    # Every fifth tenant has large files, as it is in life; twenty of them would only measure the disk.
    sizes = (SMALLEST_BYTES, largest if number % 5 == 0 else largest // 50)
    return Tenant(world, name, keep, world.program.login(name), sizes, number)


def _work(world: World, seconds: float) -> None:
    """Restarts in the first half; the second is one life, long enough to see memory grow."""
    threads = [threading.Thread(target=world.work, args=(tenant,), daemon=True) for tenant in world.tenants]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    restarts = [signal.SIGKILL, signal.SIGTERM] * max(1, round(seconds / 40))
    times = [seconds / 2 * (index + 1) / (len(restarts) + 1) for index in range(len(restarts))]
    while (elapsed := time.monotonic() - begun) < seconds:
        world.sample()
        if times and elapsed > times[0]:
            times.pop(0)
            world.restart(restarts.pop(0))
        time.sleep(0.1)
    world.over.set()
    for thread in threads:
        thread.join(120)
        world.report.check(not thread.is_alive(), "a client hangs")


def _compare(world: World) -> None:
    """Every acknowledged version that rotation should have kept is there, and nothing else is, anywhere."""
    report = world.report
    found = {tenant.collection: tenant.found() for tenant in world.tenants}
    for tenant in world.tenants:
        for fault in tenant.ledger.faults(found[tenant.collection]):
            report.finding(fault)
        report.count("versions acknowledged", "compared", tenant.ledger.acknowledged())
    total = sum(map(len, found.values()))
    report.count("versions kept", "bit for bit", total)
    deadline = time.monotonic() + 10 * LEASE_SECONDS
    while len(objects := _objects(world)) != total and time.monotonic() < deadline:
        time.sleep(0.2)
    report.check(len(objects) == total, f"{total} versions have {len(objects)} files in the storage: {objects}")


def _objects(world: World) -> list[str]:
    try:
        return world.program.objects()
    except FileNotFoundError:
        return []  # maintenance removes a folder while it is read


def _judge_samples(world: World, fresh: int) -> None:
    """Memory and descriptors of the last life: bounded, and no higher at its end than in its middle."""
    report = world.report
    world.sample()
    last = [sample for sample in world.samples if sample.life == world.life]
    memory = [sample.memory_kib for sample in last]
    third = max(1, len(memory) // 3)
    middle, end = statistics.median(memory[third : 2 * third] or memory), statistics.median(memory[-third:])
    report.note(
        f"memory KiB: fresh {fresh}, middle {middle:.0f}, end {end:.0f}, most {max(memory)}, lives {world.life}"
    )
    report.check(max(memory) < MEMORY_BOUND_KIB, f"{max(memory)} KiB of memory, {MEMORY_BOUND_KIB} are the bound")
    report.check(end - middle < GROWTH_KIB, f"memory grows: {middle:.0f} KiB in the middle, {end:.0f} in the end")
    deadline = time.monotonic() + 10
    while (
        now := len(list(Path(f"/proc/{world.program.process.pid}/fd").iterdir()))
    ) > 14 and time.monotonic() < deadline:
        time.sleep(0.1)
    report.note(f"descriptors: most {max(sample.descriptors for sample in last)}, in the end {now}")
    report.check(now <= 14, f"{now} descriptors stay open without a client")
