"""The one table of routes: what is served, what is documented, what the permission tests walk over.

Owns: paths, and per method what it takes and answers, by name, failure reasons included.
Does not own: the handlers' work; the OpenAPI text made from it (``web/openapi``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tornado.httputil import HTTPServerRequest
from tornado.routing import URLSpec
from tornado.web import Application, RequestHandler

from tornado_backups.web.base import ApiHandler
from tornado_backups.web.collections import CollectionsHandler, RotationHandler
from tornado_backups.web.context import Context
from tornado_backups.web.health import AliveHandler, CollectionHealthHandler, MetricsHandler, ReadyHandler
from tornado_backups.web.not_found import NotFoundHandler
from tornado_backups.web.openapi_handler import OpenApiHandler
from tornado_backups.web.sessions import (
    LoginHandler,
    LogoutHandler,
    RefreshHandler,
    TokensHandler,
    UserHandler,
    WhoamiHandler,
)
from tornado_backups.web.versions import VersionHandler, VersionsHandler

log = logging.getLogger(__name__)

REPOSITORY = "/api/stable/repository"
OLD_REPOSITORY = "/api/alpha/repository"
AUTH = "/api/stable/auth"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route, as it is described to people and programs.

    ``name`` is its ``operationId``. ``success`` names its good answers, ``body`` what it takes, ``parameters`` its
    query and header fields: all three are keys of ``web/openapi_schemas``. ``reasons`` are its own failures; those
    that any request may meet are added by :func:`reasons_of`.
    """

    name: str
    summary: str
    success: str
    reasons: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A path template with ``{name}`` parameters (one segment each), its handler and its documented methods."""

    path: str
    handler: type[ApiHandler]
    operations: Mapping[str, Operation]


ANY_REQUEST = ("bad-request", "method-not-allowed", "timeout", "rate-limited", "internal")
"""Failures that every request may meet: those of HTTP itself, a rate limit, a fault of the program."""

ANY_SESSION = ("not-authenticated", "not-authorized", "configuration", "database-unavailable")
"""What besides may meet any request with a session: its token, its address, its user's file, the table of sessions."""

UPLOAD = Operation(
    "uploadVersion",
    "Store a new version",
    "VersionAnswer",
    (
        "window-closed",
        "protected",
        "not-found",
        "upload-in-progress",
        "quota-exceeded",
        "not-encrypted",
        "truncated",
        "empty",
        "digest-mismatch",
        "storage-full",
        "busy",
        "storage-unavailable",
    ),
    parameters=("Content-Digest", "Repr-Digest", "X-Content-Sha256"),
    body="Upload",
)
DOWNLOAD_REASONS = ("not-found", "range-not-satisfiable", "storage-unavailable")
DOWNLOAD_FIELDS = ("Range", "If-Range", "If-None-Match")
HEALTH_REASONS = ("not-authorized", "not-found", "configuration", "database-unavailable", "unhealthy")

