"""A running server is driven from its own description, with sessions of every kind and none.

Whatever is asked: no fault of the server, no status, content type, header or field that the description does not have,
and nothing of another tenant. ``API_FUZZ_EXAMPLES=2000`` tries as many requests per operation as that, at random; by
default it is a number that takes seconds, and always the same ones. ``pytest -s`` prints what was tried.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks

from tests.serving import PASSWORD, PASSWORD_HASH, Answer, RunningServer, ShiftedClock, Tree, message
from tornado_backups.web.openapi import describe
from tornado_backups.web.routes import OLD_REPOSITORY, ROUTES, paths

EXAMPLES = int(os.environ.get("API_FUZZ_EXAMPLES", "48"))
AT_RANDOM = "API_FUZZ_EXAMPLES" in os.environ
CODE = "a code for the health page"
MARK = "zulu"
"""In every name, address, text and byte of the other tenant, and in nothing else."""

load_all_checks()
CONFORMANCE = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = [
    (method, path)
    for route in ROUTES
    for path in paths(route)
    for method in route.operations
    if AT_RANDOM or not path.startswith(OLD_REPOSITORY)
]


def strict(schema: Any) -> Any:
    """Return a schema that knows no fields but those it lists, so that one that is not described is found."""
    if isinstance(schema, list):
        return [strict(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(child) for name, child in schema.items()}
    if "allOf" in schema:
        found["unevaluatedProperties"] = False
    elif "properties" in schema and "reason" not in schema["properties"]:
        found["additionalProperties"] = False
    return found


def strict_description() -> dict[str, Any]:
    """Return the description with strict answers; what requests may hold stays as it is."""
    found = copy.deepcopy(describe())
    found["components"] = strict(found["components"])
    found["security"] = []  # the tests bring sessions of their own
    for methods in found["paths"].values():
        for operation in methods.values():
            operation["responses"] = strict(operation["responses"])
    return found


@dataclass(slots=True)
class World:
    """A server with two tenants, sessions to use, and what was tried so far."""

    server: RunningServer
    logins: dict[str, dict[str, Any]]
    sees_everything: frozenset[str]
    tokens: dict[str, str] = field(default_factory=dict)
    tried: Counter[str] = field(default_factory=Counter)

    def token(self, name: str) -> str:
        """Return a good token of a kind of session; a new one where the last was used up."""
        if name in ("nobody", "stranger"):
            return {"nobody": "", "stranger": "e30.e30.e30"}[name]
        if name not in self.tokens:
            self.tokens[name] = self.server.login(**self.logins[name])
        return self.tokens[name]


def build_tree(tree: Tree) -> None:
    """Write two tenants: one under test in every way, the other (whose every word holds :data:`MARK`) beside it."""
    access_key = {"name": "laptop", "password": PASSWORD_HASH}
    everything = ["collectionManager", "uploadsAnytime"]
    grants = [{"name": "files", "type": "collection", "roles": everything}]
    for name, role in (("admin", "systemAdmin"), ("clerk", "userManager"), ("keeper", "collectionManager")):
        tree.user(name, roles=[role])
    for name, role in (("pusher", "backupUploader"), ("reader", "backupDownloader"), ("owl", "uploadsAnytime")):
        tree.user(name, roles=[role])
    tree.user("ann", accessKeys=[{**access_key, "objects": grants}])
    tree.user("ann-up")
    tree.user("ann-down")
    tree.user(f"{MARK}-owner", email=f"{MARK}@example.org", organization=f"{MARK} inc", about=MARK)
    roles = {"ann": everything, "ann-up": ["backupUploader"], "ann-down": ["backupDownloader"]}
    listed = [{"userName": name, "roles": given_roles} for name, given_roles in roles.items()]
    tree.secret("codes", files=hashlib.sha256(CODE.encode()).hexdigest())
    tree.collection("files", accessControl=listed, healthSecretRef={"name": "codes", "entry": "files"})
    tree.collection("full", accessControl=listed, maxBackupsCount=2, strategyName="none")
    tree.collection("small", accessControl=listed, maxOneVersionSize="1K", maxAge="1m", protectFor="1h")
    windows = [{"from": "0 0 29 2 *", "duration": "1m"}]
    tree.collection("shut", accessControl=listed, windows=windows, strategyName="gfs", strategySpec={"keepDaily": 3})
    older = {"keepLastOlderNotMoreThan": "5d", "maxOlderCopies": 2}
    tree.collection("older", accessControl=listed, strategyName="fifo-plus-older", strategySpec=older)
    theirs = [{"userName": f"{MARK}-owner", "roles": everything}]
    tree.collection(f"{MARK}-vault", accessControl=theirs, description=f"{MARK} notes", maxBackupsCount=20)


COLLECTIONS = ["files", "full", "small", "shut", "older", f"{MARK}-vault", "missing"]
USERS = ["admin", "clerk", "ann", "ann-up", f"{MARK}-owner", "missing"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The server of all these tests, with versions in every collection."""
    folder = tmp_path_factory.mktemp("fuzzed")
    tree = Tree(folder / "config")
    build_tree(tree)
    server = RunningServer(folder, tree, ShiftedClock(), health_check_key=CODE)
    scope = {"elements": [{"type": "collection", "name": "files", "roles": ["backupDownloader"]}]}
    plain = ["admin", "clerk", "keeper", "pusher", "reader", "owl", "ann", "ann-up", "ann-down", f"{MARK}-owner"]
    logins: dict[str, dict[str, Any]] = {name: {"username": name} for name in plain}
    logins["key"] = {"username": "ann$laptop"}
    logins["scoped"] = {"username": "ann", "operationsScope": scope}
    logins["scoped key"] = {"username": "ann$laptop", "operationsScope": scope}
    logins["once"] = {"username": "ann-up", "singleUse": True, "lifetime": "1h", "restrictByIP": ["127.0.0.0/8"]}
    sees = frozenset({"admin", "clerk", "keeper", "pusher", "reader", "owl", f"{MARK}-owner"})
    found = World(server, logins, sees)
    for name in COLLECTIONS[:-1]:
        filler = MARK.encode() if name.startswith(MARK) else b"x"
        for size in (50, 900):
            assert server.upload(name, found.token("admin"), message(size, filler)).status == 200
    yield found
    print(f"\n{sum(found.tried.values())} requests: {dict(sorted(found.tried.items()))}")
    server.stop()


