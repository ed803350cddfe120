"""Where a request comes from, on a running server: proxies that are trusted or not, unix sockets, restrictions."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.serving import PASSWORD, PASSWORD_HASH, REPOSITORY, Answer, RunningServer, Tree

HOME = "192.0.2.7"
LOGIN = "/api/stable/auth/login"
WHOAMI = "/api/stable/auth/whoami"


@pytest.fixture
def people(tree: Tree) -> Tree:
    """A free user, one that is bound to 192.0.2.0/24, and an access key that is."""
    key = {"name": "key", "password": PASSWORD_HASH, "restrictByIP": ["192.0.2.0/24"], "objects": []}
    tree.user("free", accessKeys=[key])
    tree.user("bound", restrictByIP=["192.0.2.0/24", "2001:db8::/32"])
    return tree


def log_in(server: RunningServer, name: str, **headers: str) -> Answer:
    """Try to log in with ``X_Forwarded_For`` and the like."""
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return server.request("POST", LOGIN, {"username": name, "password": PASSWORD}, headers=named)


def seen_as(server: RunningServer, **headers: str) -> str:
    """Return the address that the server has recorded for a login."""
    token = log_in(server, "free", **headers).data["token"]
    return str(server.request("GET", WHOAMI, token=token).data["grantedAccess"]["requesterIP"])


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected"),
    [
        (None, HOME, "127.0.0.1"),
        ("192.0.2.0/24", HOME, "127.0.0.1"),
        ("unix:", HOME, "127.0.0.1"),
        ("127.0.0.1", HOME, HOME),
        ("127.0.0.0/8", f"10.0.0.1, {HOME}", HOME),
        ("127.0.0.1,192.0.2.0/24", f"203.0.113.9, {HOME}", "203.0.113.9"),
        ("127.0.0.1", f"{HOME}:4711", HOME),
        ("127.0.0.1", "[2001:DB8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "::ffff:192.0.2.7", HOME),
        ("127.0.0.1", "somebody", "unknown"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_a_forwarded_address_counts_from_a_trusted_proxy_only(
    people: Tree, start: Callable[..., RunningServer], trusted: str | None, forwarded: str, expected: str
) -> None:
    assert seen_as(start(trusted_proxies=trusted), X_Forwarded_For=forwarded) == expected


@pytest.mark.parametrize("header", ["Forwarded", "X_Real_IP", "X_Client_IP", "CF_Connecting_IP", "X_Forwarded"])
def test_no_other_header_names_an_address(people: Tree, start: Callable[..., RunningServer], header: str) -> None:
    assert seen_as(start(trusted_proxies="127.0.0.1"), **{header: HOME}) == "127.0.0.1"


@pytest.mark.parametrize("name", ["bound", "free$key"])
def test_a_restriction_holds_at_login(people: Tree, start: Callable[..., RunningServer], name: str) -> None:
    server = start(trusted_proxies="127.0.0.1")
    refused = log_in(server, name)
    wrong = server.request("POST", LOGIN, {"username": name, "password": "wrong"})
    assert (refused.status, refused.body) == (401, wrong.body)
    assert log_in(server, name, X_Forwarded_For="198.51.100.1").status == 401
    assert log_in(server, name, X_Forwarded_For=f"{HOME}, 198.51.100.1").status == 401
    assert log_in(server, name, X_Forwarded_For=HOME).status == 200
    assert log_in(server, name, X_Forwarded_For=f"198.51.100.1, {HOME}").status == 200


def test_a_restriction_added_later_holds_from_the_next_request_on(
    people: Tree, start: Callable[..., RunningServer]
) -> None:
    server = start(trusted_proxies="127.0.0.1")
    token = server.login("free")
    assert server.request("GET", WHOAMI, token=token).status == 200
    people.user("free", restrictByIP=["192.0.2.7"])
    refused = server.request("GET", WHOAMI, token=token)
    assert (refused.status, refused.json["reason"]) == (403, "not-authorized")
    assert server.request("GET", WHOAMI, token=token, headers={"X-Forwarded-For": HOME}).status == 200
    people.user("free")
    assert server.request("GET", WHOAMI, token=token).status == 200


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="tb-") as folder:
        yield str(Path(folder) / "socket")


def over(path: str, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None) -> dict:
    """Send a request over a unix socket and return its JSON, with its HTTP status as ``http``."""
    connection = UnixConnection(path)
    try:
        connection.request(method, target, json.dumps(body) if body else None, dict(headers or {}))
        response = connection.getresponse()
        return json.loads(response.read()) | {"http": response.status}
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected", "bound_status"),
    [
        (None, HOME, "unix", 401),
        ("127.0.0.1", HOME, "unix", 401),
        ("unix:", HOME, HOME, 200),
        ("unix:", "", "unix", 401),
        ("unix:,127.0.0.1", f"{HOME}, 127.0.0.1", HOME, 200),
    ],
)
def test_a_unix_socket_is_a_proxy_only_when_it_is_listed(
    people: Tree,
    start: Callable[..., RunningServer],
    socket_path: str,
    trusted: str | None,
    forwarded: str,
    expected: str,
    bound_status: int,
) -> None:
    start(listen=f"unix:{socket_path}", trusted_proxies=trusted)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    answer = over(socket_path, "POST", LOGIN, {"username": "free", "password": PASSWORD}, headers)
    authorization = {"Authorization": f"Bearer {answer['data']['token']}"}
    known = over(socket_path, "GET", WHOAMI, None, headers | authorization)
    assert known["data"]["grantedAccess"]["requesterIP"] == expected
    bound = over(socket_path, "POST", LOGIN, {"username": "bound", "password": PASSWORD}, headers)
    assert bound["http"] == bound_status


def test_whoever_may_not_use_a_session_from_here_learns_nothing_about_collections(
    people: Tree, start: Callable[..., RunningServer]
) -> None:
    people.user("bound", roles=["systemAdmin"], restrictByIP=["192.0.2.0/24"])
    people.collection("files")
    server = start(trusted_proxies="127.0.0.1")
    token = log_in(server, "bound", X_Forwarded_For=HOME).data["token"]
    answers = {
        name: server.request("GET", f"{REPOSITORY}/{name}/version", token=token) for name in ("files", "nothing")
    }
    assert answers["files"].body == answers["nothing"].body
    assert answers["files"].status == 403
