"""How fast files go in and out, beside peers, in interleaved rounds. Owns: throughput and processor time."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks import peers
from benchmarks.client import Connection
from benchmarks.floor import Floor
from benchmarks.ours import Ours, version_path
from benchmarks.plan import MIB, Plan, s3_and_postgres
from benchmarks.processes import Missing


def measure_local(plan: Plan) -> None:
    """Upload to and download from local files, ours and every WebDAV peer in turn, each ending in fsync."""
    with plan.space() as folder, contextlib.ExitStack() as stack:
        ours = stack.enter_context(Ours.running(folder / "ours"))
        others = _webdav_peers(plan, folder, stack)
        floor = stack.enter_context(Floor.running(folder / "floor"))
        headers = ours.login()
        times: dict[str, list[float]] = defaultdict(list)
        for number in range(plan.rounds + 1):
            measured = _uploads(plan, ours, headers, others, floor)
            if number:  # the first round warms every server up
                for name, value in measured.items():
                    times[name].append(value)
        for number in range(plan.rounds + 1):
            measured = _downloads(plan, ours, headers, others, floor)
            if number:  # the first round brings every file into the page cache
                for name, value in measured.items():
                    times[name].append(value)
    _tell_local(plan, times, [peer.name for peer in others])


def _uploads(
    plan: Plan, ours: Ours, headers: dict[str, str], others: list[peers.WebDav], floor: Floor
) -> dict[str, float]:
    """Upload once to every server; return seconds, and processor seconds for a GiB."""
    file, gib = plan.body(), plan.file_mib / 1024
    before, begin = ours.process.cpu_seconds(), time.monotonic()
    ours.upload(file, headers)
    measured = {"up": time.monotonic() - begin, "cpu-up": (ours.process.cpu_seconds() - before) / gib}
    for peer in others:
        before = peer.process.cpu_seconds()
        measured[f"{peer.name} up"] = peer.upload(file)
        measured[f"{peer.name} cpu"] = (peer.process.cpu_seconds() - before) / gib
    took, used = floor.upload(file)
    return measured | {"floor up": took, "floor cpu-up": used / gib}


def _downloads(
    plan: Plan, ours: Ours, headers: dict[str, str], others: list[peers.WebDav], floor: Floor
) -> dict[str, float]:
    """Download once from every server; return seconds, and processor seconds for a GiB."""
    before, begin = ours.process.cpu_seconds(), time.monotonic()
    with Connection.to(ours.port) as connection:
        connection.receive_file(version_path("latest", "latest"), headers)
    took, used = time.monotonic() - begin, ours.process.cpu_seconds() - before
    gib = plan.file_mib / 1024
    measured = {"down": took, "cpu-down": used / gib}
    took, used = floor.download()
    measured |= {"floor down": took, "floor cpu-down": used / gib, "hash": _hash_seconds(plan.file_mib)}
    return measured | {f"{peer.name} down": peer.download() for peer in others}


def _hash_seconds(size_mib: int) -> float:
    """Hash as many bytes as a download has, out of the processor's cache: no reading, no sending, nothing else."""
    piece, digest, begin = bytes(MIB // 4), hashlib.sha256(), time.monotonic()
    for _ in range(4 * size_mib):
        digest.update(piece)
    return time.monotonic() - begin


def _webdav_peers(plan: Plan, base: Path, stack: contextlib.ExitStack) -> list[peers.WebDav]:
    starts: list[tuple[Callable[[], contextlib.AbstractContextManager[peers.WebDav]], tuple[str, ...]]] = [
        (lambda: peers.nginx(base / "nginx"), ("upload-nginx", "download-nginx", "hash-nginx", "cpu-nginx")),
        (lambda: peers.rclone_webdav(base / "webdav"), ("upload-webdav",)),
    ]
    for name, command in plan.servers.items():

        def start(name: str = name, command: str = command) -> contextlib.AbstractContextManager[peers.WebDav]:
            return peers.from_command_line(name, command, base / f"peer-{name}")

        starts.append((start, (f"upload against {name}|ratio",)))
    found: list[peers.WebDav] = []
    for begin, keys in starts:
        try:
            found.append(stack.enter_context(begin()))
        except Missing as reason:
            plan.table.missing(keys, str(reason))
    return found


def _tell_local(plan: Plan, times: dict[str, list[float]], names: list[str]) -> None:
    table, size = plan.table, plan.file_mib
    table.add("upload", [size / each for each in times["up"]])
    table.add("cpu-local", times["cpu-up"])
    table.add("download", [size / each for each in times["down"]])
    table.add("cpu-download", times["cpu-down"])
    for which, way in (("upload", "up"), ("download", "down")):
        speeds = [floor / ours for floor, ours in zip(times[f"floor {way}"], times[way], strict=True)]
        table.add(f"floor-{which}", speeds, f"the loop: {size / statistics.median(times[f'floor {way}']):.0f} MiB/s")
        table.add(f"floor-{which}-cpu", times[f"floor cpu-{way}"])
    for name in names:
        key = {"nginx WebDAV": "nginx", "rclone serve webdav": "webdav"}.get(name)
        up = [theirs / ours for theirs, ours in zip(times[f"{name} up"], times["up"], strict=True)]
        down = [theirs / ours for theirs, ours in zip(times[f"{name} down"], times["down"], strict=True)]
        speed = f"{name}: {size / statistics.median(times[f'{name} up']):.0f} MiB/s"
        table.add(f"upload-{key}" if key else f"upload against {name}|ratio", up, speed)
        if key == "nginx":
            table.add("cpu-nginx", times[f"{name} cpu"])
        speed = f"{name}: {size / statistics.median(times[f'{name} down']):.0f} MiB/s"
        table.add("download-nginx" if key == "nginx" else f"download against {name}|ratio", down, speed)
        if key == "nginx":
            most = [theirs / hashing for theirs, hashing in zip(times[f"{name} down"], times["hash"], strict=True)]
            table.add("hash-nginx", most, f"SHA-256: {size / statistics.median(times['hash']):.0f} MiB/s")


def measure_s3(plan: Plan) -> None:
    """Upload to one S3 endpoint: through our server, with ``rclone copyto``, with ``aws s3 cp``, in turn."""
    with plan.space() as folder, s3_and_postgres(folder) as (setup, bucket):
        file = plan.body()
        clients = {"upload-copyto": peers.rclone_copyto, "upload-aws": peers.aws_s3_cp}
        times: dict[str, list[float]] = defaultdict(list)
        cpu: list[float] = []
        with Ours.running(folder / "ours", setup) as ours:
            headers = ours.login()
            for number in range(plan.s3_rounds + 1):
                before, begin = ours.process.cpu_seconds(), time.monotonic()
                ours.upload(file, headers)
                took, used = time.monotonic() - begin, ours.process.cpu_seconds() - before
                if number:
                    times["ours"].append(took)
                    cpu.append(used / (plan.file_mib / 1024))
                for key, copy in list(clients.items()):
                    try:
                        took = copy(file, bucket)
                    except Missing as reason:
                        plan.table.missing([key], str(reason))
                        del clients[key]
                        continue
                    if number:
                        times[key].append(took)
    plan.table.add("upload-s3", [plan.file_mib / each for each in times["ours"]])
    plan.table.add("cpu-s3", cpu)
    for key in clients:
        ratios = [theirs / ours for theirs, ours in zip(times[key], times["ours"], strict=True)]
        plan.table.add(key, ratios, f"{plan.file_mib / statistics.median(times[key]):.0f} MiB/s")
