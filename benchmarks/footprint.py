"""How much memory: idle, during transfers, afterwards, and under a hard limit. Owns: those figures."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Connection, Refused
from benchmarks.ours import LOCAL, Ours, Setup, version_path
from benchmarks.payload import message
from benchmarks.plan import MIB, Plan, s3_and_postgres
from benchmarks.processes import MemoryLimit, Missing, PeakMemory

LIMIT_BYTES = 128 * MIB
SETTLE_SECONDS = 2.0
SLOW_BODY_BYTES = 1 * MIB


def measure_local(plan: Plan) -> None:
    """Idle; one upload, one download; eight uploads at once and what stays."""
    with plan.space() as folder, Ours.running(folder) as ours:
        time.sleep(SETTLE_SECONDS)
        idle = ours.process.rss_mib()
        plan.table.add("idle-local", idle)
    with plan.space() as folder, Ours.running(folder) as ours:
        headers = ours.login()
        time.sleep(SETTLE_SECONDS)
        with PeakMemory(ours.process) as upload:
            ours.upload(plan.body(), headers)
        plan.table.add("growth-upload", upload.growth_mib)
        with PeakMemory(ours.process) as download, Connection.to(ours.port) as connection:
            connection.receive_file(version_path("latest", "latest"), headers)
        plan.table.add("growth-download", download.growth_mib)
    with plan.space() as folder:
        _eight(plan, folder, LOCAL, "local")


def measure_s3(plan: Plan) -> None:
    """The same with PostgreSQL and S3."""
    with plan.space() as folder, s3_and_postgres(folder) as (setup, _):
        with Ours.running(folder / "idle", setup) as ours:
            time.sleep(SETTLE_SECONDS)
            plan.table.add("idle-s3", ours.process.rss_mib())
        _eight(plan, folder / "eight", setup, "s3")


def _eight(plan: Plan, folder: Path, setup: Setup, name: str) -> None:
    with Ours.running(folder, setup) as ours:
        headers = ours.login()
        time.sleep(SETTLE_SECONDS)
        idle = ours.process.rss_mib()
        with PeakMemory(ours.process) as peak:
            _upload_at_once(plan, ours, headers)
        plan.table.add(f"growth-eight-{name}", peak.growth_mib)
        time.sleep(plan.wait_seconds)
        plan.table.add(f"after-eight-{name}", ours.process.rss_mib() - idle, f"after {plan.wait_seconds:g} s")


def _upload_at_once(plan: Plan, ours: Ours, headers: dict[str, str]) -> None:
    faults: list[BaseException] = []

    def upload(number: int) -> None:
        try:
            ours.upload(plan.body(), headers, f"c{number}")
        except (OSError, Refused) as error:
            faults.append(error)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


@contextlib.contextmanager
def _logins(ours: Ours) -> Iterator[list[bool]]:
    """Log in again and again while the block runs; the list says of each whether it worked."""
    worked: list[bool] = []
    ended = threading.Event()

    def log_in() -> None:
        while not ended.wait(0.2):
            try:
                worked.append(bool(ours.login()))
            except (OSError, Refused, http.client.HTTPException):
                worked.append(False)

    thread = threading.Thread(target=log_in, daemon=True)
    thread.start()
    try:
        yield worked
    finally:
        ended.set()
        thread.join()


def measure_limit_s3(plan: Plan) -> None:
    """One upload to S3 with PostgreSQL, with logins going on, in a cgroup of 128 MiB."""
    try:
        with (
            plan.space() as folder,
            s3_and_postgres(folder) as (setup, _),
            MemoryLimit.of(LIMIT_BYTES) as limit,
            Ours.running(folder / "ours", setup, limit) as ours,
        ):
            headers = ours.login()
            finished = 0
            with _logins(ours) as worked, contextlib.suppress(OSError, Refused):
                ours.upload(plan.body(), headers)
                finished = 1
            plan.table.add("limit-s3", finished, f"{sum(worked)} of {len(worked)} logins")
            plan.table.add("limit-s3-kills", limit.kills())
    except Missing as reason:
        plan.table.missing(["limit-s3", "limit-s3-kills"], str(reason))


def measure_limit_slow(plan: Plan) -> None:
    """Many slow uploads at once with logins, local, in a cgroup of 128 MiB."""
    try:
        with plan.space() as folder, MemoryLimit.of(LIMIT_BYTES) as limit:
            _slow_uploads(plan, folder, limit)
    except Missing as reason:
        plan.table.missing(["limit-slow", "limit-slow-kills"], str(reason))


def _slow_uploads(plan: Plan, folder: Path, limit: MemoryLimit) -> None:
    count = plan.slow_uploads
    body = message(SLOW_BODY_BYTES)
    with Ours.running(folder, cgroup=limit, max_concurrent_uploads=str(count)) as ours:
        for number in range(count):
            ours.collection(f"slow{number}", maxBackupsCount=2)
        headers = ours.login()
        finished: list[int] = []

        def upload(number: int) -> None:
            with contextlib.suppress(OSError, Refused), Connection.to(ours.port) as connection:
                path = version_path(f"slow{number}")
                answer = connection.send_slowly("POST", path, body, plan.slow_seconds, headers)
                finished.append(answer.status)

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(count)]
        with _logins(ours) as worked, PeakMemory(ours.process) as peak:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        note = f"{count} uploads, {sum(worked)} of {len(worked)} logins, most {peak.peak_mib:.0f} MiB resident"
        plan.table.add("limit-slow", finished.count(200) / count, note)
        plan.table.add("limit-slow-kills", limit.kills())
