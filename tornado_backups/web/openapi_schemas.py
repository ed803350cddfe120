"""The shapes that the description of the API is built from: JSON objects, parameters, bodies, good answers.

Owns: every field of the contract as JSON Schema (2020-12), by the names that the table of routes uses.
Does not own: which route has which of them (``web/routes``), the statuses of failures (``web/errors``).
Explained in docs/api.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado_backups.domain.health import CHECK_NAMES
from tornado_backups.domain.model import COLLECTION_ROLES, Role

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "integer", "minimum": 1}
TIME: Schema = {"type": "string", "format": "date-time"}
ID_OF_SESSION: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
BYTES: Schema = {"type": "string", "format": "binary"}
ROLES = [role.value for role in Role]
ROLES_ON_COLLECTIONS = [role.value for role in Role if role in COLLECTION_ROLES]
READY_CHECKS = ["DbValidator", "StorageAvailabilityValidator", "ConfigurationProviderValidator"]


def ref(name: str) -> Schema:
    """Return a reference to one of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """Return a list of ``items``."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """Return ``schema``, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(**fields: Schema) -> Schema:
    """Return an object that always has all of ``fields``."""
    return {"type": "object", "properties": fields, "required": [*fields]}


def said(schema: Schema, description: str) -> Schema:
    """Return ``schema`` with a sentence for people."""
    return {**schema, "description": description}


STAMPS: dict[str, Schema] = {"CreatedAt": TIME, "UpdatedAt": TIME, "DeletedAt": or_null(TIME)}

SCHEMAS: dict[str, Schema] = {
    "Version": record(
        id=said({"type": "string", "format": "uuid"}, "Names the version's object in the storage"),
        collectionId=TEXT,
        versionNumber=NUMBER,
        filename=said(TEXT, "The collection's filenameTemplate with the number put in"),
        filesize=said(COUNT, "Bytes"),
        sha256=said(
            {"type": "string", "pattern": "^([0-9a-f]{64})?$"},
            "Of the stored bytes, hex; empty for an imported version that was not verified yet",
        ),
        uploadedBySessionId=TEXT,
        user=TEXT,
        **STAMPS,
    ),
    "Session": record(
        id=said(ID_OF_SESSION, "The SHA-256 of the token"),
        user=TEXT,
        accessKeyName=TEXT,
        description=TEXT,
        requesterIP=TEXT,
        expiresAt=TIME,
        deactivated=said(FLAG, "Revoked, or used up when it was good for one upload"),
        **STAMPS,
    ),
    "Window": record(**{"from": said(TEXT, "Five cron fields"), "duration": TEXT, "timezone": TEXT}),
    "Collection": record(
        name=TEXT,
        description=TEXT,
        strategyName={"enum": ["fifo", "fifo-plus-older", "gfs", "none"]},
        maxBackupsCount=NUMBER,
        maxOneVersionSize=said(COUNT, "Bytes; 0 is no limit"),
        maxCollectionSize=said(COUNT, "Bytes; 0 is no limit"),
        versionsCount=COUNT,
        usedBytes=COUNT,
        latestVersion=or_null(ref("Version")),
        windows=array(ref("Window")),
        healthy=FLAG,
    ),
    "Kept": record(
        versionNumber=NUMBER,
        reason=TEXT,
        until=said(or_null(TIME), "At the earliest; null: only later uploads or a deletion decide"),
    ),
    "Removed": record(versionNumber=NUMBER, reason=TEXT),
    "Plan": record(
        keep=array(ref("Kept")),
        remove=array(ref("Removed")),
        allowedBytes=said({"type": ["integer", "null"], "minimum": 0}, "How large the upload may be; null: no limit"),
        refusal=said(or_null(record(reason=TEXT, error=TEXT)), "Why the upload would be refused"),
    ),
    "Check": record(
        name={"enum": [*READY_CHECKS, *CHECK_NAMES]},
        status=FLAG,
        statusText=TEXT,
        message=said(TEXT, "What was expected and found; empty at /ready while no code guards it"),
    ),
    "Health": record(health=array(ref("Check"))),
    "Failure": {
        "type": "object",
        "properties": {
            "status": {"const": False},
            "data": {"type": "object"},
            "error": said(TEXT, "One sentence for a person"),
            "reason": said(TEXT, "A stable slug for programs"),
        },
        "required": ["status", "data", "error", "reason"],
    },
}

