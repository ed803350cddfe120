"""Sessions over HTTP: login, refresh, whoami, look-up of users, list and revocation of sessions.

Owns: the JSON of these answers. Does not own: who may have them (``services/sessions``, ``domain/permissions``).
"""

from __future__ import annotations

from typing import Any

from tornado_backups.domain.errors import BadRequest, RequestError
from tornado_backups.domain.permissions import effective_roles
from tornado_backups.services.present import session_json, timestamp
from tornado_backups.services.sessions import Issued, parse_login
from tornado_backups.web.base import ApiHandler

MESSAGE_LOGGED_IN = "This is your authorization token, keep it secret. Its session id can be used to revoke it."


class LoginHandler(ApiHandler):
    """``/auth/login``: POST a name and a password, get a token."""

    public = True
    limit = "auth"
    starts_work = frozenset({"POST"})

    async def on_post(self) -> None:
        """Log in; the answer to a refusal is the same, and as slow, whatever the reason."""
        request = parse_login(self.json_body())
        try:
            issued = await self.context.sessions.login(request, self.address)
        except RequestError as error:
            self.context.metrics.add("logins_total", result=error.reason)
            raise
        self.context.metrics.add("logins_total", result="ok")
        self.answer(issued_json(issued))


class RefreshHandler(ApiHandler):
    """``/auth/refresh_token``: GET a new token for the same session rights."""

    limit = "auth"
    starts_work = frozenset({"GET"})

    async def on_get(self) -> None:
        """Issue it; the old one stays valid until it is revoked or expires."""
        self.answer(issued_json(await self.context.sessions.refresh(self.session_actor(), self.token, self.address)))


class WhoamiHandler(ApiHandler):
    """``/auth/whoami``: GET what this session is and may do."""

    async def on_get(self) -> None:
        """Answer with the profile and the session."""
        actor = self.session_actor()
        self.answer(
            {
                "email": actor.user.email,
                "permissions": effective_roles(actor),
                "sessionId": actor.session.id,
                "grantedAccess": session_json(actor.session),
            }
        )


class UserHandler(ApiHandler):
    """``/auth/user/{user}``: GET a user's e-mail and roles."""

    async def on_get(self) -> None:
        """Answer for oneself, or for those who may look others up."""
        found = await self.context.sessions.look_up(self.session_actor(), self.path_kwargs["user"])
        self.answer({"email": found.email, "permissions": sorted(found.roles)})


class TokensHandler(ApiHandler):
    """``/auth/token``: GET the sessions of a user, newest first."""

    async def on_get(self) -> None:
        """List one's own, or with ``userName`` another user's."""
        user_name = self.get_query_argument("userName", "") or None
        sessions = await self.context.sessions.list_sessions(self.session_actor(), user_name)
        self.answer({"grantedAccesses": [session_json(session) for session in sessions]})


class LogoutHandler(ApiHandler):
    """``/auth/logout``: DELETE revokes this session, or the one named by ``sessionId``."""

    async def on_delete(self) -> None:
        """Revoke it; it stays listed for audit."""
        session_id = self.get_query_argument("sessionId", "") or None
        if session_id is not None and len(session_id) > 128:
            raise BadRequest("sessionId is the SHA-256 of a token: 64 hex digits")
        revoked = await self.context.sessions.logout(self.session_actor(), session_id, self.address)
        self.answer({"message": "JWT was revoked", "sessionId": revoked})


def issued_json(issued: Issued) -> dict[str, Any]:
    """Return a new token with its session id and its end."""
    return {
        "token": issued.token,
        "sessionId": issued.session.id,
        "expire": timestamp(issued.session.expires_at),
        "msg": MESSAGE_LOGGED_IN,
    }
