"""Two and three servers on one PostgreSQL and one bucket: one upload a collection, no number twice, work done once."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.program import Program
from tests.serving import REPOSITORY, RunningServer, message
from tests.system.shared import Shared, wait_until

pytest_plugins = [
    "tests.contract.registry_fixtures",
    "tests.contract.store_fixtures",
    "tests.system.shared_fixtures",
]

BODY = message(1000)


@pytest.fixture
def run(shared: Shared, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start processes on the shared database and bucket; all are killed after the test."""
    programs: list[Program] = []

    def start(**options: object) -> Program:
        given = {**shared.options(), "jwt_secret_key": "the same for every server of a test", **options}
        environment = shared.place.server.environment()
        programs.append(Program(tmp_path / f"program-{len(programs)}", shared.tree, environment, **given))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def begin_upload(server: RunningServer | Program, collection: str, token: str, body: bytes) -> socket.socket:
    """Send the head and half of the body of an upload."""
    sock = server.raw(60)
    head = f"POST {REPOSITORY}/{collection}/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
    return sock


def status_of(answer: bytes) -> int:
    """Return the status of an answer's first line."""
    return int(answer.split()[1])


@pytest.mark.parametrize("servers", [2, 3])
def test_one_upload_at_a_time_runs_into_a_collection_whichever_server_it_reaches(shared: Shared, servers: int) -> None:
    running = [shared.start() for _ in range(servers)]
    token = running[0].login("admin")
    with begin_upload(running[0], "files", token, BODY) as sock:
        wait_until(lambda: shared.count("SELECT count(*) FROM intents") == 1)
        for other in running:
            refused = other.upload("files", token)
            assert (refused.status, refused.json["reason"]) == (409, "upload-in-progress")
            assert other.upload("photos", token).status == 200
        sock.sendall(BODY[len(BODY) // 2 :])
        assert status_of(sock.recv(65536)) == 200
    for number, other in enumerate(running, 2):
        assert other.upload("files", token).data["version"]["versionNumber"] == number


@pytest.mark.parametrize("servers", [2, 3])
def test_no_number_is_given_twice_and_rotation_is_done_once_under_concurrent_uploads(
    shared: Shared, servers: int
) -> None:
    running = [shared.start() for _ in range(servers)]
    token = running[0].login("admin")
    given: list[tuple[str, int]] = []
    statuses: Counter[int] = Counter()

    def upload(server: RunningServer, collection: str) -> None:
        for _ in range(6):
            answer = server.upload(collection, token)
            statuses[answer.status] += 1
            if answer.status == 200:
                given.append((collection, answer.data["version"]["versionNumber"]))

    threads = [
        threading.Thread(target=upload, args=(server, name)) for server in running for name in ("files", "photos")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409}
    assert len(given) == len(set(given)) == statuses[200]
    for name in ("files", "photos"):
        numbers = sorted(number for collection, number in given if collection == name)
        assert numbers == list(range(1, len(numbers) + 1))
        assert {tuple(server.numbers(name, token)) for server in running} == {tuple(numbers[-3:])}
    for server in running:
        server.maintain()
    live = sum(len(running[0].numbers(name, token)) for name in ("files", "photos"))
    assert len(shared.objects()) == shared.count("SELECT count(*) FROM versions") == live


def test_maintenance_is_done_by_one_server_at_a_time(shared: Shared) -> None:
    first, second = shared.start(), shared.start()
    lease = first.run(lambda: first.server.registry.acquire_lease("maintenance", 30))
    assert lease is not None
    token = first.login("admin")
    first.upload("files", token)
    version = first.run(lambda: first.server.registry.latest_version("files"))
    first.run(lambda: first.server.registry.expire_version(version, "test", first.clock.now()))
    second.maintain()
    assert shared.count("SELECT count(*) FROM versions") == 1  # someone else holds the lease
    first.run(lambda: first.server.registry.release_lease(lease))
    second.maintain()
    assert shared.count("SELECT count(*) FROM versions") == 0
    assert shared.objects() == []


def test_servers_that_start_at_once_on_an_empty_database_all_serve(run: Callable[..., Program]) -> None:
    programs = [run() for _ in range(3)]
    token = programs[0].wait_until_ready(60).login("admin")
    for number, program in enumerate(programs, 1):
        assert program.wait_until_ready(60).upload("files", token, BODY).data["version"]["versionNumber"] == number


def test_a_killed_servers_collection_is_free_again_within_the_lease_time(
    shared: Shared, run: Callable[..., Program]
) -> None:
    victim = run(lease_time="3s").wait_until_ready(60)
    other = shared.start(lease_time="3s")
    token = victim.login("admin")
    large = message(12_000_000)
    with begin_upload(victim, "files", token, large):
        wait_until(lambda: any(name.startswith("upload:") for name in shared.objects()))
        victim.kill()
    killed_at = time.monotonic()
    assert other.upload("files", token).status == 409
    wait_until(lambda: other.upload("files", token).status == 200, 30)
    assert time.monotonic() - killed_at < 3 + 5  # the requests take their time, too
    other.maintain()
    assert other.numbers("files", token) == [1]
    assert len(shared.objects()) == 1
    assert shared.count("SELECT count(*) FROM intents") == 0


def test_a_server_that_stood_still_cannot_commit_after_its_lease_was_taken_over(
    shared: Shared, run: Callable[..., Program]
) -> None:
    frozen = run(lease_time="2s").wait_until_ready(60)
    other = shared.start(lease_time="2s")
    token = frozen.login("admin")
    with begin_upload(frozen, "files", token, BODY) as sock:
        wait_until(lambda: shared.count("SELECT count(*) FROM intents") == 1)
        frozen.send(signal.SIGSTOP)
        wait_until(lambda: other.upload("files", token).status == 200, 30)
        sock.sendall(BODY[len(BODY) // 2 :])
        frozen.send(signal.SIGCONT)
        answer = sock.recv(65536)
    assert status_of(answer) == 409
    assert b"upload-in-progress" in answer
    assert other.numbers("files", token) == [1]
    assert frozen.upload("files", token).status == 200
    other.maintain()
    assert other.numbers("files", token) == [1, 2]
    assert len(shared.objects()) == 2


def test_a_server_that_stood_still_through_maintenance_leaves_nothing_and_serves_on(
    shared: Shared, run: Callable[..., Program]
) -> None:
    frozen = run(lease_time="2s").wait_until_ready(60)
    other = shared.start(lease_time="2s")
    token = frozen.login("admin")
    large = message(12_000_000)
    with begin_upload(frozen, "files", token, large) as sock:
        wait_until(lambda: any(name.startswith("upload:") for name in shared.objects()))
        frozen.send(signal.SIGSTOP)
        shared.database.let_pass(10)
        other.maintain()
        assert shared.objects() == []
        assert shared.count("SELECT count(*) FROM intents") == 0
        frozen.send(signal.SIGCONT)
        sock.sendall(large[len(large) // 2 :])
        assert status_of(sock.recv(65536)) in (409, 503)  # its lock is lost, and the storage knows its upload no more
    wait_until(lambda: shared.objects() == [])
    assert frozen.upload("files", token, BODY).status == 200
