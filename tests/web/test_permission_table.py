"""Every route × every kind of session, with the expected status: ``permission_table.txt``, held against a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.serving import PASSWORD, Answer, RunningServer, message
from tests.web.permission_world import (
    ADMITTED,
    FAR,
    HEALTH_CODE,
    KEY,
    NO_SESSION,
    Opening,
    World,
    bearer,
    build_tree,
    build_world,
)
from tornado_backups.auth.tokens import session_id
from tornado_backups.web.base import SECURITY_HEADERS
from tornado_backups.web.routes import ROUTES, Route, paths

TABLE = Path(__file__).with_name("permission_table.txt")
UPLOADS = ("POST", "PUT")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
REASONS = {
    401: {"not-authenticated"},
    403: {"not-authorized", "window-closed"},
    404: {"not-found"},
    405: {"method-not-allowed"},
    500: {"configuration"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    method: str
    path: str
    on: str
    expected: Mapping[str, int]


def read_table() -> list[Row]:
    """Return the lines of the table."""
    lines = [line.split() for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    columns = lines[0][3:]
    return [
        Row(method, path, on, dict(zip(columns, map(int, statuses), strict=True)))
        for method, path, on, *statuses in lines[1:]
    ]


ROWS = read_table()
SPELLINGS = {path: paths(route) for route in ROUTES for path in (route.path,)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server for the whole table."""
    folder = tmp_path_factory.mktemp("permissions")
    server = RunningServer(
        folder,
        build_tree(folder / "config"),
        jwt_secret_key=KEY,
        health_check_key=HEALTH_CODE,
        trusted_proxies="127.0.0.1",
        log_level="error",
    )
    try:
        yield build_world(server)
    finally:
        server.stop()


def concrete(world: World, row: Row, path: str, own: Mapping[str, str], user: str) -> str:
    """Fill a path with what the row is about."""
    if row.path.endswith("/token") and row.on != "own":
        return f"{path}?userName={row.on}"
    if row.path.endswith("/logout") and row.on != "own":
        ids = {"unknown": "0" * 64, "bystander": session_id(world.login("bystander"))}
        return f"{path}?sessionId={ids[row.on]}"
    collection, _, version = row.on.partition("/")
    number = str(world.store()) if version == "spare" else version
    name = user if row.on == "self" else row.on
    return path.format(user=name, collection=collection, version=number)


def body_of(row: Row) -> object:
    """Return what is sent with a row's request."""
    if row.path.endswith("/login"):
        return {"username": "bystander", "password": PASSWORD}
    if row.path.endswith("/rotation") and row.method == "POST":
        return {"uploads": ["2035-01-31T03:00:00Z"]}
    return message() if row.method in UPLOADS else None


def walk(
    world: World, column: str, open_session: Opening, user: str, spellings: int = 2, fresh: bool = False
) -> list[str]:
    """Send every request of the table in one kind of session; return what was not as expected."""
    wrong: list[str] = []
    headers = open_session(world)
    for row in ROWS:
        for path in SPELLINGS[row.path][:spellings]:
            ends_it = row.path.endswith("/logout") and column not in ("no", "far")
            own = open_session(world) if fresh or ends_it else headers
            target = concrete(world, row, path, own, user)
            answer = world.server.request(row.method, target, body_of(row), headers=own)
            if row.method in UPLOADS and row.path.endswith("/version"):
                world.count(row.on, answer)
            wrong += faults(row, column, target, answer)
    return wrong


def faults(row: Row, column: str, target: str, answer: Answer) -> list[str]:
    """Return what is wrong with an answer, in lines for a person."""
    expected = row.expected[column]
    where = f"{row.method} {target} ({row.on}) in column {column}"
    if answer.status != expected:
        return [f"{where}: {answer.status} instead of {expected}: {answer.body[:200]!r}"]
    missing = [name for name in SECURITY_HEADERS if name.lower() not in answer.headers]
    found = [f"{where}: no header {name}" for name in missing]
    if row.method != "HEAD" and expected in REASONS and answer.json.get("reason") not in REASONS[expected]:
        found.append(f"{where}: reason {answer.json.get('reason')!r}")
    return found


def assert_nothing_else_was_stored(world: World) -> None:
    """Check that as many numbers were given as uploads were answered with 200."""
    registry = world.server.server.registry
    for collection, count in world.stored.items():
        assert world.server.run(lambda name=collection: registry.next_number(name)) == count + 1, collection


@pytest.mark.parametrize("kind", NO_SESSION)
def test_what_is_no_good_session_gets_in_nowhere(world: World, kind: str) -> None:
    assert walk(world, "no", NO_SESSION[kind], "adm", spellings=2 if kind == "anonymous" else 1) == []
    assert_nothing_else_was_stored(world)


@pytest.mark.parametrize("kind", FAR)
def test_a_session_gets_in_nowhere_from_an_address_it_may_not_be_used_from(world: World, kind: str) -> None:
    assert walk(world, "far", FAR[kind], "bound", spellings=1) == []
    assert_nothing_else_was_stored(world)


@pytest.mark.parametrize("kind", ADMITTED)
def test_a_session_may_do_what_the_table_says_and_nothing_else(world: World, kind: str) -> None:
    admitted = ADMITTED[kind]
    assert walk(world, admitted.column, admitted.open, admitted.user, fresh=admitted.always_fresh) == []
    assert_nothing_else_was_stored(world)


