"""PostgreSQL misbehaves or is away while the whole server runs, and before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.program import Program
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.proxy import Fault
from tests.serving import REPOSITORY, RunningServer, Tree, message
from tests.system.shared import Shared, wait_until
from tornado_backups.registry import postgres_driver
from tornado_backups.services import running_upload

pytest_plugins = [
    "tests.contract.registry_fixtures",
    "tests.contract.store_fixtures",
    "tests.system.shared_fixtures",
]

COMMIT = b"COMMIT\x00"
"""The statement alone: BEGIN says READ COMMITTED."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait seconds where the program waits half a minute."""
    monkeypatch.setattr(postgres_driver, "_STATEMENT_SECONDS", 1.0)
    monkeypatch.setattr(running_upload, "COMMIT_RETRY_SECONDS", 0.1)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that this test alone stops and starts."""
    with running_postgres() as server:
        yield server


def upload_with_fault_at_its_end(shared: Shared, server: RunningServer, token: str, body: bytes, fault: Fault) -> bytes:
    """Upload; the fault begins when half of the body has been sent. Return the answer's first bytes."""
    with server.raw() as sock:
        head = f"POST {REPOSITORY}/files/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
        wait_until(lambda: shared.count("SELECT count(*) FROM intents") == 1)
        shared.to_database.fault = fault
        sock.sendall(body[len(body) // 2 :])
        return sock.recv(65536)


PASSING = {
    "reset": Fault("reset", when=b"SELECT", times=1),
    "reset at the commit": Fault("reset", when=COMMIT, times=1),
    "lost answer of the commit": Fault("swallow", when=COMMIT, times=2),
    "slow": Fault("slow", when=b"SELECT", bytes_per_second=100_000),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_of_the_database_while_a_body_arrives_does_not_lose_the_upload(shared: Shared, fault: Fault) -> None:
    server = shared.start_behind_proxies()
    token = server.login("admin")
    body = message(1000)
    answer = upload_with_fault_at_its_end(shared, server, token, body, fault)
    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert fault.met > 0
    shared.to_database.fault = None
    assert server.numbers("files", token) == [1]
    assert server.request("GET", f"{REPOSITORY}/files/version/1", token=token).body == body
    assert len(shared.objects()) == 1


@pytest.mark.parametrize(("kind", "numbers"), [("swallow", [1]), ("hang", [])], ids=["happened", "did not happen"])
def test_a_commit_whose_outcome_stays_unknown_is_a_503_and_ends_whole_or_not_at_all(
    shared: Shared, kind: Literal["swallow", "hang"], numbers: list[int]
) -> None:
    server = shared.start_behind_proxies()
    token = server.login("admin")
    answer = upload_with_fault_at_its_end(shared, server, token, message(1000), Fault(kind, when=COMMIT))
    assert b" 503 " in answer.partition(b"\r\n")[0]
    assert b"database-unavailable" in answer
    assert len(shared.objects()) == 1  # as long as nobody knows, the object is not touched
    shared.to_database.fault = None
    shared.to_database.drop_connections()
    shared.database.let_pass(60)
    server.maintain()
    assert server.numbers("files", token) == numbers
    assert len(shared.objects()) == len(numbers)
    for number in numbers:
        assert server.request("GET", f"{REPOSITORY}/files/version/{number}", token=token).body == message(1000)
    assert server.upload("files", token).status == 200


@pytest.mark.parametrize("kind", ["hang", "reset"])
def test_a_database_that_is_away_is_a_503_with_retry_after_and_comes_back_by_itself(shared: Shared, kind: str) -> None:
    server = shared.start_behind_proxies(storage_health_timeout="2s")
    token = server.login("admin")
    assert server.upload("files", token).status == 200
    shared.to_database.fault = Fault(kind)  # type: ignore[arg-type]
    for answer in (
        server.request("GET", f"{REPOSITORY}/files/version", token=token),
        server.upload("files", token),
        server.request("POST", "/api/stable/auth/login", {"username": "admin", "password": "a password for tests"}),
    ):
        assert (answer.status, answer.json["reason"]) == (503, "database-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert server.request("GET", "/health").status == 200
    ready = server.request("GET", "/ready")
    assert (ready.status, [check["status"] for check in ready.data["health"]]) == (500, [False, True, True])
    shared.to_database.fault = None
    shared.to_database.drop_connections()
    assert server.numbers("files", token) == [1]
    wait_until(lambda: server.request("GET", "/ready").status == 200)
    assert server.upload("files", token).status == 200


def test_a_restart_of_the_database_between_requests_is_not_seen_by_clients(
    own_postgres: PostgresServer, tmp_path: Path, tree: Tree
) -> None:
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    server = RunningServer(tmp_path, tree, db_url=own_postgres.create_database())
    try:
        token = server.login("admin")
        assert server.upload("files", token).status == 200
        own_postgres.restart()
        assert server.upload("files", token).status == 200
        own_postgres.halt()
        assert server.upload("files", token).status == 503
        server.maintain()  # a pass without a database fails and ends nothing
        own_postgres.start()
        assert server.upload("files", token).status == 200
        assert server.numbers("files", token) == [1, 2, 3]
        assert len(server.objects()) == 3
    finally:
        server.stop()


def test_a_database_that_is_down_at_start_is_one_line_without_the_password_and_status_1(
    own_postgres: PostgresServer, tmp_path: Path, tree: Tree
) -> None:
    url = own_postgres.create_database().replace("postgres@", "postgres:a-secret-password@")
    own_postgres.halt()
    program = Program(tmp_path, tree, db_url=url)
    try:
        assert program.wait() == 1
        lines = [line for line in program.lines if line.strip()]
        assert len(lines) == 1
        assert f"127.0.0.1:{own_postgres.port}" in lines[0]
        assert "a-secret-password" not in program.log
    finally:
        program.kill()


def test_with_db_wait_the_server_starts_when_the_database_does(
    own_postgres: PostgresServer, tmp_path: Path, tree: Tree
) -> None:
    tree.user("admin", roles=["systemAdmin"])
    url = own_postgres.create_database()
    own_postgres.halt()
    program = Program(tmp_path, tree, db_url=url, db_wait="60s")
    try:
        program.wait_for_line("waiting for the database")
        own_postgres.start()
        program.wait_until_ready()
        assert program.login("admin")
    finally:
        program.kill()
