"""Sessions as a client sees them: every field, status and text that the contract's section "Sessions" names."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.serving import PASSWORD, PASSWORD_HASH, RunningServer, ShiftedClock, Tree

AUTH = "/api/stable/auth"
LOGIN = f"{AUTH}/login"
SESSION_FIELDS = {
    "id", "user", "accessKeyName", "description", "requesterIP", "expiresAt", "deactivated",
    "CreatedAt", "UpdatedAt", "DeletedAt",
}  # fmt: skip


@pytest.fixture
def people(tree: Tree, start: Callable[..., RunningServer]) -> RunningServer:
    """A server with an administrator, a manager of users, and ann with an access key on ``files``."""
    grants = [{"name": "files", "type": "collection", "roles": ["backupUploader"]}]
    keys = [{"name": "laptop", "password": PASSWORD_HASH, "objects": grants}]
    tree.user("admin", roles=["systemAdmin"])
    tree.user("clerk", roles=["userManager"])
    tree.user("ann", roles=["collectionManager"], accessKeys=keys)
    tree.user("bob", email="bob@example.org", roles=["uploadsAnytime", "backupUploader"])
    tree.collection("files")
    tree.collection("other")
    return start()


def claims(token: str) -> dict[str, Any]:
    """Return the claims of a token."""
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def moment(text: str) -> datetime:
    """Read RFC 3339; without a zone it is none."""
    found = datetime.fromisoformat(text)
    assert found.tzinfo is not None, text
    return found


def test_a_login_answers_token_session_id_expiry_and_a_message(people: RunningServer) -> None:
    answer = people.request("POST", LOGIN, {"username": "ann", "password": PASSWORD})
    assert answer.status == 200
    assert answer.json["status"] is True
    assert set(answer.data) == {"token", "sessionId", "expire", "msg"}
    token = answer.data["token"]
    assert answer.data["sessionId"] == hashlib.sha256(token.encode()).hexdigest()
    lifetime = moment(answer.data["expire"]) - people.clock.now()
    assert timedelta(hours=8759) < lifetime <= timedelta(hours=8760)
    assert answer.headers["cache-control"] == "no-store"


def test_a_token_is_hs256_with_the_claims_of_the_contract(people: RunningServer) -> None:
    token = people.login("ann$laptop")
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["alg"] == "HS256"
    found = claims(token)
    assert set(found) == {"login", "accessKeyName", "operationsScope", "orig_iat", "iat", "exp", "jti"}
    assert (found["login"], found["accessKeyName"]) == ("ann", "laptop")


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ann", "wrong"),
        ("nobody", PASSWORD),
        ("ann$nokey", PASSWORD),
        ("ann$laptop$x", PASSWORD),
        ("", ""),
        ("a\0", "x"),
    ],
)
def test_a_refused_login_says_the_same_whatever_was_wrong(people: RunningServer, username: str, password: str) -> None:
    answer = people.request("POST", LOGIN, {"username": username, "password": password})
    assert answer.status == 401
    assert answer.json == {
        "status": False,
        "data": {},
        "error": "incorrect Username or Password",
        "reason": "not-authenticated",
        "code": 401,
        "message": "incorrect Username or Password",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'"' + b"[" * 60_000,
        b"{}",
        b'{"username": "ann"}',
        b'{"username": 1, "password": "x"}',
        b'{"username": "ann", "password": "x", "singleuse": true}',
        b'{"username": "ann", "password": "x", "lifetime": "-1h"}',
        b'{"username": "ann", "password": "x", "lifetime": 5}',
        b'{"username": "ann", "password": "x", "restrictByIP": ["1.2.3.4/99"]}',
        b'{"username": "ann", "password": "x", "operationsScope": {"elements": [{"type": "collection", "name": "files",'
        b' "roles": ["systemAdmin"]}]}}',
    ],
)
def test_an_unreadable_login_is_a_bad_request(people: RunningServer, body: bytes) -> None:
    answer = people.request("POST", LOGIN, body)
    assert (answer.status, answer.json["reason"], answer.json["status"], answer.json["data"]) == (
        400,
        "bad-request",
        False,
        {},
    )


def test_whoami_shows_profile_and_session(people: RunningServer) -> None:
    token = people.login("bob")
    answer = people.request("GET", f"{AUTH}/whoami", token=token)
    assert answer.status == 200
    assert set(answer.data) == {"email", "permissions", "sessionId", "grantedAccess"}
    assert answer.data["email"] == "bob@example.org"
    assert set(answer.data["permissions"]) == {"uploadsAnytime", "backupUploader"}
    session = answer.data["grantedAccess"]
    assert set(session) == SESSION_FIELDS
    assert session["id"] == answer.data["sessionId"] == hashlib.sha256(token.encode()).hexdigest()
    assert (session["user"], session["accessKeyName"], session["requesterIP"]) == ("bob", "", "127.0.0.1")
    assert (session["deactivated"], session["DeletedAt"]) == (False, None)
    assert moment(session["CreatedAt"]) <= moment(session["UpdatedAt"]) < moment(session["expiresAt"])


@pytest.mark.parametrize(
    ("who", "whom", "status"),
    [
        ("bob", "bob", 200),
        ("bob", "ann", 403),
        ("bob", "nobody", 403),
        ("clerk", "ann", 200),
        ("admin", "ann", 200),
        ("admin", "nobody", 404),
        ("ann$laptop", "ann", 200),
        ("ann$laptop", "bob", 403),
    ],
)
def test_a_user_is_shown_to_himself_and_to_managers(people: RunningServer, who: str, whom: str, status: int) -> None:
    answer = people.request("GET", f"{AUTH}/user/{whom}", token=people.login(who))
    assert answer.status == status
    if status == 200:
        assert set(answer.data) == {"email", "permissions"}
        assert answer.data["email"] == f"{whom}@example.org"


def test_refreshing_keeps_user_key_and_scope_and_the_old_token_stays_valid(people: RunningServer) -> None:
    scope = {"elements": [{"type": "collection", "name": "files", "roles": ["backupUploader"]}]}
    old = people.login("ann$laptop", operationsScope=scope)
    answer = people.request("GET", f"{AUTH}/refresh_token", token=old)
    assert answer.status == 200
    assert set(answer.data) == {"token", "sessionId", "expire", "msg"}
    new = answer.data["token"]
    assert new != old
    for name in ("login", "accessKeyName", "operationsScope", "orig_iat"):
        assert claims(new)[name] == claims(old)[name]
    for token in (old, new):
        assert people.upload("files", token).status == 200
        assert people.upload("other", token).status == 403
        assert people.request("GET", f"{AUTH}/whoami", token=token).status == 200


def test_a_narrowed_lifetime_keeps_its_first_expiry(people: RunningServer, clock: ShiftedClock) -> None:
    body = {"username": "bob", "password": PASSWORD, "lifetime": "1h"}
    first = people.request("POST", LOGIN, body).data
    assert moment(first["expire"]) - clock.now() <= timedelta(hours=1)
    clock.forward(timedelta(minutes=50))
    second = people.request("GET", f"{AUTH}/refresh_token", token=first["token"]).data
    assert second["expire"] == first["expire"]
    clock.forward(timedelta(minutes=11))
    for token in (first["token"], second["token"]):
        answer = people.request("GET", f"{AUTH}/whoami", token=token)
        assert (answer.status, answer.json["reason"], answer.json["code"]) == (401, "not-authenticated", 401)
        assert answer.json["message"]


def test_a_lifetime_above_the_default_counts_as_the_default(people: RunningServer, clock: ShiftedClock) -> None:
    body = {"username": "bob", "password": PASSWORD, "lifetime": "100w"}
    first = people.request("POST", LOGIN, body).data
    assert moment(first["expire"]) - clock.now() <= timedelta(hours=8760)
    clock.forward(timedelta(days=1))
    second = people.request("GET", f"{AUTH}/refresh_token", token=first["token"]).data
    assert moment(second["expire"]) > moment(first["expire"])


def test_a_single_use_token_ends_with_its_first_successful_upload(people: RunningServer) -> None:
    token = people.login("bob", singleUse=True)
    assert people.request("GET", f"{AUTH}/refresh_token", token=token).status == 403
    assert people.upload("files", token, b"not encrypted").status == 422
    assert people.upload("files", token).status == 200
    assert people.upload("files", token).status == 401
    listed = people.request("GET", f"{AUTH}/token", token=people.login("bob")).data["grantedAccesses"]
    assert [each["deactivated"] for each in listed] == [False, True]


def test_sessions_are_listed_newest_first_a_hundred_at_most(people: RunningServer, clock: ShiftedClock) -> None:
    for _ in range(103):
        clock.forward(timedelta(seconds=1))
        token = people.login("bob")
    answer = people.request("GET", f"{AUTH}/token", token=token)
    listed = answer.data["grantedAccesses"]
    assert set(answer.data) == {"grantedAccesses"}
    assert len(listed) == 100
    assert all(set(each) == SESSION_FIELDS and each["user"] == "bob" for each in listed)
    created = [moment(each["CreatedAt"]) for each in listed]
    assert created == sorted(created, reverse=True)
    assert listed[0]["id"] == hashlib.sha256(token.encode()).hexdigest()


def test_only_an_administrator_sees_the_sessions_of_others(people: RunningServer) -> None:
    people.login("bob")
    path = f"{AUTH}/token?userName=bob"
    found = people.request("GET", path, token=people.login("admin"))
    assert [each["user"] for each in found.data["grantedAccesses"]] == ["bob"]
    for who in ("ann", "clerk", "ann$laptop"):
        assert people.request("GET", path, token=people.login(who)).status == 403
    assert people.request("GET", path, token=people.login("bob")).status == 200


def test_a_revoked_session_ends_at_once_and_stays_listed(people: RunningServer) -> None:
    token = people.login("bob")
    answer = people.request("DELETE", f"{AUTH}/logout", token=token)
    assert (answer.status, set(answer.data)) == (200, {"message", "sessionId"})
    assert answer.data["sessionId"] == hashlib.sha256(token.encode()).hexdigest()
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 401
    listed = people.request("GET", f"{AUTH}/token", token=people.login("bob")).data["grantedAccesses"]
    assert [each["deactivated"] for each in listed if each["id"] == answer.data["sessionId"]] == [True]


def test_only_an_administrator_ends_the_sessions_of_others(people: RunningServer) -> None:
    token = people.login("bob")
    session_id = hashlib.sha256(token.encode()).hexdigest()
    path = f"{AUTH}/logout?sessionId={session_id}"
    for who in ("ann", "clerk", "ann$laptop"):
        assert people.request("DELETE", path, token=people.login(who)).status == 403
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 200
    answer = people.request("DELETE", path, token=people.login("admin"))
    assert (answer.status, answer.data["sessionId"]) == (200, session_id)
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 401


def test_one_may_end_another_session_of_ones_own(people: RunningServer) -> None:
    first, second = people.login("bob"), people.login("bob")
    path = f"{AUTH}/logout?sessionId={hashlib.sha256(first.encode()).hexdigest()}"
    assert people.request("DELETE", path, token=second).status == 200
    assert people.request("GET", f"{AUTH}/whoami", token=first).status == 401
    assert people.request("GET", f"{AUTH}/whoami", token=second).status == 200


@pytest.mark.parametrize("session_id", ["0" * 64, "x", "..", "%F0%9F%92%BE"])
def test_a_session_that_does_not_exist_is_not_found(people: RunningServer, session_id: str) -> None:
    answer = people.request("DELETE", f"{AUTH}/logout?sessionId={session_id}", token=people.login("admin"))
    assert (answer.status, answer.json["reason"]) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"{AUTH}/token?userName=%ff"), ("DELETE", f"{AUTH}/logout?sessionId=%ff")]
)
def test_a_parameter_that_is_no_text_is_a_bad_request(people: RunningServer, method: str, path: str) -> None:
    answer = people.request(method, path, token=people.login("admin"))
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")


@pytest.mark.parametrize(
    "spelling",
    [
        "/api//stable/auth/whoami",
        "//api/stable/auth//whoami",
        "/api/stable/auth/whoami/",
        "/api/stable///auth/whoami//",
    ],
)
def test_doubled_and_trailing_slashes_do_not_matter(people: RunningServer, spelling: str) -> None:
    assert people.request("GET", spelling, token=people.login("bob")).data["email"] == "bob@example.org"


def test_a_changed_profile_counts_from_the_next_request_on(people: RunningServer) -> None:
    token = people.login("bob")
    people.tree.user("bob", deactivated=True)
    answer = people.request("GET", f"{AUTH}/whoami", token=token)
    assert (answer.status, answer.json["reason"]) == (401, "not-authenticated")
    people.tree.user("bob", restrictByIP=["192.0.2.0/24"])
    answer = people.request("GET", f"{AUTH}/whoami", token=token)
    assert (answer.status, answer.json["reason"]) == (403, "not-authorized")


def test_a_token_restricted_to_addresses_is_refused_from_others(people: RunningServer) -> None:
    token = people.login("bob", restrictByIP=["192.0.2.0/24"])
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 403
    token = people.login("bob", restrictByIP=["127.0.0.0/8"])
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 200


def test_a_broken_user_file_fails_only_its_user_and_shows_no_path(people: RunningServer) -> None:
    token = people.login("ann")
    people.tree.path("backupusers", "bob").write_text("spec: [")
    answer = people.request("POST", LOGIN, {"username": "bob", "password": PASSWORD})
    assert (answer.status, answer.json["reason"]) == (500, "configuration")
    assert str(people.tree.root).encode() not in answer.body
    assert people.request("GET", f"{AUTH}/whoami", token=token).status == 200


def test_times_are_utc(people: RunningServer) -> None:
    session = people.request("GET", f"{AUTH}/whoami", token=people.login("bob")).data["grantedAccess"]
    assert moment(session["CreatedAt"]).astimezone(UTC) <= people.clock.now()
    assert session["CreatedAt"].endswith("Z")