ENVELOPES: dict[str, Schema] = {
    "TokenAnswer": record(token=TEXT, sessionId=ID_OF_SESSION, expire=TIME, msg=TEXT),
    "WhoamiAnswer": record(
        email=TEXT, permissions=array({"enum": ROLES}), sessionId=ID_OF_SESSION, grantedAccess=ref("Session")
    ),
    "UserAnswer": record(email=TEXT, permissions=array({"enum": ROLES})),
    "SessionsAnswer": record(grantedAccesses={**array(ref("Session")), "maxItems": 100}),
    "LogoutAnswer": record(message=TEXT, sessionId=ID_OF_SESSION),
    "CollectionsAnswer": record(collections=array(ref("Collection"))),
    "VersionsAnswer": record(versions=array(ref("Version"))),
    "VersionAnswer": record(version=ref("Version")),
    "PlanAnswer": record(plan=ref("Plan")),
    "SimulationAnswer": record(steps=array(record(time=TIME, plan=ref("Plan"))), plan=ref("Plan")),
    "HealthAnswer": ref("Health"),
    "AliveAnswer": record(msg=TEXT),
}
"""The ``data`` of every good JSON answer, by the name that ``Operation.success`` uses."""

FILE_HEADERS: dict[str, Schema] = {
    "Content-Disposition": said(TEXT, "attachment, with the file's name (RFC 6266)"),
    "ETag": said(TEXT, "From the SHA-256"),
    "Repr-Digest": said(TEXT, "sha-256 of the whole object (RFC 9530), where it is known"),
    "Last-Modified": TEXT,
    "Accept-Ranges": {"const": "bytes"},
}


def headers(fields: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Return header fields as the description lists them."""
    return {
        name: {"schema": schema, "required": name not in optional, "description": schema.get("description", "")}
        for name, schema in fields.items()
    }


def _file(description: str, **more: Schema) -> Schema:
    return {
        "description": description,
        "headers": headers({**FILE_HEADERS, **more}, ("Repr-Digest",)),
        "content": {"application/octet-stream": {"schema": BYTES}},
    }


OTHER_ANSWERS: dict[str, dict[int, Schema]] = {
    "Download": {
        200: _file("The stored bytes"),
        206: _file("The range that was asked for", **{"Content-Range": TEXT}),
        304: {"description": "If-None-Match named these bytes", "headers": headers({"ETag": TEXT})},
    },
    "MetricsText": {
        200: {"description": "Prometheus text format 0.0.4", "content": {"text/plain": {"schema": TEXT}}},
    },
    "OpenApiDocument": {
        200: {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}},
    },
}
"""Good answers that are no envelope with ``data``, by ``Operation.success`` and status."""

PARAMETERS: dict[str, Schema] = {
    "user": {"in": "path", "description": "A user's name", "example": "admin"},
    "collection": {"in": "path", "description": "A collection's name", "example": "example"},
    "version": {
        "in": "path",
        "description": "A version's number, with or without v before it, or latest; to delete, its number",
        "example": "latest",
    },
    "userName": {"in": "query", "description": "Whose sessions; other users' need systemAdmin. Default: one's own"},
    "sessionId": {"in": "query", "description": "Which session; other users' need systemAdmin. Default: this one"},
    "code": {"in": "query", "description": "The health code, where one is set; it may stand in Authorization instead"},
    "Range": {"in": "header", "description": "One range of bytes (RFC 9110, 14.2); several are answered with all"},
    "If-Range": {"in": "header", "description": "The Range counts only while this ETag or date is still right"},
    "If-None-Match": {"in": "header", "description": "Answer 304 when one of these ETags is the version's"},
    "Content-Digest": {"in": "header", "description": "sha-256=:BASE64: of the body (RFC 9530); not with a form"},
    "Repr-Digest": {"in": "header", "description": "The same as Content-Digest here; not with a form"},
    "X-Content-Sha256": {"in": "header", "description": "SHA-256 of the file, hex; with a form that of its part"},
}

GRANT = record(
    type={"const": "collection"}, name={"type": "string", "minLength": 1}, roles=array({"enum": ROLES_ON_COLLECTIONS})
)

BODIES: dict[str, Schema] = {
    "Login": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "username": said(TEXT, "NAME, or NAME$ACCESSKEY"),
                    "password": TEXT,
                    "operationsScope": said(
                        or_null(
                            {
                                "type": "object",
                                "properties": {"elements": or_null(array({**GRANT, "additionalProperties": False}))},
                                "additionalProperties": False,
                            }
                        ),
                        "What the token is narrowed to; without elements to nothing",
                    ),
                    "lifetime": said({"type": ["string", "null"]}, "Such as 1h; never longer than the server's own"),
                    "restrictByIP": said(or_null({**array(TEXT), "maxItems": 32}), "Addresses and networks"),
                    "singleUse": said({"type": ["boolean", "null"]}, "The token ends with its first upload"),
                },
                "required": ["username", "password"],
                "additionalProperties": False,
            }
        }
    },
    "Upload": {
        "application/octet-stream": {"schema": BYTES},
        "multipart/form-data": {"schema": {**record(file=said(BYTES, "An OpenPGP message"))}},
    },
    "Simulation": {
        "application/json": {"schema": record(uploads={**array(TIME), "maxItems": 1000})},
    },
}
"""Request bodies by media type; an upload is taken raw under any media type but that of a form."""
