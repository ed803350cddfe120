"""Domain values as the JSON objects of the API.

Owns: field names and time format (RFC 3339, UTC, ``Z``), as the contract and the Go server's clients spell them.
Does not own: which of them a session may see.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from json.encoder import encode_basestring as _quoted
from typing import Any

from tornado_backups.domain.errors import RequestError
from tornado_backups.domain.model import CheckResult, Session, Version
from tornado_backups.domain.rotation import RotationPlan


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 text in UTC, to the microsecond."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[: -len("+00:00")] + "Z"


def version_json(version: Version) -> dict[str, Any]:
    """Return a version as listings, uploads and deletions show it."""
    created_at = timestamp(version.created_at)
    return {
        "id": version.id,
        "collectionId": version.collection,
        "versionNumber": version.number,
        "filename": version.filename,
        "filesize": version.size_bytes,
        "sha256": version.sha256,
        "uploadedBySessionId": version.session_id,
        "user": version.uploader,
        "CreatedAt": created_at,
        "UpdatedAt": created_at if version.updated_at is version.created_at else timestamp(version.updated_at),
        "DeletedAt": None,
    }


def versions_text(versions: Iterable[Version]) -> str:
    """Return :func:`version_json` of all versions as the text of a JSON list.

    Written out, because a thousand objects made and then encoded take twice as long.
    """
    return f"[{', '.join([_version_text(version) for version in versions])}]"


def _version_text(version: Version) -> str:
    created_at = timestamp(version.created_at)
    updated_at = created_at if version.updated_at is version.created_at else timestamp(version.updated_at)
    return (
        f'{{"id": {_quoted(version.id)}, "collectionId": {_quoted(version.collection)},'
        f' "versionNumber": {version.number}, "filename": {_quoted(version.filename)},'
        f' "filesize": {version.size_bytes}, "sha256": {_quoted(version.sha256)},'
        f' "uploadedBySessionId": {_quoted(version.session_id)}, "user": {_quoted(version.uploader)},'
        f' "CreatedAt": "{created_at}", "UpdatedAt": "{updated_at}", "DeletedAt": null}}'
    )


def session_json(session: Session) -> dict[str, Any]:
    """Return a session as ``whoami`` and the token list show it."""
    return {
        "id": session.id,
        "user": session.user,
        "accessKeyName": session.access_key_name,
        "description": session.description,
        "requesterIP": session.requester_ip,
        "expiresAt": timestamp(session.expires_at),
        "deactivated": session.deactivated,
        "CreatedAt": timestamp(session.created_at),
        "UpdatedAt": timestamp(session.updated_at),
        "DeletedAt": None,
    }


def check_json(check: CheckResult) -> dict[str, Any]:
    """Return one line of a health answer."""
    return {
        "name": check.name,
        "status": check.ok,
        "statusText": f"{check.name}={'OK' if check.ok else 'FAIL'}",
        "message": check.message,
    }


def refusal_json(error: RequestError | None) -> dict[str, Any] | None:
    """Return why a planned upload would be refused, or None."""
    return None if error is None else {"reason": error.reason, "error": error.sentence}


def plan_json(plan: RotationPlan) -> dict[str, Any]:
    """Return a rotation plan: what stays and why and until when at the earliest, what goes and why."""
    return {
        "keep": [
            {
                "versionNumber": kept.number,
                "reason": kept.reason,
                "until": timestamp(kept.until) if kept.until else None,
            }
            for kept in plan.keep
        ],
        "remove": [{"versionNumber": removal.number, "reason": removal.reason} for removal in plan.removals],
        "allowedBytes": plan.allowed_bytes,
        "refusal": refusal_json(plan.refusal),
    }
