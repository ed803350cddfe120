"""The body of a login, read strictly: what narrows a token must never be dropped in silence.

Owns: types, bounds and names of the fields of ``POST /api/stable/auth/login``.
Does not own: whether name and password are right (``services/sessions``).
Explained in docs/api.md and docs/security.md, "Narrowed tokens".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from tornado_backups.domain.addresses import parse_networks
from tornado_backups.domain.errors import BadRequest
from tornado_backups.domain.model import COLLECTION_ROLES, Grant, Network, Role
from tornado_backups.domain.units import parse_duration

MAX_SCOPE_BYTES = 4096
"""The longest scope as JSON: the token that carries it has to fit into the header buffer of any proxy (8 KiB)."""

MAX_RESTRICTIONS = 32
SHORTEST_LIFETIME = timedelta(seconds=1)

_FIELDS = ("username", "password", "operationsScope", "lifetime", "restrictByIP", "singleUse")
_ROLES = ", ".join(role.value for role in Role if role in COLLECTION_ROLES)


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What a login asks for; ``scope`` is empty and ``lifetime`` None when it asks for no narrowing."""

    username: str
    password: str
    scope: tuple[Grant, ...] = ()
    lifetime: timedelta | None = None
    restrict_by_ip: tuple[Network, ...] = ()
    single_use: bool = False

    def __repr__(self) -> str:
        """Leave the password out of every traceback and log."""
        return f"LoginRequest({self.username!r})"


def parse_login(body: object) -> LoginRequest:
    """Read the JSON body of a login; raises ``BadRequest`` that names the field and what would be right.

    Fields it does not know are refused: a misspelt ``"singleUse"`` would give away more than the client meant to.
    ``null`` counts as not given. Names that no user can have are left to the login, which treats them as unknown.
    """
    if not isinstance(body, Mapping):
        _refuse("the body of a login must be a JSON object with `username` and `password`")
    _refuse_unknown(body, _FIELDS, "a login")
    given = {name: value for name, value in body.items() if value is not None}
    for name in ("username", "password"):
        if not isinstance(given.get(name), str):
            _refuse(f"a login needs the field `{name}`, a text")
    single_use = given.get("singleUse", False)
    if not isinstance(single_use, bool):
        _refuse("`singleUse` must be true or false")
    return LoginRequest(
        username=given["username"],
        password=given["password"],
        scope=_scope(given["operationsScope"]) if "operationsScope" in given else (),
        lifetime=_lifetime(given["lifetime"]) if "lifetime" in given else None,
        restrict_by_ip=_restrictions(given["restrictByIP"]) if "restrictByIP" in given else (),
        single_use=single_use,
    )


def _scope(value: object) -> tuple[Grant, ...]:
    if not isinstance(value, Mapping):
        _refuse('`operationsScope` must be an object such as {"elements": []}')
    _refuse_unknown(value, ("elements",), "`operationsScope`")
    elements = value.get("elements")
    if elements is None:
        return ()
    if not isinstance(elements, list):
        _refuse("`operationsScope.elements` must be a list")
    size_bytes = len(json.dumps(elements))
    if size_bytes > MAX_SCOPE_BYTES:
        _refuse(f"`operationsScope` has {size_bytes} bytes as JSON; at most {MAX_SCOPE_BYTES} fit into a token")
    return tuple(_grant(element, index) for index, element in enumerate(elements))


def _grant(element: object, index: int) -> Grant:
    where = f"`operationsScope.elements[{index}]`"
    if not isinstance(element, Mapping):
        _refuse(f"{where} must be an object with `type`, `name` and `roles`")
    _refuse_unknown(element, ("type", "name", "roles"), where)
    if element.get("type") != "collection":
        _refuse(f'{where} must have the `type` "collection"')
    name, roles = element.get("name"), element.get("roles")
    if not isinstance(name, str) or not name:
        _refuse(f"{where} must have the `name` of a collection")
    if not isinstance(roles, list):
        _refuse(f"{where} must have a list of `roles`, of {_ROLES}")
    return Grant(name, frozenset(_role(role, where) for role in roles))


def _role(role: object, where: str) -> Role:
    known = {known.value: known for known in COLLECTION_ROLES}
    if not isinstance(role, str) or role not in known:
        _refuse(f"{where} names the role {_shown(role)}; a scope takes {_ROLES}")
    return known[role]


def _lifetime(value: object) -> timedelta:
    if not isinstance(value, str):
        _refuse('`lifetime` must be a text such as "1h" or "90m"')
    try:
        lifetime = parse_duration(value)
    except ValueError as error:
        raise BadRequest(f"`lifetime`: {error}") from None
    if lifetime < SHORTEST_LIFETIME:
        _refuse("`lifetime` must be at least 1s")
    return lifetime


def _restrictions(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        _refuse('`restrictByIP` must be a list of addresses and networks such as ["192.0.2.0/24"]')
    if len(value) > MAX_RESTRICTIONS:
        _refuse(f"`restrictByIP` has {len(value)} entries; at most {MAX_RESTRICTIONS} are allowed")
    try:
        return parse_networks(value)
    except ValueError as error:
        raise BadRequest(f"`restrictByIP`: {error}") from None


def _refuse_unknown(value: Mapping[object, object], known: tuple[str, ...], where: str) -> None:
    for name in value:
        if name not in known:
            _refuse(f"{where} has no field {_shown(name)}; it takes {', '.join(known)}")


def _shown(value: object) -> str:
    return repr(value)[:64]


def _refuse(sentence: str) -> NoReturn:
    raise BadRequest(sentence)
