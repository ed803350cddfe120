"""A database file damaged while the server is down, or replaced while it runs: said in one line, never replaced.

Owns: the kinds of damage, and what a start may do with each. Does not own: full disks (``disk``).
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.campaign.report import Report
from tests.program import Program
from tests.serving import REPOSITORY, Tree

VERSIONS = f"{REPOSITORY}/files/version"


def files_tree(folder: Path) -> Tree:
    """Make a configuration with an ``admin`` and a collection ``files``."""
    tree = Tree(folder / "config")
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxBackupsCount=100)
    return tree


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
        tree = files_tree(folder)
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
