"""What systemd sees of the server: real datagram sockets, real inherited descriptors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tornado_backups import systemd


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield receiver


def test_a_state_reaches_the_manager_as_one_datagram(manager: socket.socket) -> None:
    systemd.notify(systemd.READY + "\nSTATUS=serving")
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving"


def test_a_state_reaches_a_manager_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tornado-backups-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        systemd.notify(systemd.STOPPING)
        assert receiver.recv(4096) == b"STOPPING=1"


def test_a_reload_carries_the_monotonic_time_in_microseconds(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.notify(systemd.reloading())
    first, second = manager.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    key, _, value = second.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("address", ["", "relative/path", "/nowhere/at/all/notify", "@" + "x" * 200])
def test_nobody_listening_stops_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify(systemd.WATCHDOG)
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify(systemd.WATCHDOG)


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [("60000000", 30.0), ("500000", 0.25), ("0", None), ("", None), ("soon", None), ("-5", None), ("²", None)],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    microseconds: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert systemd.watchdog_interval() == expected


def test_a_watchdog_for_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_interval() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
    assert systemd.watchdog_interval() is None


CHILD = """
import json, os, sys
from tornado_backups import systemd
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "ours" else "1"
try:
    taken = systemd.listen_sockets()
    print(json.dumps({
        "addresses": [s.getsockname()[1] for s in taken],
        "blocking": [s.getblocking() for s in taken],
        "inheritable": [s.get_inheritable() for s in taken],
        "left": [name for name in os.environ if name.startswith("LISTEN_")],
        "again": len(systemd.listen_sockets()),
    }))
except OSError as error:
    print(json.dumps({"error": str(error)}))
"""


def _handed_over(sockets: list[socket.socket], pid: str = "ours", count: str | None = None) -> dict[str, object]:
    """Start a child with ``sockets`` at descriptors 3, 4, …, as systemd does, and return what it saw."""
    copies = [os.dup(one.fileno()) for one in sockets]
    high = [os.dup2(copy, 200 + index) for index, copy in enumerate(copies)]
    shell = " ".join(f"{3 + index}<&{descriptor}" for index, descriptor in enumerate(high))
    try:
        answer = subprocess.run(
            ["bash", "-c", f'exec "$0" -c "$1" "$2" {shell}', sys.executable, CHILD, pid],
            pass_fds=high,
            env={**os.environ, "LISTEN_FDS": count or str(len(sockets)), "LISTEN_FDNAMES": "http"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    finally:
        for descriptor in {*copies, *high}:
            os.close(descriptor)
    return dict(json.loads(answer.stdout))


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        yield [first, second]


def test_sockets_of_a_socket_unit_are_taken_over_in_order(listeners: list[socket.socket]) -> None:
    assert _handed_over(listeners) == {
        "addresses": [one.getsockname()[1] for one in listeners],
        "blocking": [False, False],
        "inheritable": [False, False],
        "left": [],
        "again": 0,
    }


def test_sockets_for_another_process_are_left_alone(listeners: list[socket.socket]) -> None:
    assert _handed_over(listeners, pid="someone else's")["addresses"] == []


def test_a_datagram_socket_is_refused_with_what_the_unit_needs() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        assert "descriptor 3, which is no listening stream socket" in str(_handed_over([datagram])["error"])


def test_a_descriptor_that_is_no_socket_is_named(listeners: list[socket.socket]) -> None:
    assert "descriptor 5, which is no socket" in str(_handed_over(listeners, count="3")["error"])


def test_without_a_socket_unit_there_is_nothing_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert systemd.listen_sockets() == []
