"""The collections a session may see, and what rotation would do with one of them.

Owns: the JSON of both. Does not own: the plan (``domain/rotation``) or the figures (``services/health``).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from tornado_backups.domain.errors import BadRequest, ConfigurationFault
from tornado_backups.domain.model import Collection, FifoPlusOlder
from tornado_backups.domain.permissions import Action, may
from tornado_backups.domain.rotation import plan_rotation, simulate, strategy_name
from tornado_backups.domain.units import format_duration
from tornado_backups.services.health import Overview
from tornado_backups.services.present import plan_json, timestamp, version_json
from tornado_backups.web.base import ApiHandler

MOST_SIMULATED_UPLOADS = 1000

MOST_SIMULATED_LINES = 50_000
"""How long a simulation's answer may get, counted in versions named: it is made in memory."""


class CollectionsHandler(ApiHandler):
    """``…/collection``: GET lists the collections this session may see."""

    async def on_get(self) -> None:
        """List them by name; one whose configuration is broken is left out (the log and ``check-config`` name it)."""
        actor = self.session_actor()
        visible: list[Collection] = []
        for name in await self.context.source.collection_names():
            try:
                collection = await self.context.source.collection(name)
            except ConfigurationFault:
                continue  # reported once by the source itself; the others are to be seen all the same
            if collection is not None and may(actor, Action.SEE_COLLECTION, collection):
                visible.append(collection)
        overviews = await self.context.health.overview(visible)
        self.answer({"collections": [collection_json(each, overviews[each.name]) for each in visible]})


class RotationHandler(ApiHandler):
    """``…/collection/{collection}/rotation``: GET shows the plan for an upload now, POST simulates uploads."""

    async def on_get(self) -> None:
        """Answer with what an upload now would keep, and until when, and what it would remove."""
        collection = await self._collection()
        versions = await self.context.registry.versions(collection.name)
        number = await self.context.registry.next_number(collection.name)
        plan = plan_rotation(collection, versions, self.context.clock.now(), new_number=number)
        self.answer({"plan": plan_json(plan)})

    async def on_post(self) -> None:
        """Simulate uploads at the given times, in turn; nothing changes."""
        collection = await self._collection()
        uploads = upload_times(self.json_body())
        versions = await self.context.registry.versions(collection.name)
        next_number = await self.context.registry.next_number(collection.name)
        check_length(collection, len(versions), len(uploads))
        now = self.context.clock.now()
        # In a thread: a long one takes seconds, and transfers must not wait for it.
        steps = await asyncio.to_thread(simulate, collection, versions, uploads, now, next_number)
        last = steps[-1][1] if steps else plan_rotation(collection, versions, now, new_number=next_number)
        self.answer(
            {
                "steps": [{"time": timestamp(moment), "plan": plan_json(plan)} for moment, plan in steps],
                "plan": plan_json(last),
            }
        )

    async def _collection(self) -> Collection:
        return await self.context.catalogue.find(self.session_actor(), self.path_kwargs["collection"], Action.LIST)


def check_length(collection: Collection, versions_count: int, uploads_count: int) -> None:
    """Raise ``BadRequest`` when the answer to a simulation could name more versions than fit into one answer."""
    rule = collection.rotation
    places = collection.max_backups_count + (rule.max_older_copies if isinstance(rule, FifoPlusOlder) else 0)
    most_kept = min(versions_count + uploads_count, max(versions_count, places)) + 1
    if most_kept * uploads_count > MOST_SIMULATED_LINES:
        raise BadRequest(
            f"{uploads_count} uploads to a collection that keeps up to {most_kept} versions make too long an answer; "
            f"simulate {MOST_SIMULATED_LINES // most_kept} at a time"
        )


def upload_times(body: object) -> list[datetime]:
    """Return the times of ``{"uploads": [RFC 3339, …]}``; raises ``BadRequest``."""
    uploads = body.get("uploads") if isinstance(body, dict) else None
    if not isinstance(uploads, list) or len(uploads) > MOST_SIMULATED_UPLOADS:
        raise BadRequest(f'the body must be {{"uploads": [RFC 3339 times]}}, {MOST_SIMULATED_UPLOADS} at most')
    return [_moment(text) for text in uploads]


def _moment(text: object) -> datetime:
    try:
        if not isinstance(text, str) or "T" not in text.upper():
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest("each upload must be an RFC 3339 time with a zone, such as 2026-01-31T03:00:00Z") from None


def collection_json(collection: Collection, overview: Overview) -> dict[str, Any]:
    """Return a collection's limits, figures and state of health."""
    newest = overview.usage.newest
    return {
        "name": collection.name,
        "description": collection.description,
        "strategyName": strategy_name(collection.rotation),
        "maxBackupsCount": collection.max_backups_count,
        "maxOneVersionSize": collection.max_one_version_bytes,
        "maxCollectionSize": collection.max_collection_bytes,
        "versionsCount": overview.usage.versions_count,
        "usedBytes": overview.usage.used_bytes,
        "latestVersion": version_json(newest) if newest else None,
        "windows": [
            {"from": window.cron, "duration": format_duration(window.duration), "timezone": window.timezone}
            for window in collection.windows
        ],
        "healthy": all(check.ok for check in overview.checks),
    }
