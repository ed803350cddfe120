"""What an answer never tells, whatever went wrong, and what every refusal leaves in the audit trail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import PASSWORD, REPOSITORY, Answer, RunningServer, Tree, message
from tornado_backups.web.base import JSON_BODY_BYTES, SECURITY_HEADERS

LOGIN = "/api/stable/auth/login"
WHOAMI = "/api/stable/auth/whoami"
LOGOUT = "/api/stable/auth/logout"
REFRESH = "/api/stable/auth/refresh_token"
FILES = f"{REPOSITORY}/files/version"


def assert_hardened(answer: Answer) -> None:
    """Check that an answer has every security header and the form of the API."""
    for name, value in SECURITY_HEADERS.items():
        assert name.lower() in answer.headers, name
        if name != "Content-Type":
            assert answer.headers[name.lower()] == value
    assert answer.json["status"] is False
    assert answer.json["error"]
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_fault_of_the_program_is_told_to_the_log_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = server.login("admin")

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inside of the program at /srv/inside")

    monkeypatch.setattr(server.server.context.registry, "versions", fail)
    for method, path, body in (("GET", FILES, None), ("POST", FILES, message()), ("GET", f"{FILES}/latest", None)):
        monkeypatch.setattr(server.server.context.registry, "latest_version", fail)
        answer = server.request(method, path, body, token)
        assert (answer.status, answer.json["reason"]) == (500, "internal")
        assert b"inside" not in answer.body
        assert_hardened(answer)
    assert "the inside of the program" in caplog.text


def test_a_fault_of_the_configuration_names_no_file(server: RunningServer, tree: Tree) -> None:
    token = server.login("admin")
    tree.collection("broken", maxBackupsCount="many")
    answers = [server.request("GET", f"{REPOSITORY}/broken/version", token=token)]
    tree.user("uploader", roles="everything", email=7)
    answers.append(server.request("POST", LOGIN, {"username": "uploader", "password": PASSWORD}))
    for answer in answers:
        assert (answer.status, answer.json["reason"]) == (500, "configuration")
        assert str(tree.root).encode() not in answer.body
        assert b"yaml" not in answer.body
        assert_hardened(answer)


def test_a_missing_or_damaged_object_names_no_path(server: RunningServer) -> None:
    token = server.login("admin")
    for number in (1, 2):
        assert server.upload("files", token).data["version"]["versionNumber"] == number
    objects = server.data_dir / "objects"
    shutil.rmtree(objects / "files")
    answer = server.request("GET", f"{FILES}/1", token=token)
    assert answer.status == 500
    assert str(server.data_dir).encode() not in answer.body
    assert_hardened(answer)


@pytest.mark.parametrize("key", [None, "a-code-for-readiness"])
def test_readiness_shows_messages_only_to_those_who_have_a_code(
    tree: Tree, start: Callable[..., RunningServer], key: str | None
) -> None:
    server = start(health_check_key=key)
    path = f"/ready?code={key}" if key else "/ready"
    well = server.request("GET", path)
    assert well.status == 200
    shutil.rmtree(server.data_dir / "objects")
    (server.data_dir / "objects").write_text("no folder any more")
    ill = server.request("GET", path)
    assert (ill.status, ill.json["reason"], ill.json["error"]) == (500, "unhealthy", "one of checks failed")
    states = {check["name"]: check["status"] for check in ill.data["health"]}
    assert states["StorageAvailabilityValidator"] is False
    assert states["DbValidator"] is True
    messages = [check["message"] for answer in (well, ill) for check in answer.data["health"]]
    if key:
        assert "OK" in messages
        assert all(messages)
        assert len(set(messages)) > 1
        wrong = server.request("GET", "/ready?code=wrong")
        assert (wrong.status, wrong.data) == (403, {})
    else:
        assert set(messages) == {""}


# -- what is sent to us ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("POST", LOGIN), ("POST", f"{REPOSITORY}/files/rotation"), ("GET", WHOAMI)]
)
def test_a_body_longer_than_any_request_needs_is_refused(server: RunningServer, method: str, path: str) -> None:
    token = server.login("admin")
    answer = server.request(method, path, b" " * (JSON_BODY_BYTES + 1), token)
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")
    assert_hardened(answer)


WRONG_BODIES = (
    b"",
    b"\xff",
    b"[" * 50_000,
    b'{"a":' * 5_000,
    b"[]",
    b"7",
    b'"text"',
    b"null",
    b'{"username": "admin"}',
    b'{"username": 1, "password": []}',
    b'{"username": "admin", "password": "a password for tests", "lifetime": 99}',
    b'{"username": "admin", "password": "a password for tests", "sudo": true}',
)


@pytest.mark.parametrize("body", WRONG_BODIES)
def test_a_login_that_cannot_be_read_is_a_bad_request_and_echoes_no_password(
    server: RunningServer, body: bytes
) -> None:
    answer = server.request("POST", LOGIN, body)
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")
    assert PASSWORD.encode() not in answer.body
    assert_hardened(answer)


UNREADABLE_REQUESTS = (
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /api/stable/auth/whoami HTTP/1.1\r\nAuthorization Bearer a-token-in-a-broken-header\r\n\r\n",
    b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(range(256)) + b"\r\n\r\n",
)


@pytest.mark.parametrize("sent", UNREADABLE_REQUESTS)
def test_what_is_no_http_gets_a_bare_400_at_most_and_the_connection_ends(
    server: RunningServer, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with server.raw() as sock:
        sock.sendall(sent)
        sock.settimeout(10)
        received = b""
        try:
            while piece := sock.recv(65536):
                received += piece
        except ConnectionResetError:
            assert len(sent) > 65536, "a small request can be read to its end before the connection closes"
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in received
    assert "a-token-in-a-broken-header" not in caplog.text + received.decode("latin-1")
    assert server.request("GET", "/health").status == 200


# -- the audit trail -------------------------------------------------------------------------------------------------


@pytest.fixture
def audited(tmp_path: Path, tree: Tree, start: Callable[..., RunningServer]) -> tuple[RunningServer, Path]:
    """A server that writes an audit file."""
    tree.user("admin", roles=["systemAdmin"])
    tree.user("nobody")
    tree.user("bound", restrictByIP=["192.0.2.0/24"])
    tree.collection("files", healthSecretRef={"name": "codes", "entry": "files"})
    tree.secret("codes", files="0" * 64)
    path = tmp_path / "audit.log"
    return start(audit_log=path, trusted_proxies="127.0.0.1", append_only="true"), path


def events(path: Path) -> list[dict]:
    """Return the lines of an audit file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def refusals(house: RunningServer) -> dict[str, tuple[Callable[[], Answer], tuple[str, str, str, str]]]:
    """Return ways to be refused: the request, and the event, result, user and ``why`` that must be audited."""
    admin, nobody = house.login("admin"), house.login("nobody")
    single, ended = house.login("nobody", singleUse=True), house.login("nobody")
    at_home = {"X-Forwarded-For": "192.0.2.1"}
    bound = house.request("POST", LOGIN, {"username": "bound", "password": PASSWORD}, headers=at_home).data["token"]
    assert house.upload("files", admin).status == 200
    house.request("DELETE", LOGOUT, token=ended)

    def ask(method: str, path: str, token: str = "", body: object = None) -> Callable[[], Answer]:
        return lambda: house.request(method, path, body, token)

    wrong = {"username": "admin", "password": "wrong"}
    other = {"username": "bound", "password": PASSWORD}
    return {
        "no token": (ask("GET", WHOAMI), ("refusal", "not-authenticated", "", "")),
        "forged": (ask("GET", WHOAMI, admin[:-5] + "AAAAA"), ("refusal", "not-authenticated", "", "")),
        "revoked": (ask("GET", WHOAMI, ended), ("refusal", "not-authenticated", "nobody", "revoked")),
        "far": (ask("GET", WHOAMI, bound), ("refusal", "not-authorized", "bound", "address")),
        "role": (ask("GET", FILES, nobody), ("refusal", "not-authorized", "nobody", "")),
        "upload": (ask("POST", FILES, nobody, message()), ("refusal", "not-authorized", "nobody", "")),
        "plain": (ask("POST", FILES, admin, b"plain"), ("upload", "not-encrypted", "admin", "")),
        "append only": (ask("DELETE", f"{FILES}/1", admin), ("refusal", "append-only", "admin", "")),
        "code": (ask("GET", f"{REPOSITORY}/files/health?code=wrong"), ("refusal", "not-authorized", "", "")),
        "single use": (ask("GET", REFRESH, single), ("refresh", "not-authorized", "nobody", "single-use")),
        "sessions": (
            ask("GET", "/api/stable/auth/token?userName=admin", nobody),
            ("refusal", "not-authorized", "nobody", ""),
        ),
        "logout": (ask("DELETE", f"{LOGOUT}?sessionId={'0' * 64}", admin), ("logout", "not-found", "admin", "")),
        "password": (ask("POST", LOGIN, "", wrong), ("login", "not-authenticated", "admin", "wrong-password")),
        "login from afar": (ask("POST", LOGIN, "", other), ("login", "not-authenticated", "bound", "address")),
        "no login": (ask("POST", LOGIN, "", b"{"), ("refusal", "bad-request", "", "")),
        "no path": (ask("GET", "/nothing"), ("refusal", "not-found", "", "")),
        "no method": (ask("DELETE", WHOAMI, admin), ("refusal", "method-not-allowed", "", "")),
    }


