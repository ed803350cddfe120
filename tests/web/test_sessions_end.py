"""How sessions end on a running server: transfers that are cut, single-use tokens, what a refresh keeps."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.serving import PASSWORD_HASH, REPOSITORY, Answer, RunningServer, Tree, message

WHOAMI = "/api/stable/auth/whoami"
LOGOUT = "/api/stable/auth/logout"
REFRESH = "/api/stable/auth/refresh_token"
LARGE = 30_000_000


def grant(*roles: str, on: str = "files") -> dict[str, Any]:
    """Return a grant as access keys and scopes write it."""
    return {"name": on, "type": "collection", "roles": list(roles)}


KEY = {"name": "key", "password": PASSWORD_HASH, "objects": [grant("collectionManager")]}


@pytest.fixture
def house(tree: Tree, start: Callable[..., RunningServer]) -> RunningServer:
    """A server that looks at running transfers every tenth of a second, with one manager and two collections."""
    tree.user("admin", roles=["systemAdmin"])
    tree.user("alice", roles=["collectionManager"], accessKeys=[KEY])
    tree.collection("files")
    tree.collection("other")
    server = start()
    context = server.server.context
    context.settings = replace(context.settings, recheck_session_seconds=0.1)
    return server


def ask(server: RunningServer, token: str, path: str = WHOAMI) -> int:
    """Return the status of a small request."""
    return server.request("GET", path, token=token).status


def begin_upload(
    server: RunningServer, token: str, body: bytes, collection: str = "files", leave: int = 50
) -> socket.socket:
    """Begin an upload and send all but the last bytes of it; return when the server has taken it on."""
    sock = server.raw()
    lines = (f"POST {REPOSITORY}/{collection}/version HTTP/1.1", "Host: x", f"Authorization: Bearer {token}")
    sock.sendall("\r\n".join((*lines, f"Content-Length: {len(body)}", "Expect: 100-continue", "", "")).encode())
    assert sock.recv(100).startswith(b"HTTP/1.1 100")
    sock.sendall(body[:-leave])
    return sock


def read_answer(sock: socket.socket) -> tuple[int, dict]:
    """Read an answer to its end."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length_of(data):
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return int(data.split(b" ", 2)[1]), json.loads(data.partition(b"\r\n\r\n")[2])


def length_of(data: bytes) -> int:
    """Return the declared length of an answer's body."""
    lines = data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


ENDS: Mapping[str, Callable[[RunningServer, str], object]] = {
    "deactivated": lambda server, token: server.tree.user("alice", roles=["collectionManager"], deactivated=True),
    "deleted": lambda server, token: server.tree.path("backupusers", "alice").unlink(),
    "key deleted": lambda server, token: server.tree.user("alice", roles=["collectionManager"]),
    "key renamed": lambda server, token: server.tree.user(
        "alice", roles=["collectionManager"], accessKeys=[KEY | {"name": "another"}]
    ),
    "key bound elsewhere": lambda server, token: server.tree.user(
        "alice", roles=["collectionManager"], accessKeys=[KEY | {"restrictByIP": ["192.0.2.0/24"]}]
    ),
    "user bound elsewhere": lambda server, token: server.tree.user(
        "alice", roles=["collectionManager"], accessKeys=[KEY], restrictByIP=["192.0.2.0/24"]
    ),
    "revoked": lambda server, token: server.request("DELETE", LOGOUT, token=token),
}


@pytest.mark.parametrize("why", ENDS)
def test_a_running_upload_is_cut_and_nothing_of_it_is_left(house: RunningServer, why: str) -> None:
    token, admin = house.login("alice$key"), house.login("admin")
    with begin_upload(house, token, message(5000)) as sock:
        ENDS[why](house, token)
        status, answer = read_answer(sock)
    assert (status, answer["reason"]) == (401, "not-authenticated")
    assert house.objects() == []
    assert house.upload("files", admin).data["version"]["versionNumber"] == 1
    assert ask(house, token) in (401, 403)


@pytest.mark.parametrize("why", ["deactivated", "revoked", "key deleted"])
def test_a_session_that_ends_with_the_last_byte_stores_nothing(house: RunningServer, why: str) -> None:
    """Between two looks at the session: the commit looks for itself."""
    house.server.context.settings = replace(house.server.context.settings, recheck_session_seconds=3600.0)
    token = house.login("alice$key")
    body = message(5000)
    with begin_upload(house, token, body) as sock:
        ENDS[why](house, token)
        sock.sendall(body[-50:])
        assert read_answer(sock)[0] == 401
    assert house.objects() == []
    assert house.numbers("files", house.login("admin")) == []


