"""Rate limits on a running server: who is counted, when, and what the refused one is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.serving import PASSWORD, REPOSITORY, Answer, RunningServer, ShiftedClock, Tree, message
from tornado_backups.auth import passwords

LOGIN = "/api/stable/auth/login"
REFRESH = "/api/stable/auth/refresh_token"
WHOAMI = "/api/stable/auth/whoami"


@pytest.fixture
def people(tree: Tree) -> Tree:
    """An administrator and a collection."""
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    return tree


def from_address(address: str) -> dict[str, str]:
    """Return the header by which a trusted proxy names a client."""
    return {"X-Forwarded-For": address}


def log_in(server: RunningServer, password: str = PASSWORD, address: str = "192.0.2.1") -> Answer:
    """Try to log in as the administrator."""
    body = {"username": "admin", "password": password}
    return server.request("POST", LOGIN, body, headers=from_address(address))


def limited(server: RunningServer, name: str) -> float:
    """Return how many requests were refused by a limit, as ``/metrics`` tells."""
    text = server.request("GET", "/metrics", headers=from_address("203.0.113.1")).body.decode()
    sample = f'tornado_backups_rate_limited_total{{limit="{name}"}} '
    return sum(float(line.removeprefix(sample)) for line in text.splitlines() if line.startswith(sample))


CASES = {
    "default": ({"rate_default_limit": 3}, "GET", WHOAMI, 401, timedelta(seconds=0.34)),
    "default, no such path": ({"rate_default_limit": 3}, "GET", "/nothing", 404, timedelta(seconds=0.34)),
    "default, no such method": ({"rate_default_limit": 3}, "DELETE", WHOAMI, 405, timedelta(seconds=0.34)),
    "default, upload": ({"rate_default_limit": 3}, "POST", f"{REPOSITORY}/files/version", 401, timedelta(seconds=0.34)),
    "auth": ({"rate_auth_limit": 3}, "POST", LOGIN, 400, timedelta(seconds=20)),
    "auth, refresh": ({"rate_auth_limit": 3}, "GET", REFRESH, 401, timedelta(seconds=20)),
    "collection-health": (
        {"rate_collection_health_limit": 3},
        "GET",
        f"{REPOSITORY}/files/health",
        200,
        timedelta(seconds=20),
    ),
    "server-health": ({"rate_server_health_limit": 3}, "GET", "/health", 200, timedelta(seconds=20)),
    "server-health, ready": ({"rate_server_health_limit": 3}, "GET", "/ready", 200, timedelta(seconds=20)),
}


@pytest.mark.parametrize("case", CASES)
def test_one_request_too_many_gets_429_and_is_let_in_after_retry_after(
    people: Tree, start: Callable[..., RunningServer], clock: ShiftedClock, case: str
) -> None:
    options, method, path, usual, refill = CASES[case]
    server = start(trusted_proxies="127.0.0.1", **options)
    name = case.partition(",")[0]

    def ask(address: str = "192.0.2.1") -> Answer:
        return server.request(method, path, "{}" if method == "POST" else None, headers=from_address(address))

    # On a frozen clock nothing is refilled between two requests, however slow the machine is.
    frozen = clock.monotonic()
    clock.monotonic = lambda: frozen  # type: ignore[method-assign]
    assert [ask().status for _ in range(3)] == [usual] * 3
    refused = ask()
    assert (refused.status, refused.json["reason"]) == (429, "rate-limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert limited(server, name) == 1
    assert ask("192.0.2.2").status == usual, "another address has a bucket of its own"
    frozen += refill.total_seconds()
    assert ask().status == usual
    assert ask().status == 429
    frozen += int(ask().headers["retry-after"])
    assert ask().status == usual


def test_addresses_of_one_ipv6_network_share_a_bucket(people: Tree, start: Callable[..., RunningServer]) -> None:
    server = start(trusted_proxies="127.0.0.1", rate_auth_limit=2)
    statuses = [log_in(server, address=f"2001:db8:0:1::{n}").status for n in range(1, 4)]
    assert statuses == [200, 200, 429]
    assert log_in(server, address="2001:db8:0:2::1").status == 200


def test_an_address_cannot_be_changed_to_escape_a_limit(people: Tree, start: Callable[..., RunningServer]) -> None:
    server = start(rate_auth_limit=2)
    statuses = [log_in(server, address=f"192.0.2.{n}").status for n in range(1, 4)]
    assert statuses == [200, 200, 429]


def test_a_login_is_counted_before_any_argon2_is_started(
    people: Tree, start: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[bytes] = []
    real = passwords.verify_secret

    def counting(*arguments: object) -> bool:
        computed.append(b"")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(passwords, "verify_secret", counting)
    server = start(rate_auth_limit=3)
    statuses = [log_in(server, password="wrong").status for _ in range(10)]
    assert statuses == [401] * 3 + [429] * 7
    assert len(computed) == 3


def test_a_refused_upload_is_told_so_before_it_sends_its_body(
    people: Tree, start: Callable[..., RunningServer]
) -> None:
    server = start(rate_default_limit=1)
    token = server.login("admin")
    head = f"POST {REPOSITORY}/files/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    frozen = server.clock.monotonic()
    server.clock.monotonic = lambda: frozen  # type: ignore[method-assign]
    assert server.upload("files", token).status == 200
    with server.raw() as sock:
        sock.sendall((head + "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n").encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 429")
    with server.raw() as sock:
        sock.sendall((head + "Content-Length: 1000000\r\n\r\n").encode() + bytes(1_000_000))
        assert sock.recv(1000).startswith(b"HTTP/1.1 429")


def test_a_limit_of_zero_is_none(people: Tree, start: Callable[..., RunningServer]) -> None:
    server = start(rate_auth_limit=0, rate_default_limit=0)
    assert {log_in(server).status for _ in range(30)} == {200}


def test_a_client_with_many_logins_does_not_keep_another_from_logging_in(
    people: Tree, start: Callable[..., RunningServer]
) -> None:
    """The hostile one names users that do not exist: each costs a whole Argon2 of 64 MiB."""
    server = start(trusted_proxies="127.0.0.1")
    done: list[str] = []

    def hostile() -> None:
        body = {"username": "nobody", "password": "x"}
        answer = server.request("POST", LOGIN, body, headers=from_address("198.51.100.1"))
        assert answer.status == 401
        done.append("hostile")

    threads = [threading.Thread(target=hostile) for _ in range(25)]
    for thread in threads:
        thread.start()
    waiting = server.server.context.sessions._verifier._turns  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while waiting._count < 15:
        assert time.monotonic() < deadline, "the hostile logins never queued up"
        time.sleep(0.001)
    queued = waiting._count
    assert log_in(server, address="192.0.2.1").status == 200
    assert server.upload("files", server.login("admin")).status == 200
    assert waiting._count > 0, f"of {queued} hostile logins some still wait while the honest ones are done"
    for thread in threads:
        thread.join(60)
    assert len(done) == 25


def test_clients_that_send_nothing_keep_nobody_from_working(people: Tree, start: Callable[..., RunningServer]) -> None:
    server = start(idle_timeout="30s", max_concurrent_uploads=2)
    token = server.login("admin")
    silent = [server.raw() for _ in range(150)]
    try:
        for number, sock in enumerate(silent):
            sock.sendall(
                b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"[: number + 1]
            )
        assert log_in(server).status == 200
        assert server.upload("files", token, message(100_000)).status == 200
    finally:
        for sock in silent:
            sock.close()
