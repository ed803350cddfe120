"""Who may do what.

Owns: the table of roles and actions, and the one decision rule over profile, access list, access key and token scope.
Does not own: proving who someone is (``auth``, ``services/sessions``), whether a backup window is open
(``domain/windows``), append-only and protection (they bind administrators too). See docs/permissions.md, whose tables
a test compares with :data:`ROLE_ALLOWS`.

The rule: allowed = (a role in the user's profile **or** in the collection's ``accessControl`` allows it) **and** (the
access key, when one is in use, allows it for this object) **and** (the token's scope, when it has elements, allows it
for this object).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from tornado_backups.domain.model import COLLECTION_ROLES, Actor, Collection, Grant, Role, User


class Action(StrEnum):
    """Everything that needs a permission."""

    UPLOAD = "upload"
    UPLOAD_ANYTIME = "upload outside backup windows"
    DOWNLOAD = "download"
    LIST = "list versions"
    DELETE = "delete versions"
    SEE_COLLECTION = "see the collection"
    LOOK_UP_USER = "look up other users"
    SEE_OTHERS_SESSIONS = "see others' sessions"
    REVOKE_OTHERS_SESSIONS = "revoke others' sessions"


SYSTEM_ACTIONS = frozenset({Action.LOOK_UP_USER, Action.SEE_OTHERS_SESSIONS, Action.REVOKE_OTHERS_SESSIONS})
"""The actions that concern no collection; no access list, access key or scope can give them."""

_READING = frozenset({Action.LIST, Action.SEE_COLLECTION})
_UPLOADER = _READING | {Action.UPLOAD}
_DOWNLOADER = _READING | {Action.DOWNLOAD}

ROLE_ALLOWS: Mapping[Role, frozenset[Action]] = MappingProxyType(
    {
        Role.SYSTEM_ADMIN: frozenset(Action),
        Role.USER_MANAGER: frozenset({Action.LOOK_UP_USER}),
        Role.COLLECTION_MANAGER: _UPLOADER | _DOWNLOADER | {Action.DELETE},
        Role.BACKUP_UPLOADER: _UPLOADER,
        Role.BACKUP_DOWNLOADER: _DOWNLOADER,
        Role.UPLOADS_ANYTIME: _UPLOADER | {Action.UPLOAD_ANYTIME},
    }
)
"""What each role allows: the one table that decides, and from which docs and tests are made."""


def may(actor: Actor, action: Action, collection: Collection) -> bool:
    """Tell whether the actor may do this to the collection.

    Listing and seeing follow from uploading and downloading: a session that may do neither, because what its profile
    allows and what its access key allows do not meet, lists nothing either.
    """
    if action in _READING:
        return _allowed(actor, Action.UPLOAD, collection) or _allowed(actor, Action.DOWNLOAD, collection)
    return _allowed(actor, action, collection)


def may_system(actor: Actor, action: Action) -> bool:
    """Tell whether the actor may do this everywhere: never in a narrowed session, whatever its profile says."""
    return not is_narrowed(actor) and _any_allows(actor.user.roles, action)


def may_look_up(actor: Actor, user_name: str) -> bool:
    """Tell whether the actor may look up that user: oneself always, others with :data:`Action.LOOK_UP_USER`."""
    return user_name == actor.user.name or may_system(actor, Action.LOOK_UP_USER)


def may_know_of_missing_collections(actor: Actor) -> bool:
    """Tell whether the actor may learn that a collection does not exist; others are told that they may not use it.

    That is an un-narrowed session whose profile has a role on collections: it would see the collection if it existed.
    """
    return may_system(actor, Action.SEE_COLLECTION)


def is_narrowed(actor: Actor) -> bool:
    """Tell whether an access key or a scope narrows the session.

    A session that was opened with an access key stays narrowed when the key itself is gone.
    """
    return bool(actor.access_key or actor.session.access_key_name or actor.scope)


def declared_roles(user: User) -> list[str]:
    """Return the roles of a user's profile as the API writes them, in a fixed order."""
    return [role.value for role in Role if role in user.roles]


def effective_roles(actor: Actor) -> list[str]:
    """Return what the session has of its profile's roles, in a fixed order.

    An un-narrowed session has all of them. A narrowed one has those roles on collections that its profile, its access
    key and its scope all cover for at least one collection; roles that another of them includes are left out.
    """
    if not is_narrowed(actor):
        return declared_roles(actor.user)
    narrowings = [grants for grants in (_key_grants(actor), actor.scope or None) if grants is not None]
    names = {grant.collection for grant in narrowings[0]}
    held = {role for name in names for role in COLLECTION_ROLES if _covers(actor.user.roles, narrowings, name, role)}
    return [role.value for role in Role if role in held and not any(_includes(other, role) for other in held)]


def _allowed(actor: Actor, action: Action, collection: Collection) -> bool:
    """Apply the rule to one action."""
    listed = (entry.roles for entry in collection.access_control if entry.user_name == actor.user.name)
    key_grants = _key_grants(actor)
    return (
        (_any_allows(actor.user.roles, action) or any(_object_roles_allow(roles, action) for roles in listed))
        and (key_grants is None or _granted(key_grants, collection.name, action))
        and (not actor.scope or _granted(actor.scope, collection.name, action))
    )


def _key_grants(actor: Actor) -> tuple[Grant, ...] | None:
    """Return what the access key grants, None when none is in use; one that is gone grants nothing."""
    if actor.access_key is not None:
        return actor.access_key.grants
    return () if actor.session.access_key_name else None


def _granted(grants: Iterable[Grant], collection_name: str, action: Action) -> bool:
    return any(_object_roles_allow(grant.roles, action) for grant in grants if grant.collection == collection_name)


def _object_roles_allow(roles: frozenset[Role], action: Action) -> bool:
    """Tell whether roles given on one object allow the action: system roles given there count for nothing."""
    return _any_allows(roles & COLLECTION_ROLES, action)


def _any_allows(roles: Iterable[Role], action: Action) -> bool:
    return any(action in ROLE_ALLOWS[role] for role in roles)


def _covers(profile: frozenset[Role], narrowings: Iterable[Iterable[Grant]], collection_name: str, role: Role) -> bool:
    """Tell whether profile and narrowings each allow all that a role allows on a collection."""
    return all(
        _any_allows(profile, action) and all(_granted(grants, collection_name, action) for grants in narrowings)
        for action in ROLE_ALLOWS[role]
    )


def _includes(role: Role, other: Role) -> bool:
    return ROLE_ALLOWS[role] > ROLE_ALLOWS[other]
