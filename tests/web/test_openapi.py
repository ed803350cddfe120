"""The description of the API is valid OpenAPI 3.1, names everything that is served, and comes as the contract says."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from tests.serving import RunningServer
from tornado_backups.web.errors import STATUS
from tornado_backups.web.openapi import UNHEALTHY, describe, status_of_reason
from tornado_backups.web.openapi_schemas import BODIES, ENVELOPES, OTHER_ANSWERS, PARAMETERS, SCHEMAS
from tornado_backups.web.routes import ROUTES, paths, reasons_of

DOCUMENT = describe()
OPERATIONS = [(route, method) for route in ROUTES for method in route.operations]
IDS = [f"{method} {route.path}" for route, method in OPERATIONS]


def described(route: Any, method: str) -> dict[str, Any]:
    """Return the description of a method, references to shared answers resolved."""
    found = dict(DOCUMENT["paths"][route.path][method.lower()])
    shared = DOCUMENT["components"]["responses"]
    found["responses"] = {
        status: shared[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        for status, answer in found["responses"].items()
    }
    return found


def references(value: Any) -> set[str]:
    """Return every ``$ref`` below a value."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*(references(child) for child in value.values()))
    return set().union(*(references(child) for child in value)) if isinstance(value, list) else set()


def schemas(value: Any) -> list[dict[str, Any]]:
    """Return every JSON Schema in the description."""
    if isinstance(value, list):
        return [schema for child in value for schema in schemas(child)]
    if not isinstance(value, dict):
        return []
    own = [value["schema"]] if isinstance(value.get("schema"), dict) else []
    return own + [schema for child in value.values() for schema in schemas(child)]


def test_the_description_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)


def test_every_schema_is_a_valid_schema_of_its_dialect() -> None:
    found = [*schemas(DOCUMENT["paths"]), *schemas(DOCUMENT["components"]["responses"]), *SCHEMAS.values()]
    assert len(found) > 50
    for schema in found:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_reference_leads_somewhere_and_nothing_shared_is_left_over() -> None:
    targets = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in DOCUMENT["components"][kind]
    }
    assert references(DOCUMENT) == targets


def test_every_route_is_described_under_both_spellings_and_nothing_else() -> None:
    served = {(path, method.lower()) for route, method in OPERATIONS for path in paths(route)}
    assert served == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert any(path.startswith("/api/alpha/") for path, _ in served)


def test_every_operation_has_an_id_of_its_own() -> None:
    ids = [found["operationId"] for methods in DOCUMENT["paths"].values() for found in methods.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z][A-Za-z]+", found) for found in ids)


@pytest.mark.parametrize(("route", "method"), OPERATIONS, ids=IDS)
def test_every_part_of_a_path_is_a_parameter(route: Any, method: str) -> None:
    given = described(route, method)["parameters"]
    in_path = re.findall(r"{(\w+)}", route.path)
    assert [each["name"] for each in given if each["in"] == "path"] == in_path
    assert [each["name"] for each in given if each["required"]] == in_path
    assert [each["name"] for each in given if each["in"] != "path"] == [*route.operations[method].parameters]


@pytest.mark.parametrize(("route", "method"), OPERATIONS, ids=IDS)
def test_every_reason_stands_under_its_status(route: Any, method: str) -> None:
    answers = described(route, method)["responses"]
    for reason in reasons_of(route, method):
        assert f"`{reason}`: " in answers[str(status_of_reason(reason))]["description"]
    good = {status for status in answers if int(status) < 400}
    assert good == {str(status) for status in OTHER_ANSWERS.get(route.operations[method].success, {200: {}})}


@pytest.mark.parametrize(("route", "method"), OPERATIONS, ids=IDS)
def test_what_needs_a_session_says_so(route: Any, method: str) -> None:
    found = described(route, method)
    security = found.get("security", DOCUMENT["security"])
    assert security == ([] if route.handler.public else [{"bearer": []}])
    assert ("401" in found["responses"]) == (not route.handler.public or route.path.endswith("/login"))


def test_an_answer_to_head_never_has_a_body() -> None:
    heads = [described(route, method) for route, method in OPERATIONS if method == "HEAD"]
    assert heads
    assert not [status for found in heads for status, answer in found["responses"].items() if "content" in answer]


def test_every_shape_is_used_and_every_reason_known() -> None:
    operations = [route.operations[method] for route, method in OPERATIONS]
    assert {operation.success for operation in operations} == {*ENVELOPES, *OTHER_ANSWERS}
    assert {operation.body for operation in operations} - {""} == {*BODIES}
    in_paths = {name for route, _ in OPERATIONS for name in re.findall(r"{(\w+)}", route.path)}
    assert in_paths | {name for operation in operations for name in operation.parameters} == {*PARAMETERS}
    answered = {reason for route, method in OPERATIONS for reason in reasons_of(route, method)}
    assert answered == {error.reason for error in STATUS} | {UNHEALTHY}


def test_anyone_may_read_the_description(server: RunningServer) -> None:
    answer = server.request("GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json == json.loads(json.dumps(DOCUMENT))
