"""Sessions: login, every request's check, refresh, logout, listing, clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import pytest

from tornado_backups.auth.tokens import TokenSigner
from tornado_backups.domain.addresses import parse_networks
from tornado_backups.domain.errors import (
    Busy,
    ConfigurationFault,
    DatabaseUnavailable,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    RequestError,
)
from tornado_backups.domain.model import AccessKey, Actor, Grant, Role, Session, User
from tornado_backups.ports import ConfigurationSource, Registry
from tornado_backups.services.sessions import Issued, LoginRequest, Sessions, split_login

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"
HERE = parse_networks(["192.0.2.0/24"])
UPLOADER = Grant("iwa-ait", frozenset({Role.BACKUP_UPLOADER}))
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


class Rows:
    """The session part of a registry, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Session] = {}
        self.fault: RequestError | None = None
        self.purged_before: datetime | None = None

    async def add_session(self, session: Session) -> None:
        self.rows.setdefault(session.id, session)

    async def session(self, session_id: str) -> Session | None:
        if self.fault:
            raise self.fault
        return self.rows.get(session_id)

    async def sessions(self, user: str, limit: int) -> list[Session]:
        newest = sorted(self.rows.values(), key=lambda session: session.created_at, reverse=True)
        return [session for session in newest if session.user == user][:limit]

    async def revoke_session(self, session_id: str, now: datetime) -> bool:
        if session_id not in self.rows:
            return False
        self.rows[session_id] = replace(self.rows[session_id], deactivated=True, updated_at=now)
        return True

    async def purge_sessions(self, expired_before: datetime) -> int:
        self.purged_before = expired_before
        return 0


class Users:
    """Users by name; a broken one raises."""

    def __init__(self, *users: User) -> None:
        self.users = {user.name: user for user in users}
        self.broken: set[str] = set()
        self.asked: list[str] = []

    async def user(self, name: str) -> User | None:
        self.asked.append(name)
        if name in self.broken:
            raise ConfigurationFault(f"{name}.yaml", 3, "is broken", "mend it")
        return self.users.get(name)

    def change(self, name: str, **changes: object) -> None:
        self.users[name] = replace(self.users[name], **changes)  # type: ignore[arg-type]


