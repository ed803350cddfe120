"""What the campaign found, each as a test of its own; docs/robustness.md lists them in the same order."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.campaign import wire
from tests.serving import REPOSITORY, RunningServer, ShiftedClock
from tornado_backups.domain.errors import StartupError
from tornado_backups.registry import sqlite_room
from tornado_backups.registry.sqlite import SqliteRegistry

UPLOAD = f"POST {REPOSITORY}/files/version HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: " + "9" * 5000 + "\r\n",
    ],
    ids=["both", "encoding", "two lengths", "sign", "digits"],
)
@pytest.mark.parametrize("wrong_token", [True, False])
def test_a_request_of_doubtful_length_is_answered_once_and_nothing_behind_it(
    server: RunningServer, framing: str, wrong_token: bool
) -> None:
    token = "wrong" if wrong_token else server.login("admin")
    data = f"{UPLOAD}Authorization: Bearer {token}\r\n{framing}\r\nhelloGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    reply = wire.exchange(server.port, [data.encode()], 10)
    assert (reply.statuses, reply.rest, reply.ended) == ([400], b"", "closed")
    assert server.objects() == []


def test_a_refused_upload_whose_chunks_break_afterwards_is_not_answered_again(server: RunningServer) -> None:
    head = f"{UPLOAD}Authorization: Bearer wrong\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply = wire.exchange(server.port, [head.encode(), b"no chunk size\r\n"], 10, pause=0.1)
    assert (reply.statuses, reply.rest, reply.ended) == ([401], b"", "closed")


def test_the_database_is_written_on_a_full_disk_once_its_log_has_been_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "full.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("CREATE TABLE rows (number INTEGER)")
    sqlite_room.reserve(connection)
    log, file = (tmp_path / f"{path.name}-wal").stat().st_size, path.stat().st_size
    assert log >= sqlite_room.RESERVE_BYTES <= file
    for number in range(40):  # each commit appends at least a page to the log
        connection.execute("INSERT INTO rows VALUES (?)", (number,))
    assert sqlite_room.use_reserve(connection)
    connection.execute("INSERT INTO rows VALUES (40)")
    assert ((tmp_path / f"{path.name}-wal").stat().st_size, path.stat().st_size) == (log, file)
    connection.close()


def test_a_database_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE music (title TEXT)")
    connection.close()
    before = path.read_bytes()
    registry = SqliteRegistry(str(path), ShiftedClock(), "a server", exclusive=True)
    with pytest.raises(StartupError, match="not one of this program"):
        asyncio.run(registry.open())
    assert path.read_bytes() == before
