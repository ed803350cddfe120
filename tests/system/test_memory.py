"""Resident memory of the real program on S3 and PostgreSQL: at rest, and while large files go through it.

``MEMORY_UPLOAD_MIB=1024`` sends files of that size; the ceilings stay the same, for memory does not grow with size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Program
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.serving import REPOSITORY, Tree, message
from tests.system.shared import wait_until

pytest_plugins = ["tests.contract.registry_fixtures", "tests.contract.store_fixtures"]

KIB_PER_MIB = 1024
IDLE_MIB = 60
ONE_UPLOAD_MIB = 16
EIGHT_UPLOADS_MIB = 70
AFTERWARDS_MIB = 10
AFTERWARDS_SECONDS = 60
UPLOAD_BYTES = int(os.environ.get("MEMORY_UPLOAD_MIB", "96")) * KIB_PER_MIB * KIB_PER_MIB
BLOCK = bytes(range(256)) * 1024


@pytest.fixture
def program(tmp_path: Path, tree: Tree, postgres_server: PostgresServer, rclone_server: S3Server) -> Iterator[Program]:
    """The program on PostgreSQL and S3, with an administrator and eight collections."""
    tree.user("admin", roles=["systemAdmin"])
    for number in range(8):
        tree.collection(f"files{number}", maxBackupsCount=1)
    options = {"db_url": postgres_server.create_database(), "storage_url": rclone_server.url(prefix="memory/")}
    running = Program(tmp_path, tree, rclone_server.environment(), **options)
    yield running.wait_until_ready(60)
    running.kill()


def large_message() -> Iterator[bytes]:
    """Yield an OpenPGP message of ``UPLOAD_BYTES`` without ever holding it."""
    head = message(0)[:-6]  # all but the length and the first byte of the encrypted data
    yield head + b"\xff" + (UPLOAD_BYTES + 1).to_bytes(4, "big") + b"\x01"
    for _ in range(UPLOAD_BYTES // len(BLOCK)):
        yield BLOCK
    yield BLOCK[: UPLOAD_BYTES % len(BLOCK)]


def upload(program: Program, collection: str, token: str) -> None:
    """Upload one large file."""
    length = len(message(0)) + UPLOAD_BYTES
    path = f"{REPOSITORY}/{collection}/version"
    answer = program.request("POST", path, large_message(), token, {"Content-Length": str(length)}, timeout=600)
    assert answer.status == 200, answer.body
    assert answer.data["version"]["filesize"] == length


class Peak:
    """The most resident memory a process had while a block ran, in MiB."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0.0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self.mib = max(self.mib, resident_mib(self._program))


def resident_mib(program: Program) -> float:
    """Return what is resident now."""
    return program.memory_kib() / KIB_PER_MIB


def test_memory_stays_under_its_ceilings_whatever_the_size_of_the_files(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    wait_until(lambda: resident_mib(program) <= IDLE_MIB)  # at rest, when the pass that it begins with is over
    idle = resident_mib(program)
    token = program.login("admin")
    with Peak(program) as one:
        upload(program, "files0", token)
    rested = resident_mib(program)
    clients = [threading.Thread(target=upload, args=(program, f"files{number}", token)) for number in range(8)]
    with Peak(program) as eight:
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert [program.numbers(f"files{number}", token) for number in range(8)] == [[2], *[[1]] * 7]
    with capsys.disabled():
        print(
            f"\nmemory on S3 and PostgreSQL, {UPLOAD_BYTES >> 20} MiB a file: idle {idle:.0f} MiB,"
            f" one upload +{one.mib - idle:.1f}, then {rested:.0f}, eight +{eight.mib - idle:.1f},"
            f" then {resident_mib(program):.0f}"
        )
    assert one.mib - idle <= ONE_UPLOAD_MIB
    assert eight.mib - idle <= EIGHT_UPLOADS_MIB
    wait_until(lambda: resident_mib(program) - idle <= AFTERWARDS_MIB, AFTERWARDS_SECONDS)
