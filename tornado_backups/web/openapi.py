"""This API as OpenAPI 3.1, made from the table of routes and the table of errors.

Owns: putting both together, so that a route or a status that is served is described.
Does not own: the shapes (``web/openapi_schemas``), the routes (``web/routes``), the statuses (``web/errors``).
Explained in docs/api.md.
"""

from __future__ import annotations

import re
from typing import Any

from tornado_backups import __version__
from tornado_backups.domain import errors
from tornado_backups.domain.errors import RequestError
from tornado_backups.web.errors import STATUS
from tornado_backups.web.openapi_schemas import (
    BODIES,
    ENVELOPES,
    OTHER_ANSWERS,
    PARAMETERS,
    SCHEMAS,
    Schema,
    headers,
    record,
    ref,
)
from tornado_backups.web.routes import ROUTES, Route, paths, reasons_of

UNHEALTHY = "unhealthy"
"""The one reason that no error has: a health answer with a failed check, as complete as a good one."""

DESCRIPTION = """\
Encrypted backups in by plain HTTP, with limits, backup windows and rotation.

Every JSON answer has `status` (true or false) and `data`; a failure also has `error`, one sentence for a person, and
`reason`, a stable slug for programs. Paths below `/api/alpha/repository` are older spellings of those below
`/api/stable/repository`. A doubled slash in a path counts as one."""

FAILURE_HEADERS: dict[str, tuple[str, Schema]] = {
    "method-not-allowed": ("Allow", {"type": "string"}),
    "not-authenticated": ("WWW-Authenticate", {"const": "Bearer"}),
    "range-not-satisfiable": ("Content-Range", {"type": "string"}),
    "rate-limited": ("Retry-After", {"type": "integer", "minimum": 1}),
    "busy": ("Retry-After", {"type": "integer", "minimum": 1}),
    "storage-unavailable": ("Retry-After", {"type": "integer", "minimum": 1}),
    "database-unavailable": ("Retry-After", {"type": "integer", "minimum": 1}),
    "shutting-down": ("Retry-After", {"type": "integer", "minimum": 1}),
}


def describe() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every route, under both spellings, as plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tornado-backups",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            path: {method.lower(): _operation(route, method, path) for method in route.operations}
            for route in ROUTES
            for path in paths(route)
        },
        "components": {
            "schemas": SCHEMAS,
            "responses": _shared_responses(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"bearer": []}],
    }


def statuses(reasons: tuple[str, ...]) -> dict[int, list[str]]:
    """Return which of ``reasons`` each status stands for, ascending by status."""
    found: dict[int, list[str]] = {}
    for reason in reasons:
        found.setdefault(status_of_reason(reason), []).append(reason)
    return dict(sorted(found.items()))


def status_of_reason(reason: str) -> int:
    """Return the status of a reason, as the table of errors has it; raises ``LookupError`` for an unknown one."""
    if reason == UNHEALTHY:
        return 500
    return next(status for error, status in STATUS.items() if error.reason == reason)


def meaning(reason: str) -> str:
    """Return the first sentence about a reason, from the error that has it."""
    if reason == UNHEALTHY:
        return "One of the checks failed; the body names it."
    error = next(error for error in STATUS if error.reason == reason)
    return _first_sentence(errors.InternalError if reason == RequestError.reason else error)


def _first_sentence(error: type[RequestError]) -> str:
    text = " ".join((error.__doc__ or "").split())
    return text.partition(". ")[0].split("; ``")[0].rstrip(".").replace("``", "`") + "."


def _operation(route: Route, method: str, path: str) -> Schema:
    operation = route.operations[method]
    first = next(other for other, found in route.operations.items() if found.name == operation.name)
    old = path != route.path
    described: Schema = {
        "operationId": operation.name + ("" if method == first else method.title()) + ("Alpha" if old else ""),
        "summary": operation.summary,
        "parameters": _parameters(path, operation.parameters),
        "responses": _responses(route, method),
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": BODIES[operation.body]}
    if route.handler.public:
        described["security"] = []
    if old:
        described["deprecated"] = True
    return described


def _parameters(path: str, names: tuple[str, ...]) -> list[Schema]:
    in_path = re.findall(r"{(\w+)}", path)
    return [
        {"name": name, "required": name in in_path, "schema": _parameter_schema(name), **PARAMETERS[name]}
        for name in (*in_path, *names)
    ]


def _parameter_schema(name: str) -> Schema:
    return {"type": "string", "minLength": 1} if PARAMETERS[name]["in"] == "path" else {"type": "string"}


def _responses(route: Route, method: str) -> Schema:
    operation = route.operations[method]
    answers = OTHER_ANSWERS.get(operation.success) or {200: _good(operation.success)}
    described: Schema = {str(status): answer for status, answer in answers.items()}
    for status, reasons in statuses(reasons_of(route, method)).items():
        described[str(status)] = _failure(reasons) if method == "HEAD" else _shared(status, reasons)
    if method == "HEAD":
        # The same statuses and headers, but never a byte of body (RFC 9110, 9.3.2).
        return {key: {name: answer[name] for name in answer if name != "content"} for key, answer in described.items()}
    return described


def _shared(status: int, reasons: list[str]) -> Schema:
    return {"$ref": f"#/components/responses/{_shared_name(status, reasons)}"}


def _shared_name(status: int, reasons: list[str]) -> str:
    return ".".join((str(status), *reasons))


def _shared_responses() -> Schema:
    """Return the failures that operations refer to; told once, they make two thirds of the document go away."""
    return {
        _shared_name(status, reasons): _failure(reasons)
        for route in ROUTES
        for method in route.operations
        if method != "HEAD"
        for status, reasons in statuses(reasons_of(route, method)).items()
    }


def _good(success: str) -> Schema:
    schema = record(status={"const": True}, data=ENVELOPES[success])
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _failure(reasons: list[str]) -> Schema:
    named: dict[str, list[Schema]] = {}
    for reason in reasons:
        if reason in FAILURE_HEADERS:
            name, schema = FAILURE_HEADERS[reason]
            named.setdefault(name, []).append(schema)
    alike = [reason for reason in reasons if reason != UNHEALTHY]
    schemas = [_failure_schema(alike)] if alike else []
    if UNHEALTHY in reasons:
        schemas.append(_unhealthy_schema())
    described: Schema = {
        "description": " ".join(f"`{reason}`: {meaning(reason)}" for reason in reasons),
        "content": {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
    }
    if named:
        described["headers"] = headers({name: schemas[0] for name, schemas in named.items()})
    return described


def _failure_schema(reasons: list[str]) -> Schema:
    fields: Schema = {"reason": {"enum": reasons}}
    required = []
    if "not-authenticated" in reasons:
        fields |= {"code": {"const": 401}, "message": {"type": "string"}}
        required = ["code", "message"]
    elif "not-encrypted" in reasons:
        fields |= {"message": {"type": "string", "description": "Of not-encrypted: the sentence of the Go server"}}
    return {"allOf": [ref("Failure")], "properties": fields, "required": required}


def _unhealthy_schema() -> Schema:
    return {
        "allOf": [ref("Failure")],
        "properties": {"reason": {"const": UNHEALTHY}, "data": ref("Health")},
    }
