"""``/openapi.json``: this API as OpenAPI 3.1, made from the table of routes.

Owns: serving it. Does not own: its text (``web/openapi``, which ``app`` passes in: it is made from the routes, this one
among them).
"""

from __future__ import annotations

import json

from tornado_backups.web.base import ApiHandler


class OpenApiHandler(ApiHandler):
    """The description, public as the contract says."""

    public = True

    async def on_get(self) -> None:
        """Write it."""
        self.finish(json.dumps(self.context.describe_api()))
