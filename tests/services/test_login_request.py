"""The body of a login: every field read strictly, every refusal in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.domain.addresses import parse_networks
from tornado_backups.domain.errors import BadRequest
from tornado_backups.domain.model import Grant, Role
from tornado_backups.services.login_request import MAX_RESTRICTIONS, MAX_SCOPE_BYTES, LoginRequest, parse_login

PLAIN = {"username": "alice", "password": "riotkit"}


def element(**changes: object) -> dict[str, object]:
    return {"type": "collection", "name": "iwa-ait", "roles": ["backupUploader"]} | changes


def test_name_and_password_are_all_that_a_login_needs() -> None:
    assert parse_login(PLAIN) == LoginRequest("alice", "riotkit")


def test_every_narrowing_is_read() -> None:
    body = PLAIN | {
        "operationsScope": {"elements": [element(), element(name="other", roles=[])]},
        "lifetime": "1h30m",
        "restrictByIP": ["192.0.2.0/24", "2001:db8::1"],
        "singleUse": True,
    }
    assert parse_login(body) == LoginRequest(
        "alice",
        "riotkit",
        scope=(Grant("iwa-ait", frozenset({Role.BACKUP_UPLOADER})), Grant("other", frozenset())),
        lifetime=timedelta(minutes=90),
        restrict_by_ip=parse_networks(["192.0.2.0/24", "2001:db8::1"]),
        single_use=True,
    )


@pytest.mark.parametrize(
    "nothing",
    [
        {"operationsScope": None, "lifetime": None, "restrictByIP": None, "singleUse": None},
        {"operationsScope": {}},
        {"operationsScope": {"elements": []}},
        {"operationsScope": {"elements": None}},
        {"restrictByIP": []},
        {"singleUse": False},
    ],
)
def test_null_and_empty_narrowings_are_none(nothing: dict[str, object]) -> None:
    assert parse_login(PLAIN | nothing) == LoginRequest("alice", "riotkit")


@pytest.mark.parametrize("role", ["collectionManager", "backupUploader", "backupDownloader", "uploadsAnytime"])
def test_a_scope_takes_every_role_on_collections(role: str) -> None:
    (grant,) = parse_login(PLAIN | {"operationsScope": {"elements": [element(roles=[role])]}}).scope
    assert grant.roles == {Role(role)}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (None, "must be a JSON object"),
        ([], "must be a JSON object"),
        ("alice", "must be a JSON object"),
        ({}, "`username`"),
        ({"username": "alice"}, "`password`"),
        ({"password": "riotkit"}, "`username`"),
        ({"username": None, "password": "riotkit"}, "`username`"),
        ({"username": ["alice"], "password": "riotkit"}, "`username`"),
        ({"username": "alice", "password": 12345}, "`password`"),
        (PLAIN | {"singleuse": True}, "no field 'singleuse'"),
        (PLAIN | {"singleUse": "true"}, "`singleUse`"),
        (PLAIN | {"singleUse": 1}, "`singleUse`"),
        (PLAIN | {"lifetime": 3600}, "`lifetime`"),
        (PLAIN | {"lifetime": ""}, "`lifetime`"),
        (PLAIN | {"lifetime": "soon"}, "`lifetime`"),
        (PLAIN | {"lifetime": "0"}, "`lifetime`"),
        (PLAIN | {"lifetime": "999ms"}, "`lifetime`"),
        (PLAIN | {"lifetime": "-1h"}, "`lifetime`"),
        (PLAIN | {"lifetime": "9" * 1000 + "h"}, "`lifetime`"),
        (PLAIN | {"restrictByIP": "192.0.2.1"}, "`restrictByIP`"),
        (PLAIN | {"restrictByIP": [1]}, "`restrictByIP`"),
        (PLAIN | {"restrictByIP": ["example.org"]}, "`restrictByIP`: 'example.org' is no address"),
        (PLAIN | {"restrictByIP": ["192.0.2.1"] * (MAX_RESTRICTIONS + 1)}, "at most 32"),
        (PLAIN | {"operationsScope": []}, "`operationsScope`"),
        (PLAIN | {"operationsScope": {"element": []}}, "no field 'element'"),
        (PLAIN | {"operationsScope": {"elements": {}}}, "must be a list"),
        (PLAIN | {"operationsScope": {"elements": ["iwa-ait"]}}, "`operationsScope.elements[0]`"),
        (
            PLAIN | {"operationsScope": {"elements": [element(), element(type="user")]}},
            "elements[1]` must have the `type`",
        ),
        (PLAIN | {"operationsScope": {"elements": [{"name": "iwa-ait", "roles": []}]}}, "`type`"),
        (PLAIN | {"operationsScope": {"elements": [element(name="")]}}, "`name`"),
        (PLAIN | {"operationsScope": {"elements": [element(name=3)]}}, "`name`"),
        (PLAIN | {"operationsScope": {"elements": [element(roles="backupUploader")]}}, "list of `roles`"),
        (PLAIN | {"operationsScope": {"elements": [element(roles=None)]}}, "list of `roles`"),
        (PLAIN | {"operationsScope": {"elements": [element(roles=["systemAdmin"])]}}, "role 'systemAdmin'"),
        (PLAIN | {"operationsScope": {"elements": [element(roles=["userManager"])]}}, "role 'userManager'"),
        (PLAIN | {"operationsScope": {"elements": [element(roles=["backupUploder"])]}}, "takes collectionManager"),
        (PLAIN | {"operationsScope": {"elements": [element(roles=[["backupUploader"]])]}}, "names the role"),
        (PLAIN | {"operationsScope": {"elements": [element(role="backupUploader")]}}, "no field 'role'"),
        (PLAIN | {"operationsScope": {"elements": [element()] * 100}}, f"at most {MAX_SCOPE_BYTES}"),
    ],
)
def test_a_wrong_body_is_refused_by_naming_the_field(body: object, named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_login(body)
    assert named in caught.value.sentence
    assert "riotkit" not in caught.value.sentence


def test_the_password_is_not_shown_by_repr() -> None:
    assert "riotkit" not in repr(parse_login(PLAIN))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["username", "password", "operationsScope", "lifetime", "restrictByIP", "singleUse", "elements"]
)


@settings(max_examples=200, deadline=None)
@given(body=JSON | st.dictionaries(FIELDS, JSON) | st.dictionaries(FIELDS, JSON).map(lambda more: more | PLAIN))
def test_any_json_is_read_or_refused_and_never_crashes(body: object) -> None:
    try:
        outcome: object = parse_login(body)
    except BadRequest as error:
        outcome = error
    assert isinstance(outcome, LoginRequest) or len(str(outcome)) < 400
