"""Signals, draining, start-up refusals: the program as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.program import Program
from tests.serving import REPOSITORY, Tree, message

PATH = f"{REPOSITORY}/files/version"


@pytest.fixture
def run(tmp_path: Path, tree: Tree) -> Iterator[Callable[..., Program]]:
    """Start programs; all are killed after the test."""
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    programs: list[Program] = []

    def start(**options: object) -> Program:
        programs.append(Program(tmp_path, tree, **options))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def begin_upload(program: Program, token: str, body: bytes, sent: int) -> socket.socket:
    """Send the head and the first bytes of an upload."""
    sock = program.raw()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body[:sent])
    time.sleep(0.3)
    return sock


def test_sigterm_lets_a_running_upload_finish_and_starts_nothing_new(run: Callable[..., Program]) -> None:
    program = run().wait_until_ready()
    token = program.login("admin")
    body = message(1000)
    with begin_upload(program, token, body, 500) as sock:
        program.send(signal.SIGTERM)
        time.sleep(0.3)
        assert program.request("GET", "/health").status == 200
        ready = program.request("GET", "/ready")
        assert (ready.status, ready.json["reason"]) == (503, "shutting-down")
        refused = program.upload("files", token)
        assert (refused.status, refused.json["reason"]) == (503, "shutting-down")
        assert int(refused.headers["retry-after"]) >= 1
        assert program.request("POST", "/api/stable/auth/login", {"username": "admin"}).status == 503
        assert program.numbers("files", token) == []
        sock.sendall(body[500:])
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert program.wait() == 0


def test_an_upload_that_does_not_end_in_time_is_aborted_cleanly(run: Callable[..., Program]) -> None:
    program = run(shutdown_timeout="500ms").wait_until_ready()
    token = program.login("admin")
    with begin_upload(program, token, message(900_000), 600_000) as sock:
        program.send(signal.SIGTERM)
        assert b'"reason": "shutting-down"' in sock.recv(4000)
    assert program.wait() == 0
    assert program.objects() == []


def test_a_second_sigterm_ends_at_once_and_the_next_start_mends(run: Callable[..., Program]) -> None:
    program = run().wait_until_ready()
    token = program.login("admin")
    with begin_upload(program, token, message(4_000_000), 3_000_000):
        program.send(signal.SIGTERM)
        program.wait_for_line("SIGTERM")
        program.send(signal.SIGTERM)
        assert program.wait(5) == -signal.SIGTERM
    assert len(program.objects()) == 1, "the temporary file of the upload"
    again = run(maintenance_interval="200ms").wait_until_ready()
    again.wait_for_line("undid an interrupted upload")
    assert again.objects() == []
    assert again.upload("files", token).data["version"]["versionNumber"] == 1


def test_what_was_stored_and_issued_survives_a_kill(run: Callable[..., Program]) -> None:
    program = run().wait_until_ready()
    token = program.login("admin")
    body = message(700_000)
    assert program.upload("files", token, body).status == 200
    program.kill()
    again = run().wait_until_ready()
    assert again.request("GET", f"{PATH}/1", token=token).body == body


def test_sighup_reads_everything_again(run: Callable[..., Program]) -> None:
    program = run().wait_until_ready()
    program.send(signal.SIGHUP)
    program.wait_for_line("read again")
    assert program.request("GET", "/health").status == 200


def refused(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command that must not start; return exit status and stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BR_")}
    done = subprocess.run(
        [sys.executable, "-m", "tornado_backups", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**inherited, **environment},
        cwd=Path(__file__).parent.parent.parent,
    )
    return done.returncode, done.stderr


def assert_one_line(result: tuple[int, str], status: int, *words: str) -> None:
    """Check an exit status and a single line on stderr that names what is wrong."""
    assert result[0] == status, result
    lines = result[1].strip().splitlines()
    assert len(lines) == 1, result[1]
    for word in words:
        assert word in lines[0]


def test_a_port_that_is_taken_is_named_in_one_line(tmp_path: Path, tree: Tree) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        options = (f"--listen={listen}", f"--data-dir={tmp_path}/data", f"--config-local-path={tree.root}")
        assert_one_line(refused("serve", "--provider=filesystem", *options), 1, listen, "taken")


def test_a_missing_configuration_folder_is_named_in_one_line(tmp_path: Path) -> None:
    options = ("--listen=127.0.0.1:0", f"--data-dir={tmp_path}/data", f"--config-local-path={tmp_path}/nowhere")
    assert_one_line(refused("serve", "--provider=filesystem", *options), 1, f"{tmp_path}/nowhere")


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path: Path, tree: Tree) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    options = ("--listen=127.0.0.1:0", f"--data-dir={in_the_way}/data", f"--config-local-path={tree.root}")
    assert_one_line(refused("serve", "--provider=filesystem", *options), 1, f"{in_the_way}/data")


def test_a_damaged_database_is_named_and_never_replaced(tmp_path: Path, tree: Tree) -> None:
    database = tmp_path / "data" / "registry.sqlite3"
    database.parent.mkdir()
    damage = b"this is not a database, but someone's last hope" * 1000
    database.write_bytes(damage)
    options = ("--listen=127.0.0.1:0", f"--data-dir={tmp_path}/data", f"--config-local-path={tree.root}")
    assert_one_line(refused("serve", "--provider=filesystem", *options), 1, str(database), "recover")
    assert database.read_bytes() == damage


def test_a_second_server_on_the_same_database_is_refused(run: Callable[..., Program], tmp_path: Path) -> None:
    run().wait_until_ready()
    second = run()
    assert second.wait() == 1
    assert "registry.sqlite3" in second.log
    assert "Traceback" not in second.log


def test_a_wrong_value_is_named_with_what_is_allowed() -> None:
    assert_one_line(refused("serve", "--max-concurrent-uploads=many"), 2, "--max-concurrent-uploads", "many")
    assert_one_line(refused("serve", "--no-such-switch"), 2, "--no-such-switch")
    assert_one_line(refused("serve", BR_LOG_LEVEL="loud"), 2, "BR_LOG_LEVEL", "info")
    assert_one_line(refused("bake"), 2, "bake", "serve")
