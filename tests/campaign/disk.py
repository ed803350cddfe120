"""Disks that are full, read-only or gone wrong: refused in time, nothing lost, deleting works, and it ends by itself.

Runs in a mount namespace of its own with a small tmpfs for the data, so that the disk is really full; where the kernel
lets us have none, a file size limit (``RLIMIT_FSIZE``) of the process takes its place for uploads.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.campaign.report import Report
from tests.program import Program
from tests.serving import PASSWORD, REPOSITORY, Tree, message

VERSIONS = f"{REPOSITORY}/files/version"
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


def _tree(folder: Path) -> Tree:
    tree = Tree(folder / "config")
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxBackupsCount=100)
    return tree


def _mount(folder: Path, *options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True)


def _leave(disk: Path, left_bytes: int) -> Path:
    """Fill the disk with a file of somebody else until so many bytes are left."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    status = os.statvfs(disk)
    ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left_bytes)))
    return ballast


def full_disk(report: Report, stages: Sequence[int]) -> None:
    """Database and objects on one disk that others fill, at every stage."""
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder = Path(name)
        _mount(folder / "data", "size=16m")
        program = Program(folder, _tree(folder), maintenance_interval="300ms").wait_until_ready()
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
        program = Program(folder, _tree(folder), maintenance_interval="300ms").wait_until_ready()
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
        program = Program(folder, _tree(folder)).wait_until_ready()
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


# -- the database file -------------------------------------------------------------------------------------------------


def _empty(path: Path, chance: Random) -> None:
    path.write_bytes(b"")


def _cut(path: Path, chance: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(1, len(data))])


def _other_header(path: Path, chance: Random) -> None:
    path.write_bytes(chance.randbytes(100) + path.read_bytes()[100:])


def _noise(path: Path, chance: Random) -> None:
    path.write_bytes(chance.randbytes(path.stat().st_size))


def _noisy_pages(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(4):
        at = chance.randrange(1, len(data) // 4096) * 4096
        data[at : at + 4096] = chance.randbytes(4096)
    path.write_bytes(data)


def _zeros(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(0, len(data) // 2)
    data[at:] = bytes(len(data) - at)
    path.write_bytes(data)


def _text(path: Path, chance: Random) -> None:
    path.write_text("this was a database once\n" * 1000)


def _foreign(path: Path, chance: Random) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE music (title TEXT)")
    connection.close()


def _folder(path: Path, chance: Random) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path, Random], None]
DAMAGE: tuple[Damage, ...] = (
    _empty, _cut, _other_header, _noise, _noisy_pages, _zeros, _text, _foreign, _folder,
)  # fmt: skip
SHORT_DAMAGE = (_empty, _cut, _noisy_pages, _foreign)


def damaged_database(report: Report, seed: int, kinds: Sequence[Damage]) -> None:
    """Damage the file while the server is down, and replace it while it runs."""
    chance = Random(seed)
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder = Path(name)
        tree = _tree(folder)
        program = Program(folder, tree).wait_until_ready()
        token = program.login("admin")
        for _ in range(5):
            assert program.upload("files", token).status == 200
        _replaced_while_running(report, program, token)
        program.process.terminate()
        program.wait()
        program.kill()
        path = folder / "data" / "registry.sqlite3"
        whole = path.read_bytes()
        for damage in kinds:
            if path.is_dir():
                path.rmdir()
            path.write_bytes(whole)
            damage(path, chance)
            _start_damaged(report, folder, tree, token, damage.__name__[1:].replace("_", " "))


def _start_damaged(report: Report, folder: Path, tree: Tree, token: str, how: str) -> None:
    path = folder / "data" / "registry.sqlite3"
    before = path.read_bytes() if path.is_file() else b""
    program = Program(folder, tree)
    try:
        deadline = time.monotonic() + 20
        while program.process.poll() is None and not program.port and time.monotonic() < deadline:
            time.sleep(0.02)
        status = program.process.poll()
        if status is None:  # what is damaged may be a page that nothing stands on: then nothing may be missing
            answer = program.request("GET", VERSIONS, token=token)
            right = answer.status == 503 or (answer.status == 200 and len(answer.data["versions"]) == 5)
            report.check(right, f"database ({how}): served {answer.status} {answer.body[:300]!r}")
            report.count(f"starts with a damaged database ({how})", f"served, {answer.status}")
            return
        program.wait()
        said = [line for line in program.log.splitlines() if "registry.sqlite3" in line]
        report.check(status == 1 and len(said) == 1, f"database ({how}): status {status}: {program.log}")
        report.check("Traceback" not in program.log, f"database ({how}): {program.log}")
        after = path.read_bytes() if path.is_file() else b""
        report.check(after == before, f"database ({how}): the file was changed")
        report.count(f"starts with a damaged database ({how})", f"refused, {status}")
    finally:
        program.kill()
        for leftover in ("-wal", "-shm"):
            Path(f"{path}{leftover}").unlink(missing_ok=True)


def _replaced_while_running(report: Report, program: Program, token: str) -> None:
    """Move the file away, and put another one in its place: nothing is acknowledged that would be lost."""
    path = program.data_dir / "registry.sqlite3"
    aside = path.with_name("aside")
    for replacement in (None, b"", b"SQLite format 3\x00" + bytes(4080)):
        path.rename(aside)
        if replacement is not None:
            path.write_bytes(replacement)
        answer = program.upload("files", token)
        report.check(answer.status == 503, f"an upload while the database is away: {answer.status} {answer.body!r}")
        report.count("uploads while the database file is replaced", str(answer.status))
        aside.rename(path)
    answer = program.upload("files", token)
    report.check(answer.status in (200, 503), f"an upload once the database is back: {answer.status}")
    report.count("uploads once the database file is back", str(answer.status))
    if answer.status == 200:
        number = answer.data["version"]["versionNumber"]
        assert program.request("DELETE", f"{VERSIONS}/{number}", token=token).status == 200


if __name__ == "__main__":
    main()
