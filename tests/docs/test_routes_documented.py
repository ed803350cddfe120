"""docs/api.md has every route with a command that calls it, its parameters, fields, answers and failures."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tornado_backups.web.openapi import status_of_reason
from tornado_backups.web.openapi_schemas import BODIES, ENVELOPES, OTHER_ANSWERS, SCHEMAS
from tornado_backups.web.routes import ANY_REQUEST, ANY_SESSION, OLD_REPOSITORY, REPOSITORY, ROUTES, Route, reasons_of

PAGE = (ROOT / "docs/api.md").read_text()
OPERATIONS = [(route, method) for route in ROUTES for method in route.operations]
IDS = [f"{method} {route.path}" for route, method in OPERATIONS]
OBJECTS = sorted({*SCHEMAS} - {"Failure", "Health"})


def sections() -> dict[str, str]:
    """Return the page's parts by their headings."""
    parts = re.split(r"^#{2,3} (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SECTIONS = sections()


def section_of(route: Route, method: str) -> str:
    """Return the one part that is about a method of a route."""
    (found,) = [text for text in SECTIONS.values() if f"`{method} {route.path}`" in text]
    return found


def properties(schema: dict[str, Any]) -> list[str]:
    """Return the names of an object's own fields."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    return [*schema.get("properties", {})]


@pytest.mark.parametrize(("route", "method"), OPERATIONS, ids=IDS)
def test_every_route_has_a_part_with_its_parameters_and_fields(route: Route, method: str) -> None:
    operation = route.operations[method]
    text = section_of(route, method)
    named = [*operation.parameters, *properties(ENVELOPES.get(operation.success, {}))]
    if operation.body == "Login":
        named += properties(BODIES["Login"]["application/json"]["schema"])
    assert [name for name in named if f"`{name}`" not in text] == []
    named_statuses = [status for status in OTHER_ANSWERS.get(operation.success, {}) if status != 200]
    assert [status for status in named_statuses if str(status) not in text] == []


@pytest.mark.parametrize(("route", "method"), OPERATIONS, ids=IDS)
def test_every_failure_of_a_route_is_named_and_no_other(route: Route, method: str) -> None:
    own = set(reasons_of(route, method)) - set(ANY_REQUEST)
    if not route.handler.public:
        own -= set(ANY_SESSION)
    text = section_of(route, method)
    told = set(re.findall(r"`([a-z-]+)`", text.partition("Own failure")[2]))
    assert own <= told
    assert told - set(reasons_of(route, method)) - {"code", "message"} == set()


@pytest.mark.parametrize("reasons", [ANY_REQUEST, ANY_SESSION])
def test_failures_of_any_request_stand_at_the_beginning_with_their_status(reasons: tuple[str, ...]) -> None:
    missing = [reason for reason in reasons if f"| {status_of_reason(reason)} | `{reason}` |" not in PAGE]
    assert missing == []


@pytest.mark.parametrize("route", [route for route in ROUTES if route.path != "/openapi.json"], ids=lambda r: r.path)
def test_every_route_is_called_by_a_command(route: Route) -> None:
    text = "".join(section_of(route, method) for method in route.operations)
    if route.path.startswith(f"{REPOSITORY}/collection/{{collection}}"):
        tail = route.path.rpartition("/collection/{collection}/")[2]
        called = {"version": "$versions", "version/{version}": "$versions/", "rotation": "$rotation"}.get(tail, tail)
    else:
        called = "$server" + route.path.partition("{")[0]
    commands = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert "curl " in commands
    assert called in commands


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_has_a_table_of_just_its_fields(name: str) -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[name], re.MULTILINE) == properties(SCHEMAS[name])


def test_both_spellings_of_the_repository_are_named() -> None:
    assert f"`{OLD_REPOSITORY}/…`" in PAGE
    assert f"`{REPOSITORY}/…`" in PAGE
