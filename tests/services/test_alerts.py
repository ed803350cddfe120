"""Changes of health: what is told, once, signed, again and again until it is delivered, across restarts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.services.doubles import NOW, SteadyClock, Told
from tornado_backups.domain.errors import CallbackFailed, DatabaseUnavailable
from tornado_backups.domain.model import CheckResult, Usage, Version
from tornado_backups.registry.sqlite import SqliteRegistry
from tornado_backups.services import alerts as module
from tornado_backups.services.alerts import Alerts
from tornado_backups.services.health import Overview

URL = "https://example.org/hook"
SECRET = "a webhook secret"


@dataclass
class Hook:
    """The other end of the webhook."""

    received: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    works: bool = True

    async def call(self, url: str, body: str, headers: dict[str, str]) -> None:
        if not self.works:
            raise CallbackFailed("it answered 500")
        self.received.append((url, body, dict(headers)))

    def bodies(self) -> list[dict[str, Any]]:
        """Return what was received, as JSON."""
        return [json.loads(body) for _, body, _ in self.received]


@dataclass
class Room:
    """Alerts over a real registry."""

    alerts: Alerts
    registry: Told
    hook: Hook
    clock: SteadyClock

    async def notice(self, **healthy: bool) -> None:
        """Let a pass notice the health of collections, and deliver."""
        await self.alerts.notice({name: overview(name, is_so) for name, is_so in healthy.items()})
        await self.deliver()

    async def deliver(self) -> None:
        """Deliver what is due."""
        self.alerts.deliver()
        if self.alerts._delivering is not None:
            await self.alerts._delivering


def overview(name: str, healthy: bool, newest: Version | None = None) -> Overview:
    """Return figures whose second check holds or not."""
    checks = (CheckResult("SumOfVersionsValidator", True, "OK"), CheckResult("FreshnessValidator", healthy, "26h"))
    return Overview(Usage(name, 0, 0, newest), checks)


@pytest.fixture
def open_room(tmp_path: Path):
    """Open a room on the one database of this test."""

    @asynccontextmanager
    async def enter(url: str = URL, secret: str = SECRET, clock: SteadyClock | None = None) -> AsyncIterator[Room]:
        clock = clock or SteadyClock()
        registry = Told(SqliteRegistry(tmp_path / "registry.sqlite", clock, "owner"))
        await registry.inner.open()
        hook = Hook()
        ports: Any = (registry, hook)
        alerts = Alerts(*ports, clock, url, secret)
        try:
            yield Room(alerts, registry, hook, clock)
        finally:
            await alerts.close()
            await registry.inner.close()

    return enter


@pytest.mark.gen_test
async def test_only_changes_are_told_and_each_once(open_room) -> None:
    async with open_room() as room:
        await room.notice(files=True, photos=True)
        assert room.hook.received == []  # healthy and new is no news
        for _ in range(3):
            await room.notice(files=False, photos=True)
        await room.notice(files=False, photos=False)
        for _ in range(3):
            await room.notice(files=True, photos=False)
        told = [(body["collection"], body["healthy"]) for body in room.hook.bodies()]
        assert told == [("files", False), ("photos", False), ("files", True)]


@pytest.mark.gen_test
async def test_a_collection_that_is_unhealthy_when_first_seen_is_told(open_room) -> None:
    async with open_room() as room:
        await room.notice(files=False)
        assert [body["failed"] for body in room.hook.bodies()] == [["FreshnessValidator"]]


@pytest.mark.gen_test
async def test_a_restart_neither_repeats_a_change_nor_forgets_an_alert(open_room) -> None:
    clock = SteadyClock()
    async with open_room(clock=clock) as room:
        room.hook.works = False
        await room.notice(files=False)
    clock.forward(module.FIRST_WAIT)
    async with open_room(clock=clock) as room:
        await room.notice(files=False)
        assert [body["collection"] for body in room.hook.bodies()] == ["files"]
        await room.notice(files=False)
        assert len(room.hook.received) == 1


@pytest.mark.gen_test
async def test_the_body_is_signed_exactly_as_it_is_sent(open_room) -> None:
    async with open_room() as room:
        version = Version("1", "fïles", 7, "f-7.gpg", "k", 5, "ab" * 32, "s", "alice", NOW, NOW)
        await room.alerts.notice({"fïles": overview("fïles", False, version)})
        await room.deliver()
        url, body, headers = room.hook.received[0]
        assert url == URL
        expected = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
        assert headers == {"Content-Type": "application/json", "X-Signature-256": f"sha256={expected}"}
        said = json.loads(body)
        assert set(said) == {"time", "server", "collection", "healthy", "failed", "health", "latestVersion"}
        assert (said["collection"], said["latestVersion"]["versionNumber"]) == ("fïles", 7)
        assert [check["status"] for check in said["health"]] == [True, False]


@pytest.mark.gen_test
async def test_without_a_secret_nothing_is_signed_and_without_a_version_there_is_null(open_room) -> None:
    async with open_room(secret="") as room:
        await room.notice(files=False)
        _, body, headers = room.hook.received[0]
        assert headers == {"Content-Type": "application/json"}
        assert json.loads(body)["latestVersion"] is None


@pytest.mark.gen_test
async def test_without_a_url_changes_are_remembered_and_nothing_is_queued(open_room) -> None:
    async with open_room(url="") as room:
        await room.notice(files=False)
        assert (await room.registry.inner.health_states())["files"].healthy is False
        assert await room.registry.inner.due_alerts(NOW + timedelta(days=9), 10) == []
        assert room.alerts._delivering is None


@pytest.mark.gen_test
async def test_waits_double_up_to_an_hour_and_after_the_last_attempt_it_is_given_up(open_room) -> None:
    async with open_room() as room:
        room.hook.works = False
        await room.notice(files=False)
        waits = []
        for _ in range(module.MOST_ATTEMPTS - 1):
            (alert,) = await room.registry.inner.due_alerts(NOW + timedelta(days=99), 10)
            waits.append(alert.next_attempt_at - room.clock.now())
            room.clock.forward(waits[-1] - timedelta(microseconds=1))
            before = len(room.registry.calls)
            await room.deliver()
            assert room.registry.calls[before:] == ["due_alerts"]  # not a moment too early
            room.clock.forward(timedelta(microseconds=1))
            await room.deliver()
        assert waits[:4] == [timedelta(seconds=15 * 2**power) for power in range(4)]
        assert set(waits[8:]) == {module.LONGEST_WAIT}
        assert sum(waits, timedelta()) > timedelta(days=2)
        assert await room.registry.inner.due_alerts(NOW + timedelta(days=999), 10) == []


@pytest.mark.gen_test
async def test_one_alert_that_fails_holds_up_no_other(open_room) -> None:
    async with open_room() as room:
        plain = room.hook.call

        async def not_the_first(url: str, body: str, headers: dict[str, str]) -> None:
            if json.loads(body)["collection"] == "files":
                raise CallbackFailed("it answered 500")
            await plain(url, body, headers)

        room.hook.call = not_the_first  # type: ignore[method-assign]
        await room.notice(files=False, photos=False)
        assert [body["collection"] for body in room.hook.bodies()] == ["photos"]


@pytest.mark.gen_test
async def test_only_one_delivery_runs_at_a_time_and_close_breaks_it_off_and_keeps_the_alert(open_room) -> None:
    async with open_room() as room:
        called = asyncio.Event()

        async def hang(*given: object) -> None:
            called.set()
            await asyncio.Event().wait()

        room.hook.call = hang  # type: ignore[method-assign]
        await room.alerts.notice({"files": overview("files", False)})
        room.alerts.deliver()
        await called.wait()
        running = room.alerts._delivering
        room.alerts.deliver()
        assert room.alerts._delivering is running
        await room.alerts.close()
        assert len(await room.registry.inner.due_alerts(NOW, 10)) == 1


@pytest.mark.gen_test
async def test_a_database_that_is_away_leaves_the_alerts_for_the_next_pass(open_room) -> None:
    async with open_room() as room:
        await room.alerts.notice({"files": overview("files", False)})
        room.registry.fail["due_alerts"] = DatabaseUnavailable("the database does not answer")
        await room.deliver()
        room.registry.fail.clear()
        await room.deliver()
        assert len(room.hook.received) == 1
