"""Small stand-ins for what services use: a configuration, a client, a port whose methods fail when told to.

Registries and stores are real (SQLite and a folder); only what cannot be brought about with them is faked here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tornado_backups.domain.errors import RequestError
from tornado_backups.domain.model import Actor, Collection, Role, Session, User, Version
from tornado_backups.domain.rotation import RotationPlan

NOW = datetime(2024, 5, 17, 12, 0, tzinfo=UTC)
COLLECTION = Collection("files", "files-${version}.gpg", max_backups_count=3)


class SteadyClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOW
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def forward(self, by: timedelta) -> None:
        """Let time pass."""
        self.time += by
        self.seconds += by.total_seconds()


def actor(single_use: bool = False) -> Actor:
    """Return an administrator."""
    session = Session("session-1", "alice", "", "", "127.0.0.1", NOW, NOW, NOW + timedelta(days=9999))
    return Actor(User("alice", roles=frozenset({Role.SYSTEM_ADMIN})), replace(session, single_use=single_use))


@dataclass
class Source:
    """A configuration of given collections; a value that is an error is raised."""

    collections: dict[str, Collection | Exception]

    async def collection(self, name: str) -> Collection | None:
        found = self.collections.get(name)
        if isinstance(found, Exception):
            raise found
        return found

    async def collection_names(self) -> list[str]:
        return sorted(self.collections)

    async def ping(self) -> None:
        return


@dataclass
class Client:
    """The other end of a connection."""

    there: bool = True
    allowed: bool = True

    def still_there(self) -> bool:
        return self.there

    async def still_allowed(self) -> bool:
        return self.allowed


@dataclass
class Listener:
    """Hears how uploads end."""

    heard: list[tuple[str, Any]] = field(default_factory=list)

    def stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        self.heard.append(("stored", version.number))

    def refused(self, collection: Collection, error: RequestError) -> None:
        self.heard.append(("refused", error.reason))


class Told:
    """A port around a real one; ``fail["method"]`` is raised instead, ``instead["method"]`` called; calls are kept.

    What a method returns is wrapped too when it is a sink, so that its calls are seen under the same name.
    """

    def __init__(self, inner: Any, calls: list[str] | None = None) -> None:
        self.inner = inner
        self.calls = calls if calls is not None else []
        self.fail: dict[str, Exception] = {}
        self.instead: dict[str, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*given: Any, **named: Any) -> Any:
            self.calls.append(name)
            if name in self.fail:
                raise self.fail[name]
            answer = await self.instead.get(name, method)(*given, **named)
            if not hasattr(answer, "complete"):
                return answer
            sink = Told(answer, self.calls)
            sink.fail, sink.instead = self.fail, self.instead
            return sink

        return call
