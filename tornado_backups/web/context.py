"""What handlers get from the wiring in ``app``: services, limits, and the process's own state.

Owns: nothing but the list of what is passed in, so that handlers neither build nor look up anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tornado.http1connection import HTTP1Connection

from tornado_backups.domain.errors import RequestError
from tornado_backups.domain.model import Network
from tornado_backups.ports import AuditTrail, Clock, ConfigurationSource, ObjectStore, Registry
from tornado_backups.services.catalogue import Catalogue
from tornado_backups.services.download import Downloads
from tornado_backups.services.metrics import Metrics
from tornado_backups.services.upload import Uploads

if TYPE_CHECKING:
    from tornado_backups.services.health import Health
    from tornado_backups.services.sessions import Sessions


class Limiter(Protocol):
    """A rate limit; ``auth/ratelimit`` has the real one."""

    def check(self, address: str) -> None:
        """Count a request of ``address``; raises ``RateLimited``."""


class Transfer(Protocol):
    """A request that moves a file."""

    @property
    def wire(self) -> HTTP1Connection:
        """The connection it moves on."""

    def cut(self, error: RequestError) -> None:
        """End it from outside."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The settings that handlers look at; durations in seconds."""

    idle_timeout: float
    http_upload_timeout: float
    http_download_timeout: float
    chunked_commit_grace: float
    append_only: bool = False
    health_check_key: str = ""
    trusted_proxies: tuple[Network, ...] = ()
    unix_trusted: bool = False
    recheck_session_seconds: float = 5.0


@dataclass(slots=True)
class Context:
    """Everything a handler may use; ``draining`` turns true with the first SIGTERM."""

    settings: WebSettings
    clock: Clock
    registry: Registry
    sessions: Sessions
    store: ObjectStore
    source: ConfigurationSource
    catalogue: Catalogue
    uploads: Uploads
    downloads: Downloads
    health: Health
    metrics: Metrics
    audit: AuditTrail
    limiters: Mapping[str, Limiter]
    describe_api: Callable[[], dict[str, Any]]
    draining: bool = False
    transfers: set[Transfer] = field(default_factory=set)
    tasks: set[asyncio.Future[None]] = field(default_factory=set)
