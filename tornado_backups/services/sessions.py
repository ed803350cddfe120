"""Sessions: who may log in, what a token still stands for, and how it ends.

Owns: the order of a login, the check of a token on every request, refreshing, revoking, listing, cleaning up.
Does not own: signatures (``auth/tokens``), Argon2 (``auth/passwords``), rate limits (``web``), the decision rule
(``domain/permissions``). Explained in docs/security.md, "Sessions".

Nothing here is remembered between two requests: a revoked session, a deactivated user, a deleted access key or a
changed restriction counts from the next request on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tornado_backups.domain.addresses import address_allowed
from tornado_backups.domain.errors import (
    ConfigurationFault,
    DatabaseUnavailable,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    RequestError,
)
from tornado_backups.domain.model import AccessKey, Actor, Grant, Session, User
from tornado_backups.domain.permissions import Action, is_narrowed, may_look_up, may_system
from tornado_backups.ports import AuditTrail, Clock, ConfigurationSource, Passwords, Registry, Tokens
from tornado_backups.services.login_request import LoginRequest, parse_login

__all__ = ["LOGIN_REFUSED", "SESSION_REFUSED", "Issued", "LoginRequest", "Sessions", "parse_login", "split_login"]

LOGIN_REFUSED = "incorrect Username or Password"
"""The one sentence for every refused login; existing scripts look for it."""

SESSION_REFUSED = "the token is invalid, expired or revoked"
LISTED_SESSIONS = 100
LONGEST_LOGIN = 253
KEPT_AFTER_EXPIRY = timedelta(days=30)
"""How long an expired session stays listed for audit before :meth:`Sessions.purge` deletes it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token and its session; the token exists nowhere else and is not shown by ``repr``."""

    token: str
    session: Session

    def __repr__(self) -> str:
        """Leave the token out of every traceback and log."""
        return f"Issued({self.session.id})"


class _Refused(Exception):
    """Why a token or a login is refused, for the audit trail alone; ``forbidden`` tells 403 from 401."""

    def __init__(self, why: str, forbidden: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.forbidden = forbidden


class Sessions:
    """All that happens to sessions; safe to use from any number of requests and servers at once."""

    def __init__(
        self,
        registry: Registry,
        source: ConfigurationSource,
        signer: Tokens,
        verifier: Passwords,
        clock: Clock,
        audit: AuditTrail,
        lifetime_seconds: float,
    ) -> None:
        self._registry = registry
        self._source = source
        self._signer = signer
        self._verifier = verifier
        self._clock = clock
        self._audit = audit
        self._lifetime = timedelta(seconds=lifetime_seconds)

    async def login(self, request: LoginRequest, address: str) -> Issued:
        """Open a session for ``name`` or ``name$accesskey``; a lifetime above the default counts as the default.

        The order is what keeps names secret: the user is looked up, then exactly one Argon2 check runs, whatever was
        found, then one and the same ``NotAuthenticated`` answers every reason. Rate limits are the caller's, before
        this. Raises ``ConfigurationFault`` when the user's file is broken and ``Busy`` when too many logins wait.
        """
        name, key_name = split_login(request.username) or ("", "")
        user = await self._source.user(name) if name else None
        key = _find_key(user, key_name) if user is not None and key_name else None
        account = key if key_name else user
        matches = await self._verifier.verify(request.password, account.password_hash if account else None, address)
        try:
            if user is None or account is None:
                raise _Refused("unknown-user" if user is None else "unknown-access-key")
            if not matches:
                raise _Refused("wrong-password")
            _check_user(user, key, address)
        except _Refused as refused:
            self._audit.record(
                "login", NotAuthenticated.reason, user=user.name if user else "", address=address, why=refused.why
            )
            raise _audited(NotAuthenticated(LOGIN_REFUSED)) from None
        issued = await self._open(self._draft(request, user, key, address), request.scope)
        self._audit.record(
            "login", "ok", user=user.name, session_id=issued.session.id, address=address, access_key=key_name
        )
        return issued

    async def refresh(self, actor: Actor, token: str, address: str) -> Issued:
        """Issue another token for the same user, access key, scope and addresses; the old one stays valid.

        Where the login asked for a shorter lifetime the new token ends with the first; raises ``NotAuthorized`` for
        a single-use token.
        """
        old, user = actor.session, actor.user.name
        if old.single_use:
            self._audit.record(
                "refresh", NotAuthorized.reason, user=user, session_id=old.id, address=address, why="single-use"
            )
            raise _audited(NotAuthorized("a single-use token cannot be refreshed; log in again"))
        now = self._clock.now()
        draft = replace(
            old,
            description="Refresh",
            requester_ip=address,
            created_at=now,
            updated_at=now,
            expires_at=old.expires_at if old.narrowed_lifetime else _whole_seconds(now + self._lifetime),
        )
        issued = await self._open(draft, actor.scope, self._signer.verify(token, now).issued_at)
        self._audit.record("refresh", "ok", user=user, session_id=issued.session.id, address=address, previous=old.id)
        return issued

    async def authenticate(self, token: str, address: str) -> Actor:
        """Return who acts with ``token`` from ``address``, as everything stands now.

        Raises ``NotAuthenticated`` for a token that is forged, expired, revoked or unknown here, whose user is gone
        or deactivated or whose access key is gone or renamed (it never falls back to the whole user), and
        ``NotAuthorized`` for an address outside the restrictions of user, access key or session.
        """
        now = self._clock.now()
        claims = self._signer.verify(token, now)
        session_id = self._signer.session_id(token)
        session = await self._registry.session(session_id)
        try:
            if session is None or (session.user, session.access_key_name) != (claims.login, claims.access_key_name):
                raise _Refused("unknown-session")
            if session.expires_at <= now:
                raise _Refused("expired")
            user, key = await self._holder(session, address)
        except _Refused as refused:
            error = NotAuthorized if refused.forbidden else NotAuthenticated
            self._audit.record(
                "refusal", error.reason, user=claims.login, session_id=session_id, address=address, why=refused.why
            )
            sentence = "this session may not be used from this address" if refused.forbidden else SESSION_REFUSED
            raise _audited(error(sentence)) from None
        return Actor(user, session, key, claims.scope)

    async def still_valid(self, actor: Actor, address: str) -> bool:
        """Return False once it is certain that a transfer that was begun must not go on: for use while it runs.

        That is: the session was revoked, its user deactivated or removed, its access key removed, its address shut
        out. A session that merely expired after the transfer began may end it. While the database or the user's file
        cannot be read nothing is certain, and the commit of an upload needs both of them anyway.
        """
        try:
            session = await self._registry.session(actor.session.id)
            if session is None:
                return False
            await self._holder(session, address)
        except _Refused as refused:
            _log.info("session %s must end its transfer: %s", actor.session.id, refused.why)
            return False
        except (DatabaseUnavailable, ConfigurationFault) as error:
            _log.warning("session %s could not be checked while a transfer runs: %s", actor.session.id, error.sentence)
        return True

    async def logout(self, actor: Actor, session_id: str | None = None, address: str = "") -> str:
        """Revoke a session, one's own when none is named, and return its id; repeatable.

        Other users' sessions take a right of the whole system, and a narrowed session ends nothing but itself: raises
        ``NotAuthorized``. Raises ``NotFound`` when there is no such session.
        """
        wanted = actor.session.id if session_id is None else session_id
        result = "internal"
        try:
            if wanted != actor.session.id:
                await self._check_may_revoke(actor, wanted)
            if not await self._registry.revoke_session(wanted, self._clock.now()):
                raise NotFound("there is no such session")
            result = "ok"
        except RequestError as error:
            result = _audited(error).reason
            raise
        finally:
            self._audit.record(
                "logout", result, user=actor.user.name, session_id=actor.session.id, address=address, target=wanted
            )
        return wanted

    async def list_sessions(self, actor: Actor, user_name: str | None = None) -> list[Session]:
        """Return a user's sessions, newest first, at most 100, revoked ones too; one's own when nobody is named.

        Others' take a right of the whole system (``NotAuthorized``); a narrowed session sees nothing but itself.
        """
        wanted = actor.user.name if user_name is None else user_name
        if wanted != actor.user.name and not may_system(actor, Action.SEE_OTHERS_SESSIONS):
            raise NotAuthorized("this session may not see the sessions of other users")
        if is_narrowed(actor):
            return [actor.session]
        return await self._registry.sessions(wanted, LISTED_SESSIONS)

    async def look_up(self, actor: Actor, name: str) -> User:
        """Return a user's profile; raises ``NotAuthorized`` for others without the right to, then ``NotFound``."""
        if not may_look_up(actor, name):
            raise NotAuthorized("this session may not look up other users")
        user = await self._source.user(name)
        if user is None:
            raise NotFound("there is no such user")
        return user

    async def purge(self, now: datetime) -> int:
        """Delete sessions that expired more than 30 days before ``now``; return how many. Repeatable."""
        return await self._registry.purge_sessions(now - KEPT_AFTER_EXPIRY)

    async def _holder(self, session: Session, address: str) -> tuple[User, AccessKey | None]:
        """Return whom a session belongs to, as configured now; raises ``_Refused`` unless it may be used."""
        if session.deactivated:
            raise _Refused("revoked")
        user = await self._source.user(session.user)
        if user is None:
            raise _Refused("unknown-user")
        key = _find_key(user, session.access_key_name) if session.access_key_name else None
        if session.access_key_name and key is None:
            raise _Refused("unknown-access-key")
        _check_user(user, key, address)
        if not address_allowed(session.restrict_by_ip, address):
            raise _Refused("address", forbidden=True)
        return user, key

    def _draft(self, request: LoginRequest, user: User, key: AccessKey | None, address: str) -> Session:
        """Return the session that a login asks for, still without its id."""
        now = self._clock.now()
        lifetime = self._lifetime if request.lifetime is None else min(request.lifetime, self._lifetime)
        return Session(
            id="",
            user=user.name,
            access_key_name=key.name if key else "",
            description="Login",
            requester_ip=address,
            created_at=now,
            updated_at=now,
            expires_at=_whole_seconds(now + lifetime),
            restrict_by_ip=request.restrict_by_ip,
            single_use=request.single_use,
            narrowed_lifetime=lifetime < self._lifetime,
        )

    async def _open(
        self, draft: Session, scope: tuple[Grant, ...], originally_issued_at: datetime | None = None
    ) -> Issued:
        """Sign a token for ``draft`` and record its session; the token is given out only after that."""
        token = self._signer.issue(
            draft.user, draft.access_key_name, scope, draft.created_at, draft.expires_at, originally_issued_at
        )
        session = replace(draft, id=self._signer.session_id(token))
        await self._registry.add_session(session)
        return Issued(token, session)

    async def _check_may_revoke(self, actor: Actor, session_id: str) -> None:
        if is_narrowed(actor):
            raise NotAuthorized("a session narrowed by an access key or a scope may end nothing but itself")
        session = await self._registry.session(session_id)
        if session is None:
            raise NotFound("there is no such session")
        if session.user != actor.user.name and not may_system(actor, Action.REVOKE_OTHERS_SESSIONS):
            raise NotAuthorized("this session may not end the sessions of other users")


def split_login(username: str) -> tuple[str, str] | None:
    """Split ``name`` or ``name$accesskey`` into both; None for what no account can be called.

    That is: more than one ``$``, an empty part, or more than 253 characters.
    """
    name, dollar, key_name = username.partition("$")
    if not name or "$" in key_name or (dollar and not key_name) or len(username) > LONGEST_LOGIN:
        return None
    return name, key_name


def _audited(error: RequestError) -> RequestError:
    """Mark an error whose line in the audit trail is written here, so that it gets no second one."""
    error.audited = True
    return error


def _find_key(user: User, name: str) -> AccessKey | None:
    return next((key for key in user.access_keys if key.name == name), None)


def _check_user(user: User, key: AccessKey | None, address: str) -> None:
    if user.deactivated:
        raise _Refused("deactivated")
    if not address_allowed(user.restrict_by_ip, address):
        raise _Refused("address", forbidden=True)
    if key is not None and not address_allowed(key.restrict_by_ip, address):
        raise _Refused("address", forbidden=True)


def _whole_seconds(time: datetime) -> datetime:
    """Cut to whole seconds, which is what a token can say."""
    return time.replace(microsecond=0)