def test_every_refusal_is_audited_once_with_who_and_why(audited: tuple[RunningServer, Path]) -> None:
    house, path = audited
    for name, (request, expected) in refusals(house).items():
        before = len(events(path))
        answer = request()
        assert answer.status >= 400, name
        lines = events(path)[before:]
        told = [(line["event"], line["result"], line["user"], line["details"].get("why", "")) for line in lines]
        assert told == [expected], name
        assert lines[0]["address"] == "127.0.0.1"


def test_every_success_is_audited_once_with_its_session(audited: tuple[RunningServer, Path]) -> None:
    house, path = audited
    login = house.request("POST", LOGIN, {"username": "admin", "password": PASSWORD}).data
    token, session = login["token"], login["sessionId"]
    house.upload("files", token)
    house.request("GET", f"{FILES}/1", token=token)
    second = house.request("GET", REFRESH, token=token).data["sessionId"]
    house.request("DELETE", LOGOUT, token=token)
    told = [(line["event"], line["result"], line["user"], line["session"]) for line in events(path)]
    assert [each for each in told if each[0] != "configuration"] == [
        ("login", "ok", "admin", session),
        ("upload", "ok", "admin", session),
        ("download", "ok", "admin", session),
        ("refresh", "ok", "admin", second),
        ("logout", "ok", "admin", session),
    ]
    assert token not in path.read_text()