EVERYTHING = ("closed", "files", "guarded", "theirs")
VISIBLE = {
    **dict.fromkeys(("adm", "man", "upl", "dow", "any", "one"), EVERYTHING),
    **dict.fromkeys(("Lma", "Lup", "Ldo", "Lan"), ("closed", "files")),
    **dict.fromkeys(("key", "boss", "sco", "k+s"), ("files",)),
    "oth": ("theirs",),
    "usr": (),
    "nil": (),
    "non": (),
}


@pytest.mark.parametrize("kind", ADMITTED)
def test_a_session_sees_no_collection_but_those_it_may_use(world: World, kind: str) -> None:
    admitted = ADMITTED[kind]
    answer = world.server.request("GET", "/api/stable/repository/collection", headers=admitted.open(world))
    assert tuple(each["name"] for each in answer.data["collections"]) == VISIBLE[admitted.column]


def test_every_route_and_method_has_a_row_and_every_row_a_route() -> None:
    routes = {(method, route.path) for route in ROUTES for method in route.operations}
    assert {(row.method, row.path) for row in ROWS} == routes


def test_every_column_has_a_kind_of_session() -> None:
    columns = {"no", "far"} | {admitted.column for admitted in ADMITTED.values()}
    assert columns == set(ROWS[0].expected) == set(VISIBLE) | {"no", "far"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_handler_knows_the_documented_methods_and_no_other(world: World, route: Route) -> None:
    assert set(route.handler.allowed_methods()) == set(route.operations)
    for path in paths(route):
        target = path.format(collection="files", version="1", user="adm") if "{" in path else path
        for method in set(METHODS) - set(route.operations):
            answer = world.server.request(method, target, headers=bearer(world.admin))
            assert answer.status == 405, (method, target, answer.body)
            assert set(answer.headers["allow"].split(", ")) == set(route.operations)
            assert not [name for name in SECURITY_HEADERS if name.lower() not in answer.headers]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "path", ["/", "/api/stable/repository/collection/files", "/api/stable/auth/login/x", "/.git/config"]
)
def test_there_is_nothing_beside_the_routes(world: World, method: str, path: str) -> None:
    for headers in ({}, bearer(world.admin)):
        answer = world.server.request(method, path, headers=headers)
        assert answer.status == (405 if method in ("TRACE", "BREW", "PATCH", "OPTIONS") else 404), answer.body
        assert not [name for name in SECURITY_HEADERS if name.lower() not in answer.headers]


ODD_NAMES = [
    "..%2Ffiles",
    "files%2F..%2Ftheirs",
    "%2e%2e",
    ".",
    "files%00",
    "files.yaml",
    "FILES",
    "files%20",
    "a" * 300,
]
ODD_NAMES += ["%F0%9F%92%BE", "-", "*", "$", "files%0A", "~root", "%5C..%5Cfiles"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_none_leads_nowhere(world: World, name: str) -> None:
    """Not up the tree, not into an error, and to nobody a hint that a listed user may not have."""
    listed = world.login("Lma")
    for path in (
        f"/api/stable/repository/collection/{name}/version",
        f"/api/stable/repository/collection/{name}/version/1",
    ):
        assert world.server.request("GET", path, token=world.admin).status == 404
        assert world.server.request("GET", path, token=listed).status == 403
    assert (
        world.server.request("POST", f"/api/stable/repository/collection/{name}/version", message(), listed).status
        == 403
    )
    assert world.server.request("GET", f"/api/stable/repository/collection/{name}/health").status == 404
    assert world.server.request("GET", f"/api/stable/auth/user/{name}", token=world.admin).status == 404
    answer = world.server.request("POST", "/api/stable/auth/login", {"username": name, "password": PASSWORD})
    assert (answer.status, answer.json["message"]) == (401, "incorrect Username or Password")


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/api/stable/repository/collection/guarded/health"])
def test_a_code_opens_what_it_guards_and_a_wrong_one_does_not(world: World, path: str) -> None:
    request = world.server.request
    assert request("GET", f"{path}?code={HEALTH_CODE}").status == 200
    assert request("GET", path, headers={"Authorization": HEALTH_CODE}).status == 200
    assert request("GET", path, headers=bearer(HEALTH_CODE)).status == 200
    for wrong in (HEALTH_CODE[:-1], HEALTH_CODE + "x", HEALTH_CODE.upper(), "%C3%A9", "%00", ""):
        answer = request("GET", f"{path}?code={wrong}")
        assert (answer.status, answer.json["reason"]) == (403, "not-authorized"), wrong
        assert HEALTH_CODE.encode() not in answer.body


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/api/stable/repository/collection/guarded/health"])
@pytest.mark.parametrize("query", ["code=%FF", "code=%C3%28"])
def test_a_code_that_is_no_text_is_a_bad_request_and_no_fault_of_ours(world: World, path: str, query: str) -> None:
    answer = world.server.request("GET", f"{path}?{query}")
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")


@pytest.mark.parametrize("path", ["/api/stable/auth/user/%FF", "/api/stable/repository/collection/%FF/version"])
def test_a_path_that_is_no_text_is_a_bad_request(world: World, path: str) -> None:
    answer = world.server.request("GET", path, token=world.admin)
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")
    assert not [name for name in SECURITY_HEADERS if name.lower() not in answer.headers]
