"""Disks that are full, read-only or gone wrong: refused in time, nothing lost, deleting works, and it ends by itself.

Runs in a mount namespace of its own with a small tmpfs for the data, so that the disk is really full; where the kernel
lets us have none, a file size limit (``RLIMIT_FSIZE``) of the process takes its place for uploads.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.damage import DAMAGE, SHORT_DAMAGE, VERSIONS, damaged_database, files_tree
from tests.campaign.report import Report
from tests.program import Program
from tests.serving import PASSWORD, message

LEFT_BYTES = (1 << 20, 1 << 18, 1 << 17, 1 << 16, 1 << 15, 1 << 14, 1 << 13, 4096, 0)
SHORT_LEFT_BYTES = (1 << 18, 1 << 15, 4096, 0)
UPLOAD_BYTES = 100_000
_NAMESPACE = ("unshare", "--mount", "--propagation", "private")
_USER_NAMESPACE = (*_NAMESPACE, "--user", "--map-root-user")


def run(report: Report, minutes: float) -> None:
    """Fill, remount, damage; with ``minutes`` the damage is drawn anew for that long."""
    wrapper = next((how for how in (_NAMESPACE, _USER_NAMESPACE) if _can_mount(how)), None)
    if wrapper is None:
        report.note("no mount namespace here: the disk is not filled, a file size limit stands in for it")
    else:
        _in_namespace(report, wrapper, minutes)
    size_limit(report)
    deadline = time.monotonic() + 60 * minutes
    seed = 0
    while True:
        damaged_database(report, seed, DAMAGE if minutes else SHORT_DAMAGE)
        seed += 1
        if time.monotonic() > deadline:
            break


def _can_mount(wrapper: tuple[str, ...]) -> bool:
    if shutil.which(wrapper[0]) is None:
        return False
    with tempfile.TemporaryDirectory(prefix="campaign") as folder:
        command = [*wrapper, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _in_namespace(report: Report, wrapper: tuple[str, ...], minutes: float) -> None:
    """Run :func:`main` where mounts are ours alone, and take its counts over."""
    command = [*wrapper, sys.executable, "-m", "tests.campaign.disk", "long" if minutes else "short"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=600)
    report.check(done.returncode == 0, f"the disk part broke off: {done.stderr[-3000:]}")
    if done.returncode == 0:
        told = json.loads(done.stdout.splitlines()[-1])
        for what, outcome, times in told["counts"]:
            report.count(what, outcome, times)
        for finding in told["findings"]:
            report.finding(finding)


def main() -> None:
    """Be the process in the namespace; the last line says what happened."""
    report = Report("disk")
    full_disk(report, LEFT_BYTES if sys.argv[1:] == ["long"] else SHORT_LEFT_BYTES)
    read_only(report)
    counts = [(what, outcome, times) for what, ends in report.outcomes.items() for outcome, times in ends.items()]
    print(json.dumps({"counts": counts, "findings": report.findings}))


def _mount(folder: Path, *options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True)


def _leave(disk: Path, left_bytes: int) -> Path:
    """Fill the disk with a file of somebody else until so many bytes are left."""
    ballast = disk / "ballast"
    for _ in range(100):
        ballast.unlink(missing_ok=True)
        status = os.statvfs(disk)
        try:
            ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left_bytes)))
        except OSError as error:  # the server wrote something meanwhile: count again
            if error.errno != errno.ENOSPC:
                raise
            time.sleep(0.05)
            continue
        return ballast
    raise AssertionError("the disk is never still")


def full_disk(report: Report, stages: Sequence[int]) -> None:
    """Database and objects on one disk that others fill, at every stage."""
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder = Path(name)
        _mount(folder / "data", "size=16m")
        program = Program(folder, files_tree(folder), maintenance_interval="300ms").wait_until_ready()
        try:
            _fill_stages(report, program, folder / "data", stages)
        finally:
            program.kill()
            subprocess.run(["umount", str(folder / "data")], check=True)


def _fill_stages(report: Report, program: Program, disk: Path, stages: Sequence[int]) -> None:
    token = program.login("admin")
    bodies = {}
    for number in range(1, len(stages) + 3):
        bodies[number] = message(2000, b"%d" % number)
        assert program.upload("files", token, bodies[number]).status == 200
    answer = program.upload("files", token, message(40_000_000))
    report.check(
        (answer.status, answer.json["reason"]) == (507, "storage-full"), f"too big: {answer.status} {answer.body!r}"
    )
    report.count("an upload that fills the disk", str(answer.status))
    for number, left in enumerate(stages, 1):
        ballast = _leave(disk, left)
        answer = program.upload("files", token, message(UPLOAD_BYTES))
        report.check(answer.status in (200, 507), f"an upload with {left} bytes left: {answer.status} {answer.body!r}")
        report.count("uploads to a disk that is nearly full", str(answer.status))
        if answer.status == 200:
            bodies[answer.data["version"]["versionNumber"]] = message(UPLOAD_BYTES)
        newest = max(bodies)
        found = program.request("GET", f"{VERSIONS}/{newest}", token=token)
        report.check(found.body == bodies[newest], f"a download with {left} bytes left: {found.status}")
        report.count("downloads from a full disk", str(found.status))
        answer = program.request("POST", "/api/stable/auth/login", {"username": "admin", "password": PASSWORD})
        report.check(answer.status == 200, f"a login with {left} bytes left: {answer.status} {answer.body!r}")
        report.count("logins on a full disk", str(answer.status))
        answer = program.request("DELETE", f"{VERSIONS}/{number}", token=token)
        report.check(answer.status == 200, f"a delete with {left} bytes left: {answer.status} {answer.body!r}")
        report.count("deletes on a full disk", str(answer.status))
        bodies.pop(number)
        ballast.unlink()
        answer = program.upload("files", token, message(100))
        report.check(answer.status == 200, f"an upload once there is room again: {answer.status} {answer.body!r}")
        report.count("uploads once there is room again", str(answer.status))
        bodies[answer.data["version"]["versionNumber"]] = message(100)
    same = program.numbers("files", token) == sorted(bodies)
    report.check(same, f"{program.numbers('files', token)} are left, {sorted(bodies)} should be")
    _settle_objects(report, program, len(bodies))
    report.check("Traceback" not in program.log, f"a full disk is a fault of the program: {program.log[-3000:]}")


def _settle_objects(report: Report, program: Program, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(program.objects()) != count and time.monotonic() < deadline:
        time.sleep(0.1)
    report.check(len(program.objects()) == count, f"{count} versions have the files {program.objects()}")


def read_only(report: Report) -> None:
    """Remount the objects read-only under a running server, and back; start on a folder that cannot be written."""
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder = Path(name)
        objects = folder / "data" / "objects"
        _mount(objects, "size=16m")
        program = Program(folder, files_tree(folder), maintenance_interval="300ms").wait_until_ready()
        try:
            token, body = program.login("admin"), message(2000)
            assert program.upload("files", token, body).status == 200
            subprocess.run(["mount", "-o", "remount,ro", str(objects)], check=True)
            for _ in range(3):
                answer = program.upload("files", token, body)
                report.check((answer.status, answer.json["reason"]) == (503, "storage-unavailable"), f"{answer.body!r}")
                report.count("uploads to a read-only disk", str(answer.status))
            found = program.request("GET", f"{VERSIONS}/1", token=token)
            report.check(found.body == body, f"a download from a read-only disk: {found.status}")
            report.count("downloads from a read-only disk", str(found.status))
            ready = program.request("GET", "/ready").status
            report.check(ready == 500, f"/ready on a read-only disk: {ready}")
            report.count("readiness on a read-only disk", str(ready))
            deleted = program.request("DELETE", f"{VERSIONS}/1", token=token).status
            report.count("deletes on a read-only disk (marked, removed later)", str(deleted))
            report.check(deleted < 500 or deleted == 503, f"a delete on a read-only disk: {deleted}")
            subprocess.run(["mount", "-o", "remount,rw", str(objects)], check=True)
            answer = program.upload("files", token, body)
            report.check(answer.status == 200, f"an upload to the disk that can be written again: {answer.body!r}")
            report.count("uploads once it can be written again", str(answer.status))
            _settle_objects(report, program, len(program.numbers("files", token)))
            report.check("Traceback" not in program.log, program.log[-3000:])
        finally:
            program.kill()
            subprocess.run(["umount", str(objects)], check=True)


def size_limit(report: Report) -> None:
    """A limit on the size of files cuts a write in the middle: refused as a full disk is."""
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder = Path(name)
        program = Program(folder, files_tree(folder)).wait_until_ready()
        try:
            token = program.login("admin")
            for limit in (8 << 20, 3_000_001):
                before = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
                answer = program.upload("files", token, message(12_000_000))
                report.check((answer.status, answer.json["reason"]) == (507, "storage-full"), f"{answer.body!r}")
                report.count("uploads over the file size limit", str(answer.status))
                resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, before)
            report.check(program.upload("files", token).status == 200, "no upload is possible after a file size limit")
            _settle_objects(report, program, 1)
        finally:
            program.kill()


if __name__ == "__main__":
    main()
