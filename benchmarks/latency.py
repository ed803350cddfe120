"""How long a client waits: health during uploads, small uploads, listings, the start. Owns: those figures."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Connection, Refused
from benchmarks.ours import LOCAL, Ours, Setup, version_path
from benchmarks.payload import message
from benchmarks.plan import Plan, s3_and_postgres

SHARED_MEMORY = Path("/dev/shm")
LISTED = 1000
LISTINGS = 60
STARTS = 5


def measure_health(plan: Plan) -> None:
    """Ask ``/health`` over and over while one, then eight uploads run."""
    file = plan.body(min(plan.file_mib, 256))
    for key, count in (("health-one", 1), ("health-eight", 8)):
        with plan.space() as folder, Ours.running(folder) as ours:
            headers = ours.login()
            with _uploading(ours, file, headers, count):
                time.sleep(1)
                times = _ask(ours, plan.health_seconds)
            plan.table.add(key, percentile(times, 99), f"{len(times)} requests, p50 {percentile(times, 50):.1f} ms")


@contextlib.contextmanager
def _uploading(ours: Ours, file: Path, headers: dict[str, str], count: int) -> Iterator[None]:
    """Upload over and over in a process of its own, whose interpreter lock is not ours."""
    paths = [version_path(f"c{number}") for number in range(count)]
    arguments = [str(ours.port), str(file), headers["Authorization"], *paths]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.uploader", *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _ask(ours: Ours, seconds: float) -> list[float]:
    times = []
    end = time.monotonic() + seconds
    with Connection.to(ours.port) as connection:
        while time.monotonic() < end:
            begin = time.perf_counter()
            connection.request("GET", "/health").data()
            times.append((time.perf_counter() - begin) * 1000)
            time.sleep(0.005)
    return times


def percentile(values: list[float], percent: float) -> float:
    """Return the value that ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def measure_small(plan: Plan) -> None:
    """Upload 4 KiB with ``Content-Length`` over and over; again where fsync costs nothing, which leaves our part."""
    with plan.space() as folder:
        plan.table.add("small", percentile(_small_uploads(plan, folder), 50))
    if not SHARED_MEMORY.is_dir():
        plan.table.missing(["small-ours"], f"there is no {SHARED_MEMORY}")
        return
    in_memory = Plan(SHARED_MEMORY, plan.table)
    with in_memory.space() as folder:
        plan.table.add("small-ours", percentile(_small_uploads(plan, folder), 50), f"on {SHARED_MEMORY}")


def _small_uploads(plan: Plan, folder: Path) -> list[float]:
    body = message(4096)
    times = []
    with Ours.running(folder) as ours:
        ours.collection("small", maxBackupsCount=30)
        headers = ours.login()
        with Connection.to(ours.port) as connection:
            for number in range(plan.small_uploads + 20):
                begin = time.perf_counter()
                connection.request("POST", version_path("small"), headers, body).data()
                if number >= 20:
                    times.append((time.perf_counter() - begin) * 1000)
    return times


def measure_listing(plan: Plan) -> None:
    """List a thousand versions in a database of a thousand and of a million rows, in turn."""
    with plan.space() as folder, contextlib.ExitStack() as stack:
        servers = {}
        for key, rows in (("listing-few", LISTED), ("listing-many", plan.rows)):
            place = folder / key
            with Ours.running(place):
                pass  # makes the database
            fill(place / "data" / "registry.sqlite3", rows)
            ours = stack.enter_context(Ours.running(place))
            connection = stack.enter_context(Connection.to(ours.port))
            servers[key] = (connection, ours.login())
        times: dict[str, list[float]] = {key: [] for key in servers}
        for _ in range(LISTINGS):
            for key, (connection, headers) in servers.items():
                begin = time.perf_counter()
                found = connection.request("GET", version_path("c0"), headers)
                times[key].append((time.perf_counter() - begin) * 1000)
        if len(json.loads(found.body)["data"]["versions"]) != LISTED:
            raise Refused("the listing is not whole")
    plan.table.add("listing-few", times["listing-few"][5:])
    plan.table.add("listing-many", times["listing-many"][5:], f"{plan.rows:,} rows")


def fill(database: Path, rows: int, collections: int | None = None) -> None:
    """Put ``rows`` versions into a registry, a thousand to a collection, or spread over ``collections``."""
    per_collection = LISTED if collections is None else rows // collections
    at = int(time.time() * 1_000_000)

    def all_rows() -> Iterator[tuple[object, ...]]:
        for index in range(rows):
            number, name = index % per_collection + 1, f"c{index // per_collection}"
            id_ = str(uuid.UUID(int=index + (1 << 100)))
            file = f"{name}-{number}.gpg"
            key = f"{name}/{id_}/{file}"
            created = at - (per_collection - number) * 60_000_000
            yield (name, number, id_, file, key, 4096, "0" * 64, "s" * 64, "admin", created, created, at, "")

    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executemany(
            "INSERT INTO versions (collection, number, id, filename, object_key, size_bytes, sha256, session_id, "
            "uploader, created_at, updated_at, checked_at, damage) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            all_rows(),
        )
        connection.commit()


def measure_start(plan: Plan) -> None:
    """Start to the first answered request; the database exists already."""
    with plan.space() as folder, s3_and_postgres(folder) as (setup, _):
        both: tuple[tuple[str, Setup], ...] = (("start-local", LOCAL), ("start-s3", setup))
        times: dict[str, list[float]] = {key: [] for key, _ in both}
        for _ in range(STARTS + 1):
            for key, each in both:
                with Ours.running(folder / key, each) as ours:
                    times[key].append(ours.started_seconds)
    for key, values in times.items():
        plan.table.add(key, values[1:], f"of which the interpreter {_interpreter_seconds():.2f} s")


def _interpreter_seconds() -> float:
    times = []
    for _ in range(STARTS):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(time.monotonic() - begin)
    return statistics.median(times)
