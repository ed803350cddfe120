"""Who may do what: every role, action, source and narrowing, against a second statement of the rule written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain, combinations, product
from pathlib import Path

import pytest

from tornado_backups.domain.model import (
    COLLECTION_ROLES,
    AccessEntry,
    AccessKey,
    Actor,
    Collection,
    Grant,
    Role,
    Session,
    User,
)
from tornado_backups.domain.permissions import (
    ROLE_ALLOWS,
    SYSTEM_ACTIONS,
    Action,
    declared_roles,
    effective_roles,
    is_narrowed,
    may,
    may_know_of_missing_collections,
    may_look_up,
    may_system,
)

DOCS = Path(__file__).parents[2] / "docs" / "permissions.md"
NOW = datetime(2025, 6, 6, tzinfo=UTC)
COLLECTION_ACTIONS = [action for action in Action if action not in SYSTEM_ACTIONS]

# The contract once more, one letter an action: Upload, upload Anytime, Download, List, Remove, See, Look up a user,
# see Others' sessions, revoKe them.
LETTERS = dict(zip("UADLRSPOK", Action, strict=True))
CONTRACT = {
    Role.SYSTEM_ADMIN: "UADLRSPOK",
    Role.USER_MANAGER: "P",
    Role.COLLECTION_MANAGER: "UDLRS",
    Role.BACKUP_UPLOADER: "ULS",
    Role.BACKUP_DOWNLOADER: "DLS",
    Role.UPLOADS_ANYTIME: "UALS",
}


def session(access_key_name: str = "") -> Session:
    return Session("0" * 64, "alice", access_key_name, "", "192.0.2.1", NOW, NOW, NOW)


def actor(
    profile: frozenset[Role] = frozenset(),
    key: tuple[Grant, ...] | None = None,
    scope: tuple[Grant, ...] = (),
) -> Actor:
    access_key = None if key is None else AccessKey("ci", "", grants=key)
    return Actor(User("alice", roles=profile), session("ci" if access_key else ""), access_key, scope)


def collection(*listed: Role, user_name: str = "alice") -> Collection:
    entries = (AccessEntry(user_name, frozenset(listed)),) if listed else ()
    return Collection("db", "db-${version}.asc", 3, access_control=entries)


def grant(*roles: Role, on: str = "db") -> tuple[Grant, ...]:
    return (Grant(on, frozenset(roles)),)


def contract_allows(role: Role | None, action: Action) -> bool:
    return role is not None and any(LETTERS[letter] == action for letter in CONTRACT[role])


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_what_the_contract_says() -> None:
    assert {role: frozenset(LETTERS[letter] for letter in letters) for role, letters in CONTRACT.items()} == ROLE_ALLOWS


def test_the_table_orders_the_roles_as_the_contract_does() -> None:
    assert all(ROLE_ALLOWS[Role.SYSTEM_ADMIN] >= allowed for allowed in ROLE_ALLOWS.values())
    assert ROLE_ALLOWS[Role.COLLECTION_MANAGER] > ROLE_ALLOWS[Role.BACKUP_UPLOADER]
    assert ROLE_ALLOWS[Role.COLLECTION_MANAGER] > ROLE_ALLOWS[Role.BACKUP_DOWNLOADER]
    assert ROLE_ALLOWS[Role.UPLOADS_ANYTIME] > ROLE_ALLOWS[Role.BACKUP_UPLOADER]
    anytime = {role for role, allowed in ROLE_ALLOWS.items() if Action.UPLOAD_ANYTIME in allowed}
    assert anytime == {Role.SYSTEM_ADMIN, Role.UPLOADS_ANYTIME}
    assert not any(ROLE_ALLOWS[role] & SYSTEM_ACTIONS for role in COLLECTION_ROLES)


def test_the_documented_table_is_the_one_that_decides() -> None:
    lines = [f"| | {' | '.join(f'`{role}`' for role in Role)} |", "|---|" + "---|" * len(Role)]
    for action in Action:
        marks = ("yes" if action in ROLE_ALLOWS[role] else "" for role in Role)
        lines.append(f"| {action} | {' | '.join(marks)} |".replace("  ", " "))
    assert "\n".join(lines) in DOCS.read_text(encoding="utf-8")


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_role_of_the_profile_allows_what_the_table_says(role: Role, action: Action) -> None:
    who = actor(frozenset({role}))
    assert may(who, action, collection()) == contract_allows(role, action)
    assert may_system(who, action) == contract_allows(role, action)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_role_in_the_access_list_allows_what_the_table_says_for_roles_on_collections(
    role: Role, action: Action
) -> None:
    expected = role in COLLECTION_ROLES and contract_allows(role, action)
    assert may(actor(), action, collection(role)) == expected
    assert not may(actor(), action, collection(role, user_name="bob"))
    assert not may_system(actor(), action)


@pytest.mark.parametrize("source", ["profile", "accessControl"])
@pytest.mark.parametrize("narrowing", ["key", "scope", "both"])
@pytest.mark.parametrize("action", COLLECTION_ACTIONS)
def test_profile_or_list_and_key_and_scope_must_all_allow(source: str, narrowing: str, action: Action) -> None:
    for held, key_role, scope_role in product(Role, [*Role, None], [*Role, None]):
        key = grant(*([key_role] if key_role else [])) if narrowing != "scope" else None
        scope = grant(*([scope_role] if scope_role else [])) if narrowing != "key" else ()
        who = actor(frozenset({held}) if source == "profile" else frozenset(), key, scope)
        where = collection() if source == "profile" else collection(held)
        layers = [held if source == "profile" or held in COLLECTION_ROLES else None]
        layers += [key_role if key_role in COLLECTION_ROLES else None] if key is not None else []
        layers += [scope_role if scope_role in COLLECTION_ROLES else None] if scope else []
        if action in (Action.LIST, Action.SEE_COLLECTION):  # "needs upload or download permission"
            expected = any(
                all(contract_allows(role, either) for role in layers) for either in (Action.UPLOAD, Action.DOWNLOAD)
            )
        else:
            expected = all(contract_allows(role, action) for role in layers)
        assert may(who, action, where) == expected, (held, key_role, scope_role)
        assert not may_system(who, action)
        assert is_narrowed(who)


@pytest.mark.parametrize("role", sorted(COLLECTION_ROLES))
def test_a_narrowing_to_another_collection_allows_nothing_here(role: Role) -> None:
    profile = frozenset({Role.SYSTEM_ADMIN})
    for who in (actor(profile, key=grant(role, on="web")), actor(profile, scope=grant(role, on="web"))):
        assert not any(may(who, action, collection()) for action in Action)


def test_several_roles_and_several_grants_of_one_collection_add_up() -> None:
    key = (*grant(Role.BACKUP_DOWNLOADER), *grant(Role.BACKUP_UPLOADER), *grant(Role.UPLOADS_ANYTIME, on="web"))
    who = actor(frozenset({Role.COLLECTION_MANAGER}), key)
    allowed = {action for action in Action if may(who, action, collection())}
    assert allowed == {Action.UPLOAD, Action.DOWNLOAD, Action.LIST, Action.SEE_COLLECTION}


def test_profile_and_access_list_add_up() -> None:
    who = actor(frozenset({Role.BACKUP_DOWNLOADER}))
    where = collection(Role.UPLOADS_ANYTIME)
    assert may(who, Action.DOWNLOAD, where)
    assert may(who, Action.UPLOAD_ANYTIME, where)
    assert not may(who, Action.DELETE, where)


def test_uploading_outside_a_window_needs_every_layer_too() -> None:
    profile = frozenset({Role.UPLOADS_ANYTIME})
    uploader, anytime = grant(Role.BACKUP_UPLOADER), grant(Role.UPLOADS_ANYTIME)
    assert may(actor(profile, anytime, anytime), Action.UPLOAD_ANYTIME, collection())
    for who in (actor(profile, uploader, anytime), actor(profile, anytime, uploader)):
        assert may(who, Action.UPLOAD, collection())
        assert not may(who, Action.UPLOAD_ANYTIME, collection())


def test_a_collection_manager_is_bound_by_the_window() -> None:
    assert not may(actor(frozenset({Role.COLLECTION_MANAGER})), Action.UPLOAD_ANYTIME, collection())


def test_an_access_key_without_objects_allows_nothing() -> None:
    who = actor(frozenset({Role.SYSTEM_ADMIN}), key=())
    assert not any(may(who, action, collection()) for action in Action)
    assert is_narrowed(who)
    assert effective_roles(who) == []


def test_a_session_whose_access_key_is_gone_never_falls_back_to_the_whole_user() -> None:
    who = Actor(User("alice", roles=frozenset({Role.SYSTEM_ADMIN})), session(access_key_name="ci"))
    assert is_narrowed(who)
    assert not any(may(who, action, collection()) or may_system(who, action) for action in Action)
    assert effective_roles(who) == []


# -- the whole system ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_everyone_may_look_up_oneself_and_managers_of_users_others(role: Role) -> None:
    who = actor(frozenset({role}))
    assert may_look_up(who, "alice")
    assert may_look_up(who, "bob") == (role in (Role.USER_MANAGER, Role.SYSTEM_ADMIN))
    narrowed = actor(frozenset({role}), scope=grant(Role.BACKUP_UPLOADER))
    assert may_look_up(narrowed, "alice")
    assert not may_look_up(narrowed, "bob")


def test_only_an_unnarrowed_session_with_a_role_on_collections_learns_that_one_does_not_exist() -> None:
    knowing = {role for role in Role if may_know_of_missing_collections(actor(frozenset({role})))}
    assert knowing == COLLECTION_ROLES | {Role.SYSTEM_ADMIN}
    assert not may_know_of_missing_collections(actor())
    assert not may_know_of_missing_collections(actor(frozenset(Role), key=grant(*COLLECTION_ROLES)))
    assert not may_know_of_missing_collections(actor(frozenset(Role), scope=grant(*COLLECTION_ROLES)))


# -- whoami ----------------------------------------------------------------------------------------------------------


def test_an_unnarrowed_session_has_the_roles_of_its_profile_in_a_fixed_order() -> None:
    roles = frozenset({Role.BACKUP_UPLOADER, Role.USER_MANAGER, Role.COLLECTION_MANAGER})
    assert effective_roles(actor(roles)) == ["userManager", "collectionManager", "backupUploader"]
    assert declared_roles(User("alice", roles=roles)) == effective_roles(actor(roles))
    assert effective_roles(actor()) == []


@pytest.mark.parametrize(
    ("profile", "key", "scope", "roles"),
    [
        ({Role.SYSTEM_ADMIN}, grant(Role.BACKUP_UPLOADER), (), ["backupUploader"]),
        ({Role.SYSTEM_ADMIN}, grant(Role.SYSTEM_ADMIN), (), []),
        ({Role.SYSTEM_ADMIN}, grant(*COLLECTION_ROLES), (), ["collectionManager", "uploadsAnytime"]),
        ({Role.COLLECTION_MANAGER}, grant(Role.UPLOADS_ANYTIME), (), ["backupUploader"]),
        ({Role.BACKUP_DOWNLOADER}, grant(Role.BACKUP_UPLOADER), (), []),
        ({Role.USER_MANAGER}, None, grant(Role.BACKUP_UPLOADER), []),
        ({Role.BACKUP_UPLOADER}, None, grant(Role.COLLECTION_MANAGER), ["backupUploader"]),
        ({Role.SYSTEM_ADMIN}, grant(Role.COLLECTION_MANAGER), grant(Role.UPLOADS_ANYTIME), ["backupUploader"]),
        ({Role.SYSTEM_ADMIN}, grant(Role.BACKUP_UPLOADER), grant(Role.BACKUP_UPLOADER, on="web"), []),
    ],
)
def test_a_narrowed_session_has_what_profile_key_and_scope_all_cover(
    profile: set[Role], key: tuple[Grant, ...] | None, scope: tuple[Grant, ...], roles: list[str]
) -> None:
    assert effective_roles(actor(frozenset(profile), key, scope)) == roles


def test_no_set_of_roles_allows_more_than_its_roles_do() -> None:
    for roles in chain.from_iterable(combinations(Role, count) for count in range(len(Role) + 1)):
        who = actor(frozenset(roles))
        for action in Action:
            assert may(who, action, collection()) == any(contract_allows(role, action) for role in roles)
