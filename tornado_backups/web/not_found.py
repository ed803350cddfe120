"""Every path that no route names.

Owns: the answer to it. Does not own: the routes (``web/routes``).
"""

from __future__ import annotations

from tornado_backups.domain.errors import NotFound
from tornado_backups.web.base import NO_PATH, ApiHandler


class NotFoundHandler(ApiHandler):
    """Every path that no route names."""

    public = True

    async def before_body(self) -> None:
        """Refuse."""
        raise NotFound(NO_PATH)

    async def on_get(self) -> None:
        """Exist, so that the path and not the method is what is wrong."""

    on_head = on_post = on_put = on_delete = on_get