ROUTES = (
    Route(
        f"{AUTH}/login",
        LoginHandler,
        {
            "POST": Operation(
                "login",
                "Log in",
                "TokenAnswer",
                ("not-authenticated", "configuration", "busy", "database-unavailable"),
                body="Login",
            )
        },
    ),
    Route(
        f"{AUTH}/refresh_token",
        RefreshHandler,
        {"GET": Operation("refreshToken", "Get a new token with the rights of this one", "TokenAnswer")},
    ),
    Route(
        f"{AUTH}/whoami",
        WhoamiHandler,
        {"GET": Operation("whoami", "Show this session and what it may do", "WhoamiAnswer")},
    ),
    Route(
        f"{AUTH}/user/{{user}}",
        UserHandler,
        {"GET": Operation("getUser", "Look a user up", "UserAnswer", ("not-found",))},
    ),
    Route(
        f"{AUTH}/token",
        TokensHandler,
        {"GET": Operation("listSessions", "List a user's sessions", "SessionsAnswer", parameters=("userName",))},
    ),
    Route(
        f"{AUTH}/logout",
        LogoutHandler,
        {"DELETE": Operation("logout", "Revoke a session", "LogoutAnswer", ("not-found",), ("sessionId",))},
    ),
    Route(
        f"{REPOSITORY}/collection",
        CollectionsHandler,
        {"GET": Operation("listCollections", "List the collections this session may see", "CollectionsAnswer")},
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/version",
        VersionsHandler,
        {
            "GET": Operation("listVersions", "List the versions of a collection", "VersionsAnswer", ("not-found",)),
            "POST": UPLOAD,
            "PUT": UPLOAD,
        },
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/version/{{version}}",
        VersionHandler,
        {
            "GET": Operation("downloadVersion", "Download a version", "Download", DOWNLOAD_REASONS, DOWNLOAD_FIELDS),
            "HEAD": Operation("describeVersion", "Describe a version", "Download", DOWNLOAD_REASONS, DOWNLOAD_FIELDS),
            "DELETE": Operation(
                "deleteVersion", "Delete a version", "VersionAnswer", ("not-found", "protected", "append-only")
            ),
        },
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/rotation",
        RotationHandler,
        {
            "GET": Operation(
                "planRotation", "Show what an upload now would keep and remove", "PlanAnswer", ("not-found",)
            ),
            "POST": Operation(
                "simulateRotation",
                "Simulate uploads; nothing changes",
                "SimulationAnswer",
                ("not-found",),
                body="Simulation",
            ),
        },
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/health",
        CollectionHealthHandler,
        {
            method: Operation(
                "checkCollection", "Check a collection's health", "HealthAnswer", HEALTH_REASONS, ("code",)
            )
            for method in ("GET", "HEAD")
        },
    ),
    Route(
        "/health",
        AliveHandler,
        {method: Operation("alive", "Tell that the process answers", "AliveAnswer") for method in ("GET", "HEAD")},
    ),
    Route(
        "/ready",
        ReadyHandler,
        {
            method: Operation(
                "ready",
                "Tell whether database, storage and configuration can be used",
                "HealthAnswer",
                ("not-authorized", "unhealthy", "shutting-down"),
                ("code",),
            )
            for method in ("GET", "HEAD")
        },
    ),
    Route(
        "/metrics",
        MetricsHandler,
        {
            "GET": Operation(
                "metrics", "Prometheus metrics", "MetricsText", ("not-authorized", "database-unavailable"), ("code",)
            )
        },
    ),
    Route("/openapi.json", OpenApiHandler, {"GET": Operation("openapi", "This description", "OpenApiDocument")}),
)


def reasons_of(route: Route, method: str) -> tuple[str, ...]:
    """Return every failure reason that a method of a route can answer with, each once, its own ones first."""
    reasons = [*route.operations[method].reasons]
    if not route.handler.public:
        reasons += ANY_SESSION
    if method in route.handler.starts_work:
        reasons.append("shutting-down")
    return tuple(dict.fromkeys((*reasons, *ANY_REQUEST)))


def pattern(path: str) -> str:
    """Return the regular expression of a path template; a slash at the end is tolerated."""
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)) + "/?$"


def paths(route: Route) -> tuple[str, ...]:
    """Return the template and, below the repository, its older spelling."""
    if not route.path.startswith(REPOSITORY):
        return (route.path,)
    return route.path, OLD_REPOSITORY + route.path.removeprefix(REPOSITORY)


class WebApplication(Application):
    """Tornado's application over :data:`ROUTES`."""

    def __init__(self, context: Context) -> None:
        kwargs = {"context": context}
        specs = [URLSpec(pattern(path), route.handler, kwargs) for route in ROUTES for path in paths(route)]
        super().__init__(
            specs,
            default_handler_class=NotFoundHandler,
            default_handler_args=kwargs,
            log_function=log_request,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: object):  # type: ignore[no-untyped-def]
        """Route by the normalised path."""
        normalise(request)
        return super().find_handler(request, **kwargs)


def log_request(handler: RequestHandler) -> None:
    """Write the access log: one line, never the query string."""
    milliseconds = 1000.0 * handler.request.request_time()
    log.info("%d %s %.1f ms", handler.get_status(), handler._request_summary(), milliseconds)


def normalise(request: HTTPServerRequest) -> None:
    """Bring the path into the form that routes know: absolute-form (RFC 9112, 3.2.2) reduced, ``//`` made one."""
    path = request.path
    if not path.startswith("/") and "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    while "//" in path:
        path = path.replace("//", "/")
    request.path = path