KINDS = ["admin", "clerk", "keeper", "pusher", "reader", "owl", "ann", "ann-up", "ann-down", f"{MARK}-owner"]
KINDS += ["key", "scoped", "scoped key", "once", "nobody", "stranger"]
UPLOADS = [
    message(1),
    message(200),
    message(500),
    message(501),
    message(2000),
    message(100)[:-1],
    b"",
    b"no message",
    message(50) + b"x",
]
REAL_VALUES: dict[str, list[str]] = {
    "collection": COLLECTIONS,
    "user": USERS,
    "version": ["latest", "1", "2", "v2", "3", "4", "999", "0", "v", "-1", "../1"],
    "userName": USERS,
    "code": [CODE, CODE[:-1]],
    "sessionId": ["0" * 64, "x"],
    "Range": ["bytes=0-4", "bytes=-3", "bytes=9999999-", "bytes=0-1,3-4", "lines=1-2"],
    "If-None-Match": ["*", '"x"', 'W/"x"'],
    "If-Range": ['"x"', "Sat, 01 Jan 2000 00:00:00 GMT"],
    "X-Content-Sha256": [hashlib.sha256(body).hexdigest() for body in UPLOADS],
    "Content-Digest": ["sha-256=:AAAA:", "md5=:AAAA:", "sha-256=AAAA"],
    "Repr-Digest": ["sha-256=:" + "A" * 43 + "=:", ""],
}
LOGIN_BODIES = [{"username": name, "password": PASSWORD} for name in ("admin", "ann$laptop", "missing", "ann$missing")]