class CountingPasswords:
    """The password of the hash ``hash of x`` is ``x``; counts how often it is asked, and with what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.busy = False

    async def verify(self, password: str, phc_hash: str | None, client: str = "") -> bool:
        self.asked.append((phc_hash, client))
        if self.busy:
            raise Busy("too many")
        return bool(phc_hash) and phc_hash == f"hash of {password}"


class Audit:
    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def record(self, event: str, result: str, **fields: object) -> None:
        self.lines.append({"event": event, "result": result} | fields)


ALICE = User(
    "alice",
    email="alice@example.org",
    password_hash="hash of riotkit",
    roles=frozenset({Role.COLLECTION_MANAGER}),
    access_keys=(AccessKey("web", "hash of key", grants=(UPLOADER,)), AccessKey("cellar", "hash of key", HERE)),
)
ADMIN = User("admin", password_hash="hash of admin", roles=frozenset({Role.SYSTEM_ADMIN}))
GONE = User("gone", password_hash="hash of riotkit", deactivated=True)
BOUND = User("bound", password_hash="hash of riotkit", restrict_by_ip=HERE)
BARE = User("bare")


class House:
    """Everything around :class:`Sessions`."""

    def __init__(self) -> None:
        self.clock, self.rows, self.passwords, self.audit = Clock(), Rows(), CountingPasswords(), Audit()
        self.users = Users(ALICE, ADMIN, GONE, BOUND, BARE)
        self.signer = TokenSigner("a secret for tests, long enough for HS256")
        self.sessions = Sessions(
            cast(Registry, self.rows),
            cast(ConfigurationSource, self.users),
            self.signer,
            self.passwords,
            self.clock,
            self.audit,
            DAY.total_seconds(),
        )

    def login(
        self, username: str = "alice", password: str = "riotkit", address: str = HOME, **narrowing: Any
    ) -> Issued:
        return run(self.sessions.login(LoginRequest(username, password, **narrowing), address))

    def actor(self, issued: Issued, address: str = HOME) -> Actor:
        return run(self.sessions.authenticate(issued.token, address))

    def admitted(self, issued: Issued, address: str = HOME) -> bool:
        try:
            self.actor(issued, address)
        except NotAuthenticated:
            return False
        return True


T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


@pytest.fixture
def house() -> House:
    return House()


# -- login -----------------------------------------------------------------------------------------------------------


def test_a_login_records_a_session_that_the_token_belongs_to(house: House) -> None:
    issued = house.login()
    session = house.rows.rows[house.signer.session_id(issued.token)]
    assert session == issued.session
    assert (session.user, session.access_key_name, session.description) == ("alice", "", "Login")
    assert (session.requester_ip, session.created_at) == (HOME, house.clock.now())
    assert session.expires_at == (house.clock.now() + DAY).replace(microsecond=0)
    assert house.actor(issued) == Actor(ALICE, session)


def test_the_expiry_of_session_and_token_are_the_same(house: House) -> None:
    issued = house.login(lifetime=timedelta(hours=1))
    assert house.signer.verify(issued.token, house.clock.now()).expires_at == issued.session.expires_at


def test_an_access_key_logs_in_with_its_own_password_and_nothing_else(house: House) -> None:
    actor = house.actor(house.login("alice$web", "key"))
    assert (actor.user, actor.access_key) == (ALICE, ALICE.access_keys[0])
    with pytest.raises(NotAuthenticated):
        house.login("alice$web", "riotkit")
    with pytest.raises(NotAuthenticated):
        house.login("alice", "key")


REFUSED_LOGINS = {
    "unknown user": ("nobody", "riotkit", HOME),
    "wrong password": ("alice", "wrong", HOME),
    "empty password": ("alice", "", HOME),
    "deactivated": ("gone", "riotkit", HOME),
    "refused address": ("bound", "riotkit", ELSEWHERE),
    "unreadable address": ("bound", "riotkit", "unknown"),
    "no password set": ("bare", "", HOME),
    "unknown access key": ("alice$office", "key", HOME),
    "wrong key password": ("alice$web", "wrong", HOME),
    "refused key address": ("alice$cellar", "key", ELSEWHERE),
    "key of an unknown user": ("nobody$web", "key", HOME),
    "two dollars": ("alice$web$web", "key", HOME),
    "no key name": ("alice$", "riotkit", HOME),
    "no user name": ("$web", "key", HOME),
    "empty name": ("", "", HOME),
    "a very long name": ("a" * 300, "riotkit", HOME),
}


@pytest.mark.parametrize("reason", REFUSED_LOGINS)
def test_every_refused_login_gets_the_same_answer_after_exactly_one_argon2_run(house: House, reason: str) -> None:
    username, password, address = REFUSED_LOGINS[reason]
    with pytest.raises(NotAuthenticated) as caught:
        house.login(username, password, address)
    assert caught.value.sentence == "incorrect Username or Password"
    assert caught.value.__cause__ is None
    assert len(house.passwords.asked) == 1
    assert house.passwords.asked[0][1] == address
    assert not house.rows.rows


def test_a_successful_login_runs_argon2_once_too(house: House) -> None:
    house.login()
    assert house.passwords.asked == [("hash of riotkit", HOME)]


@pytest.mark.parametrize("reason", REFUSED_LOGINS)
def test_a_refused_login_is_audited_with_its_reason_but_not_with_a_name_that_may_be_a_password(
    house: House, reason: str
) -> None:
    username, password, address = REFUSED_LOGINS[reason]
    with pytest.raises(NotAuthenticated):
        house.login(username, password, address)
    (line,) = house.audit.lines
    assert (line["event"], line["result"], line["address"]) == ("login", "not-authenticated", address)
    assert line["why"] in {"unknown-user", "unknown-access-key", "wrong-password", "deactivated", "address"}
    assert line["user"] in {"", "alice", "gone", "bound", "bare"}


def test_a_successful_login_is_audited_with_its_session(house: House) -> None:
    issued = house.login("alice$web", "key")
    assert house.audit.lines == [
        {
            "event": "login",
            "result": "ok",
            "user": "alice",
            "session_id": issued.session.id,
            "address": HOME,
            "access_key": "web",
        }
    ]


def test_a_broken_user_file_is_a_fault_of_the_configuration_and_lets_nobody_in(house: House) -> None:
    house.users.broken.add("alice")
    with pytest.raises(ConfigurationFault):
        house.login()
    assert not house.rows.rows


def test_names_that_no_account_can_have_are_not_even_looked_up(house: House) -> None:
    with pytest.raises(NotAuthenticated):
        house.login("../alice$x$y")
    assert house.users.asked == []


def test_too_many_logins_at_once_are_told_to_come_back(house: House) -> None:
    house.passwords.busy = True
    with pytest.raises(Busy):
        house.login()


def test_a_token_is_not_shown_by_repr(house: House) -> None:
    issued = house.login()
    assert issued.token not in repr(issued)


@pytest.mark.parametrize(
    ("username", "expected"),
    [
        ("alice", ("alice", "")),
        ("alice$web", ("alice", "web")),
        ("", None),
        ("$", None),
        ("alice$", None),
        ("$web", None),
        ("a$b$c", None),
        ("a" * 254, None),
    ],
)
def test_a_login_name_has_at_most_one_dollar_and_no_empty_part(username: str, expected: tuple[str, str] | None) -> None:
    assert split_login(username) == expected


# -- narrowing -------------------------------------------------------------------------------------------------------


def test_a_scope_is_carried_by_the_token(house: House) -> None:
    assert house.actor(house.login(scope=(UPLOADER,))).scope == (UPLOADER,)


def test_a_shorter_lifetime_is_kept_and_a_longer_one_counts_as_the_default(house: House) -> None:
    shorter = house.login(lifetime=timedelta(hours=1)).session
    longer = house.login(lifetime=DAY * 900).session
    assert shorter.expires_at == (house.clock.now() + timedelta(hours=1)).replace(microsecond=0)
    assert longer.expires_at == (house.clock.now() + DAY).replace(microsecond=0)
    assert (shorter.narrowed_lifetime, longer.narrowed_lifetime) == (True, False)


def test_a_session_narrowed_by_address_is_refused_elsewhere_as_forbidden(house: House) -> None:
    issued = house.login(restrict_by_ip=HERE)
    assert house.admitted(issued)
    with pytest.raises(NotAuthorized):
        house.actor(issued, ELSEWHERE)


def test_a_token_may_be_made_for_another_place(house: House) -> None:
    issued = house.login(address=ELSEWHERE, restrict_by_ip=HERE)
    assert house.admitted(issued, HOME)


# -- every request ---------------------------------------------------------------------------------------------------


def test_a_token_without_a_session_row_is_refused_however_well_signed(house: House) -> None:
    token = house.signer.issue("admin", "", (), house.clock.now(), house.clock.now() + DAY)
    with pytest.raises(NotAuthenticated):
        run(house.sessions.authenticate(token, HOME))


def test_a_token_that_does_not_belong_to_its_row_is_refused(house: House) -> None:
    issued = house.login("alice$web", "key")
    house.rows.rows[issued.session.id] = replace(issued.session, access_key_name="")
    assert not house.admitted(issued)
    house.rows.rows[issued.session.id] = replace(issued.session, user="admin")
    assert not house.admitted(issued)


def test_a_session_ends_in_the_second_it_expires_by_row_as_well_as_by_token(house: House) -> None:
    issued = house.login()
    house.clock.time = issued.session.expires_at - timedelta(microseconds=1)
    assert house.admitted(issued)
    house.rows.rows[issued.session.id] = replace(issued.session, expires_at=house.clock.now())
    assert not house.admitted(issued)
    house.rows.rows[issued.session.id] = replace(issued.session, expires_at=house.clock.now() + DAY)
    house.clock.time = issued.session.expires_at
    assert not house.admitted(issued)


def test_a_revoked_session_is_refused_at_once(house: House) -> None:
    issued = house.login()
    run(house.sessions.logout(house.actor(issued)))
    assert not house.admitted(issued)


def test_a_deactivated_or_removed_user_has_no_session_from_the_next_request_on(house: House) -> None:
    whole, key = house.login(), house.login("alice$web", "key")
    house.users.change("alice", deactivated=True)
    assert not house.admitted(whole)
    assert not house.admitted(key)
    house.users.change("alice", deactivated=False)
    assert house.admitted(whole)
    del house.users.users["alice"]
    assert not house.admitted(whole)
    assert not house.admitted(key)


def test_a_deleted_or_renamed_access_key_ends_its_sessions_and_never_becomes_the_whole_user(house: House) -> None:
    whole, key = house.login(), house.login("alice$web", "key")
    house.users.change("alice", access_keys=(AccessKey("web2", "hash of key"),))
    assert not house.admitted(key)
    house.users.change("alice", access_keys=())
    assert not house.admitted(key)
    assert house.admitted(whole)


def test_restrictions_of_user_and_key_hold_on_every_request(house: House) -> None:
    whole, key = house.login(), house.login("alice$cellar", "key")
    with pytest.raises(NotAuthorized):
        house.actor(key, ELSEWHERE)
    assert house.admitted(whole, ELSEWHERE)
    house.users.change("alice", restrict_by_ip=HERE)
    with pytest.raises(NotAuthorized):
        house.actor(whole, ELSEWHERE)
    assert house.admitted(whole, f"::ffff:{HOME}")


def test_a_broken_user_file_passes_as_what_it_is(house: House) -> None:
    issued = house.login()
    house.users.broken.add("alice")
    with pytest.raises(ConfigurationFault):
        house.actor(issued)


def test_what_a_refused_session_was_refused_for_is_in_the_audit_trail_only(house: House) -> None:
    issued = house.login()
    run(house.sessions.logout(house.actor(issued)))
    with pytest.raises(NotAuthenticated) as caught:
        house.actor(issued)
    assert caught.value.sentence == "the token is invalid, expired or revoked"
    line = house.audit.lines[-1]
    assert (line["event"], line["why"], line["user"]) == ("refusal", "revoked", "alice")
    assert line["session_id"] == issued.session.id


# -- while a transfer runs -------------------------------------------------------------------------------------------


def test_a_transfer_goes_on_as_long_as_nothing_speaks_against_it(house: House) -> None:
    actor = house.actor(house.login(lifetime=timedelta(hours=1)))
    assert run(house.sessions.still_valid(actor, HOME))
    house.clock.time += timedelta(hours=2)
    assert run(house.sessions.still_valid(actor, HOME)), "one that began in time may end"


def test_a_transfer_must_end_when_session_user_key_or_address_are_no_longer_good(house: House) -> None:
    actor = house.actor(house.login("alice$cellar", "key"))
    assert not run(house.sessions.still_valid(actor, ELSEWHERE))
    house.users.change("alice", deactivated=True)
    assert not run(house.sessions.still_valid(actor, HOME))
    house.users.change("alice", deactivated=False, access_keys=())
    assert not run(house.sessions.still_valid(actor, HOME))
    house.users.users["alice"] = ALICE
    assert run(house.sessions.still_valid(actor, HOME))
    run(house.rows.revoke_session(actor.session.id, house.clock.now()))
    assert not run(house.sessions.still_valid(actor, HOME))
    house.rows.rows.clear()
    assert not run(house.sessions.still_valid(actor, HOME))


def test_a_database_that_is_away_and_a_file_that_is_being_edited_end_no_transfer(house: House) -> None:
    actor = house.actor(house.login())
    house.users.broken.add("alice")
    assert run(house.sessions.still_valid(actor, HOME))
    house.rows.fault = DatabaseUnavailable("away")
    assert run(house.sessions.still_valid(actor, HOME))


# -- refresh ---------------------------------------------------------------------------------------------------------


def refreshed(house: House, issued: Issued, address: str = HOME) -> Issued:
    return run(house.sessions.refresh(house.actor(issued, address), issued.token, address))


def test_a_refreshed_session_keeps_everything_that_narrows_it_and_the_old_one_stays_valid(house: House) -> None:
    first = house.login("alice$web", "key", scope=(UPLOADER,), restrict_by_ip=HERE)
    house.clock.time += timedelta(hours=5)
    second = refreshed(house, first, "192.0.2.77")
    old, new = house.actor(first), house.actor(second)
    assert (new.user, new.access_key, new.scope) == (old.user, old.access_key, old.scope)
    assert new.session.restrict_by_ip == HERE
    assert new.session.id != old.session.id
    assert new.session.expires_at == (house.clock.now() + DAY).replace(microsecond=0)
    assert (new.session.requester_ip, new.session.description) == ("192.0.2.77", "Refresh")
    with pytest.raises(NotAuthorized):
        house.actor(second, ELSEWHERE)


def test_refreshing_keeps_the_first_expiry_where_the_login_narrowed_it_again_and_again(house: House) -> None:
    issued = first = house.login(lifetime=timedelta(hours=1))
    for _ in range(3):
        house.clock.time += timedelta(minutes=15)
        issued = refreshed(house, issued)
        assert issued.session.expires_at == first.session.expires_at
    house.clock.time += timedelta(minutes=15)
    assert not house.admitted(issued)


def test_a_single_use_token_cannot_be_refreshed(house: House) -> None:
    with pytest.raises(NotAuthorized):
        refreshed(house, house.login(single_use=True))
    assert len(house.rows.rows) == 1
    assert (house.audit.lines[-1]["event"], house.audit.lines[-1]["result"]) == ("refresh", "not-authorized")


def test_a_refreshed_token_remembers_the_first_login(house: House) -> None:
    first = house.login()
    began = house.signer.verify(first.token, house.clock.now()).issued_at
    house.clock.time += timedelta(hours=3)
    assert house.signer.verify(refreshed(house, first).token, house.clock.now()).issued_at == began


def test_revoking_the_old_session_leaves_the_refreshed_one(house: House) -> None:
    first = house.login()
    second = refreshed(house, first)
    run(house.sessions.logout(house.actor(first)))
    assert not house.admitted(first)
    assert house.admitted(second)


# -- logout, listing, looking up -------------------------------------------------------------------------------------


def test_logout_ends_ones_own_session_and_may_be_repeated(house: House) -> None:
    actor = house.actor(house.login())
    assert run(house.sessions.logout(actor)) == actor.session.id
    assert run(house.sessions.logout(actor)) == actor.session.id
    assert house.rows.rows[actor.session.id].deactivated


def test_one_may_end_another_of_ones_own_sessions(house: House) -> None:
    here, there = house.login(), house.login()
    assert run(house.sessions.logout(house.actor(here), there.session.id)) == there.session.id
    assert not house.admitted(there)
    assert house.admitted(here)


def test_other_users_sessions_are_ended_by_a_system_admin_only(house: House) -> None:
    alice, admin = house.login(), house.login("admin", "admin")
    with pytest.raises(NotAuthorized):
        run(house.sessions.logout(house.actor(alice), admin.session.id))
    run(house.sessions.logout(house.actor(admin), alice.session.id))
    assert house.audit.lines[-1]["target"] == alice.session.id
    assert not house.admitted(alice)


def test_a_session_that_does_not_exist_cannot_be_ended(house: House) -> None:
    with pytest.raises(NotFound):
        run(house.sessions.logout(house.actor(house.login("admin", "admin")), "0" * 64))


@pytest.mark.parametrize("narrowed", ["scope", "key"])
def test_a_narrowed_session_ends_and_sees_nothing_but_itself(house: House, narrowed: str) -> None:
    house.users.change("admin", access_keys=(AccessKey("k", "hash of key"),))
    issued = house.login("admin", "admin", scope=(UPLOADER,)) if narrowed == "scope" else house.login("admin$k", "key")
    actor = house.actor(issued)
    for other in (house.login("admin", "admin"), house.login()):
        with pytest.raises(NotAuthorized):
            run(house.sessions.logout(actor, other.session.id))
        assert house.admitted(other)
    assert run(house.sessions.list_sessions(actor)) == [actor.session]
    assert run(house.sessions.list_sessions(actor, "admin")) == [actor.session]
    with pytest.raises(NotAuthorized):
        run(house.sessions.list_sessions(actor, "alice"))
    with pytest.raises(NotAuthorized):
        run(house.sessions.look_up(actor, "alice"))
    assert run(house.sessions.look_up(actor, "admin")).name == "admin"
    assert run(house.sessions.logout(actor, issued.session.id)) == issued.session.id


def test_sessions_are_listed_newest_first_revoked_ones_too(house: House) -> None:
    issued = []
    for _ in range(3):
        issued.append(house.login())
        house.clock.time += timedelta(minutes=1)
    actor = house.actor(issued[2])
    run(house.sessions.logout(actor, issued[0].session.id))
    listed = run(house.sessions.list_sessions(actor))
    assert [session.id for session in listed] == [one.session.id for one in reversed(issued)]
    assert [session.deactivated for session in listed] == [False, False, True]


def test_other_users_sessions_are_listed_for_a_system_admin_only(house: House) -> None:
    alice, admin = house.login(), house.login("admin", "admin")
    with pytest.raises(NotAuthorized):
        run(house.sessions.list_sessions(house.actor(alice), "admin"))
    assert run(house.sessions.list_sessions(house.actor(admin), "alice")) == [alice.session]


def test_oneself_can_always_be_looked_up_and_others_only_with_the_right_to(house: House) -> None:
    alice, admin = house.actor(house.login()), house.actor(house.login("admin", "admin"))
    assert run(house.sessions.look_up(alice, "alice")) == ALICE
    for name in ("admin", "nobody"):
        with pytest.raises(NotAuthorized):
            run(house.sessions.look_up(alice, name))
    assert run(house.sessions.look_up(admin, "alice")) == ALICE
    with pytest.raises(NotFound):
        run(house.sessions.look_up(admin, "nobody"))


def test_sessions_are_deleted_thirty_days_after_they_expired(house: House) -> None:
    now = house.clock.now()
    run(house.sessions.purge(now))
    assert house.rows.purged_before == now - timedelta(days=30)