@pytest.mark.parametrize("why", ["deactivated", "revoked", "key deleted"])
def test_a_running_download_is_cut(house: RunningServer, why: str) -> None:
    admin, token = house.login("admin"), house.login("alice$key")
    assert house.upload("files", admin, message(LARGE)).status == 200
    with house.raw() as sock:
        sock.sendall(
            f"GET {REPOSITORY}/files/version/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        received = len(sock.recv(1000))
        ENDS[why](house, token)
        wait_until(lambda: not house.server.context.transfers)
        received += read_what_comes(sock)
    assert received < LARGE
    wait_until(lambda: ask(house, admin) == 200)


def read_what_comes(sock: socket.socket) -> int:
    """Read until the end or a reset; return how many bytes came."""
    received = 0
    try:
        while piece := sock.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        return received
    return received


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_transfers_of_others_go_on(house: RunningServer) -> None:
    body = message(5000)
    alice, admin = house.login("alice"), house.login("admin")
    with begin_upload(house, alice, body) as cut, begin_upload(house, admin, body, "other") as kept:
        ENDS["deactivated"](house, alice)
        assert read_answer(cut)[0] == 401
        kept.sendall(body[-50:])
        assert read_answer(kept)[0] == 200


def test_an_upload_that_outlives_its_token_may_end(house: RunningServer) -> None:
    token = house.login("alice", lifetime="1s")
    body = message(5000)
    with begin_upload(house, token, body) as sock:
        wait_until(lambda: ask(house, token) == 401)
        sock.sendall(body[-50:])
        assert read_answer(sock)[0] == 200


# -- single use ------------------------------------------------------------------------------------------------------


def test_a_single_use_token_ends_with_its_first_successful_upload(house: RunningServer) -> None:
    token = house.login("alice", singleUse=True)
    assert house.upload("files", token, b"this is not encrypted").status == 422
    assert house.upload("files", token, message()[:-5]).status == 422
    assert house.upload("files", token, message(), X_Content_Sha256="0" * 64).status == 422
    assert house.upload("nowhere", token).status == 404
    assert ask(house, token, REFRESH) == 403
    assert house.upload("files", token).status == 200
    for again in (house.upload("files", token), house.upload("other", token)):
        assert (again.status, again.json["reason"]) == (401, "not-authenticated")
    assert ask(house, token) == 401
    assert ask(house, token, REFRESH) == 401
    assert house.numbers("files", house.login("alice")) == [1]


def test_an_upload_that_is_cancelled_does_not_use_the_token_up(house: RunningServer) -> None:
    token = house.login("alice", singleUse=True)
    with begin_upload(house, token, message(5000)):
        pass  # and gone
    wait_until(lambda: not house.server.context.transfers)
    assert house.upload("files", token).status == 200


@pytest.mark.parametrize("attempt", range(5))
def test_two_uploads_at_once_with_a_single_use_token_are_one_success(house: RunningServer, attempt: int) -> None:
    token, admin = house.login("alice", singleUse=True), house.login("admin")
    body = message(5000)
    answers: list[tuple[int, dict]] = []

    def finish(sock: socket.socket) -> None:
        sock.sendall(body[-50:])
        answers.append(read_answer(sock))

    with begin_upload(house, token, body, "files") as one, begin_upload(house, token, body, "other") as two:
        threads = [threading.Thread(target=finish, args=(sock,)) for sock in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(status for status, _ in answers) == [200, 401]
    assert len(house.numbers("files", admin) + house.numbers("other", admin)) == 1
    assert len(house.objects()) == 1


# -- refreshing ------------------------------------------------------------------------------------------------------


def refresh(server: RunningServer, token: str, **headers: str) -> Answer:
    """Refresh a token."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("GET", REFRESH, token=token, headers=named)


def test_a_refreshed_token_keeps_everything_that_narrowed_it(tree: Tree, start: Callable[..., RunningServer]) -> None:
    tree.user("alice", roles=["systemAdmin"], accessKeys=[KEY])
    tree.collection("files")
    tree.collection("other")
    server = start(trusted_proxies="127.0.0.1")
    scope = {"elements": [grant("backupUploader")]}
    first = server.request(
        "POST",
        "/api/stable/auth/login",
        {"username": "alice$key", "password": "a password for tests", "operationsScope": scope, "lifetime": "1h"}
        | {"restrictByIP": ["127.0.0.1"]},
    ).data
    second = refresh(server, first["token"]).data
    third = refresh(server, second["token"]).data
    assert len({first["token"], second["token"], third["token"]}) == 3
    for issued in (first, second, third):
        token = issued["token"]
        assert issued["expire"] == first["expire"]
        about = server.request("GET", WHOAMI, token=token).data
        assert about["permissions"] == ["backupUploader"]
        assert about["grantedAccess"]["accessKeyName"] == "key"
        assert server.upload("files", token).status == 200
        assert ask(server, token, f"{REPOSITORY}/files/version/1") == 403
        assert ask(server, token, f"{REPOSITORY}/other/version") == 403
        assert ask(server, token, "/api/stable/auth/token?userName=bob") == 403
        assert server.request("GET", WHOAMI, token=token, headers={"X-Forwarded-For": "192.0.2.1"}).status == 403
        assert refresh(server, token, X_Forwarded_For="192.0.2.1").status == 403


def test_what_a_refreshed_token_may_do_follows_the_configuration(house: RunningServer) -> None:
    token = refresh(house, house.login("alice$key")).data["token"]
    assert house.upload("files", token).status == 200
    house.tree.user("alice", roles=["collectionManager"], accessKeys=[KEY | {"objects": [grant("backupDownloader")]}])
    assert house.upload("files", token).status == 403
    house.tree.user("alice", roles=["collectionManager"], accessKeys=[KEY | {"name": "renamed"}])
    assert ask(house, token) == 401
    house.tree.user("alice", roles=["collectionManager"], accessKeys=[KEY])
    assert house.upload("files", token).status == 200