def make_real(case: Case, random: Random) -> None:
    """Put things that exist into most of a generated request: at random, hardly one would be met."""
    operation = case.operation
    for parameter in (*operation.path_parameters, *operation.query, *operation.headers):
        name, chance = parameter.name, random.random()
        place: Any = {"path": case.path_parameters, "query": case.query, "header": case.headers}[parameter.location]
        if chance < (0.8 if parameter.location == "path" else 0.2):
            place[name] = random.choice(REAL_VALUES[name])
        elif parameter.location != "path" and chance < 0.8:
            place.pop(name, None)
    if case.path.endswith("/version") and case.method != "GET" and random.random() < 0.8:
        body = random.choice(UPLOADS)
        case.body = {"file": body} if case.media_type == "multipart/form-data" else body
    if case.path.endswith("/login") and random.random() < 0.5:
        case.media_type = "application/json"
        case.body = random.choice(LOGIN_BODIES)


def right_request(world: World, operation: Any) -> Case:
    """Return a request of the administrator that must succeed."""
    newest = world.server.upload("older", world.token("admin")).data["version"]["versionNumber"]
    values = {"user": "ann", "collection": "older", "version": str(newest)}
    case = operation.Case(
        path_parameters={each.name: values[each.name] for each in operation.path_parameters},
        query={"code": CODE} if any(each.name == "code" for each in operation.query) else {},
    )
    if operation.body:
        bodies = {"login": LOGIN_BODIES[0], "version": message(70), "rotation": {"uploads": ["2030-01-01T00:00:00Z"]}}
        case.body = bodies[case.path.rpartition("/")[2]]
        case.media_type = operation.body[0].media_type
    return case


def generate(operation: Any) -> list[Case]:
    """Return requests to an operation, right ones and wrong ones, without sending them."""
    modes = [GenerationMode.POSITIVE]
    if operation.body or operation.query or operation.headers or operation.path_parameters:
        modes.append(GenerationMode.NEGATIVE)
    found: list[Case] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not AT_RANDOM,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def gather(case: Case) -> None:
        found.append(case)

    gather()
    return found


def check_answer(world: World, kind: str, case: Case, answer: Answer) -> None:
    """Check what no schema can say."""
    if answer.status >= 500:
        assert case.method == "HEAD" or answer.json["reason"] == "unhealthy", answer.body
        assert case.path.endswith(("/health", "/ready")), answer.body
    if (
        answer.headers.get("content-type", "").startswith("application/json")
        and answer.body
        and "/openapi" not in case.path
    ):
        assert answer.json["status"] is (answer.status < 400)
    has_code = CODE in (str((case.query or {}).get("code", "")), str(case.headers.get("Authorization", "")))
    if kind not in world.sees_everything and not (case.path == "/metrics" and has_code):
        shown = answer.body + json.dumps(dict(answer.headers)).encode()
        assert MARK.encode() not in shown, (kind, shown)
    if not case.path.endswith(("/login", "/refresh_token")):
        assert not [token for token in world.tokens.values() if token.encode() in answer.body]


def spend(world: World, kind: str, case: Case, status: int) -> None:
    """Forget a token that a request may have ended."""
    if status == 200 and (case.path.endswith("/logout") or (kind == "once" and case.method in ("POST", "PUT"))):
        world.tokens.clear()


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(each) for each in OPERATIONS])
def test_answers_are_those_described_and_show_nothing_of_others(world: World, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_dict(strict_description())
    random = Random(None if AT_RANDOM else path)
    seen: Counter[int] = Counter()
    right = right_request(world, schema[path][method])
    for number, case in enumerate([right, *generate(schema[path][method])]):
        kind = KINDS[number % len(KINDS)]
        if case is not right:
            make_real(case, random)
        token = world.token(kind)
        case.headers.pop("Authorization", None)
        case.headers.update({"Authorization": f"Bearer {token}"} if token else {})
        response = case.call(base_url=f"http://127.0.0.1:{world.server.port}")
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        answer = Answer(response.status_code, headers, response.content or b"")
        spend(world, kind, case, answer.status)
        seen[answer.status] += 1
        check_answer(world, kind, case, answer)
        case.validate_response(response, checks=CONFORMANCE)
        assert case is not right or answer.status == 200, answer.body
    world.tried.update({str(status): count for status, count in seen.items()})
    assert len(seen) > 1 or not schema[path][method].path_parameters, seen
