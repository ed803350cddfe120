"""The one table of routes: what is served, what is documented, what the permission tests walk over.

Owns: paths, and per method a summary and the reasons of the contract that can be its answer.
Does not own: the handlers' work; the OpenAPI text made from it (``web/openapi``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tornado.httputil import HTTPServerRequest
from tornado.routing import URLSpec
from tornado.web import Application

from tornado_backups.web.base import ApiHandler, NotFoundHandler, log_request, normalise
from tornado_backups.web.collections import CollectionsHandler, RotationHandler
from tornado_backups.web.context import Context
from tornado_backups.web.health import AliveHandler, CollectionHealthHandler, MetricsHandler, ReadyHandler
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

REPOSITORY = "/api/stable/repository"
OLD_REPOSITORY = "/api/alpha/repository"
AUTH = "/api/stable/auth"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route: a summary, and the failure reasons of its own (those of every request are added)."""

    summary: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A path template with ``{name}`` parameters (one segment each), its handler and its documented methods."""

    path: str
    handler: type[ApiHandler]
    operations: Mapping[str, Operation]


UPLOAD = Operation(
    "Store a new version",
    (
        "bad-request",
        "not-authorized",
        "window-closed",
        "protected",
        "not-found",
        "timeout",
        "upload-in-progress",
        "quota-exceeded",
        "not-encrypted",
        "truncated",
        "empty",
        "digest-mismatch",
        "configuration",
        "storage-full",
        "busy",
        "storage-unavailable",
        "shutting-down",
    ),
)
READ = ("not-authorized", "not-found", "configuration")

ROUTES = (
    Route(
        f"{AUTH}/login",
        LoginHandler,
        {"POST": Operation("Log in", ("bad-request", "not-authenticated", "configuration", "shutting-down"))},
    ),
    Route(
        f"{AUTH}/refresh_token",
        RefreshHandler,
        {"GET": Operation("Get a new token", ("not-authorized", "shutting-down"))},
    ),
    Route(f"{AUTH}/whoami", WhoamiHandler, {"GET": Operation("Show this session")}),
    Route(f"{AUTH}/user/{{user}}", UserHandler, {"GET": Operation("Look a user up", READ)}),
    Route(f"{AUTH}/token", TokensHandler, {"GET": Operation("List sessions", ("not-authorized",))}),
    Route(
        f"{AUTH}/logout",
        LogoutHandler,
        {"DELETE": Operation("Revoke a session", ("bad-request", "not-authorized", "not-found"))},
    ),
    Route(f"{REPOSITORY}/collection", CollectionsHandler, {"GET": Operation("List collections")}),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/version",
        VersionsHandler,
        {"GET": Operation("List versions", READ), "POST": UPLOAD, "PUT": UPLOAD},
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/version/{{version}}",
        VersionHandler,
        {
            "GET": Operation(
                "Download a version", (*READ, "range-not-satisfiable", "storage-unavailable", "shutting-down")
            ),
            "HEAD": Operation(
                "Describe a version", (*READ, "range-not-satisfiable", "storage-unavailable", "shutting-down")
            ),
            "DELETE": Operation("Delete a version", (*READ, "protected", "append-only")),
        },
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/rotation",
        RotationHandler,
        {
            "GET": Operation("Show what an upload now would keep and remove", READ),
            "POST": Operation("Simulate uploads", (*READ, "bad-request")),
        },
    ),
    Route(
        f"{REPOSITORY}/collection/{{collection}}/health",
        CollectionHealthHandler,
        {"GET": Operation("Check a collection's health", (*READ, "unhealthy")), "HEAD": Operation("The same", READ)},
    ),
    Route("/health", AliveHandler, {"GET": Operation("Is the process alive"), "HEAD": Operation("The same")}),
    Route(
        "/ready",
        ReadyHandler,
        {
            "GET": Operation("Can the server work", ("not-authorized", "unhealthy", "shutting-down")),
            "HEAD": Operation("The same", ("not-authorized", "unhealthy", "shutting-down")),
        },
    ),
    Route("/metrics", MetricsHandler, {"GET": Operation("Prometheus metrics", ("not-authorized",))}),
    Route("/openapi.json", OpenApiHandler, {"GET": Operation("This API's description")}),
)


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
