"""Users and collections from an API server: over HTTPS, with tokens, pages, watches, 410, bookmarks and outages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.servers.kubernetes import FakeKubernetes
from tornado_backups.config import kubernetes_api, kubernetes_secrets, kubernetes_watch
from tornado_backups.config.kubernetes import STALE_SECONDS, KubernetesSource
from tornado_backups.config.kubernetes_access import PodAccount
from tornado_backups.domain.errors import ConfigurationFault, StartupError
from tornado_backups.domain.model import Role

HASH = "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHRzYWx0c2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"
OTHER_HASH = HASH.replace("MDEy", "MTEy")
PLURALS = ("backupusers", "backupcollections")


class Ticks:
    """A monotonic clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A cluster, an account in it, and a source that reads it."""

    def __init__(self, folder: Path) -> None:
        self.cluster = FakeKubernetes(folder / "cluster")
        self.account = folder / "account"
        self.account.mkdir()
        self.ticks = Ticks()
        self.faults: list[ConfigurationFault] = []
        self.source: KubernetesSource

    async def start(self) -> None:
        await self.cluster.start()
        self.token("first-token")
        (self.account / "ca.crt").write_bytes(self.cluster.authority.ca_file.read_bytes())
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.cluster.port)}
        access = PodAccount(environment, self.account)
        self.source = KubernetesSource(self.cluster.namespace, self.faults.append, access, monotonic=self.ticks)

    def token(self, text: str) -> None:
        (self.account / "token").write_text(text + "\n")

    async def open(self) -> KubernetesSource:
        await self.source.open()
        await self.until(lambda: len(self.cluster.open_watches) == 2)
        return self.source

    async def stop(self) -> None:
        await self.source.close()
        await self.source.close()
        await self.cluster.stop()

    @staticmethod
    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)

    def lists(self, plural: str) -> int:
        return sum(request[:2] == ("list", plural) for request in self.cluster.requests)

    def versions(self) -> list[str]:
        return [item.version for copy in self.source._copies.values() for item in copy.items.values()]


@pytest.fixture
def world(io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(kubernetes_watch.Reflector.__init__, "__defaults__", (0.01, 0.05))
    made = World(tmp_path)
    io_loop.run_sync(made.start)
    yield made
    io_loop.run_sync(made.stop)


def collection_spec(**more: Any) -> dict[str, Any]:
    return {"filenameTemplate": "db-${version}.gpg", "maxBackupsCount": 3, **more}


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_a_user_comes_with_the_password_from_its_secret(world: World) -> None:
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply(
        "backupusers",
        "admin",
        spec={
            "email": "a@example.org",
            "roles": ["systemAdmin"],
            "passwordFromRef": {"name": "passwords", "entry": "admin"},
        },
    )
    source = await world.open()
    user = await source.user("admin")
    assert user is not None
    assert (user.name, user.email, user.roles) == ("admin", "a@example.org", {Role.SYSTEM_ADMIN})
    assert user.password_hash == HASH
    assert await source.user("nobody") is None
    assert await source.user("../secrets/passwords") is None


@pytest.mark.gen_test(timeout=30)
async def test_what_encode_password_prints_works_in_data_and_in_string_data(world: World) -> None:
    import base64

    printed = base64.b64encode(HASH.encode()).decode()
    # kubectl turns stringData into data by one more layer of base64; text pasted into data keeps the one it has.
    world.cluster.secret("from-string-data", password=printed + "\n")
    world.cluster.apply("secrets", "from-data", data={"password": printed})
    for name in ("from-string-data", "from-data"):
        world.cluster.apply("backupusers", name, spec={"passwordFromRef": {"name": name, "entry": "password"}})
    source = await world.open()
    for name in ("from-string-data", "from-data"):
        user = await source.user(name)
        assert user is not None
        assert user.password_hash == HASH


@pytest.mark.gen_test(timeout=30)
async def test_a_collection_comes_whole_and_names_are_sorted(world: World) -> None:
    world.cluster.secret("health", code="a" * 64)
    spec = collection_spec(
        maxOneVersionSize="1G", healthSecretRef={"name": "health", "entry": "code"}, minSizeRatio=0.5, maxAge="26h"
    )
    world.cluster.apply("backupcollections", "zeta", spec=collection_spec())
    world.cluster.apply("backupcollections", "alpha", spec=spec)
    source = await world.open()
    collection = await source.collection("alpha")
    assert collection is not None
    assert collection.max_one_version_bytes == 1 << 30
    assert collection.min_size_ratio == 0.5
    assert collection.health_code_hash == "a" * 64
    assert await source.collection_names() == ["alpha", "zeta"]


@pytest.mark.gen_test(timeout=30)
async def test_lists_are_read_page_by_page(world: World) -> None:
    world.cluster.page_cap = 4
    for number in range(11):
        world.cluster.apply("backupcollections", f"c{number:02}", spec=collection_spec())
    source = await world.open()
    assert await source.collection_names() == [f"c{number:02}" for number in range(11)]
    assert world.lists("backupcollections") == 3


@pytest.mark.gen_test(timeout=30)
async def test_a_page_that_comes_too_late_starts_the_list_over(world: World) -> None:
    world.cluster.page_cap = 4
    world.cluster.expire_continue = 1
    for number in range(6):
        world.cluster.apply("backupcollections", f"c{number}", spec=collection_spec())
    source = await world.open()
    assert len(await source.collection_names()) == 6
    assert world.lists("backupcollections") == 4


@pytest.mark.gen_test(timeout=30)
async def test_only_names_versions_and_specs_are_kept(world: World) -> None:
    world.cluster.apply("backupusers", "admin", spec={"email": "x"}, status={"large": "x" * 100})
    await world.open()
    (item,) = next(iter(world.source._copies.values())).items.values()
    assert (item.name, item.spec) == ("admin", {"email": "x"})


@pytest.mark.gen_test(timeout=30)
async def test_secrets_are_only_fetched_when_referred_to_and_never_listed(world: World) -> None:
    world.cluster.secret("used", password=HASH)
    world.cluster.secret("unrelated", password=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "used", "entry": "password"}})
    source = await world.open()
    assert not [request for request in world.cluster.requests if request[1] == "secrets"]
    for _ in range(20):
        await source.user("admin")
    assert [request for request in world.cluster.requests if request[1] == "secrets"] == [("get", "secrets", "used")]


@pytest.mark.gen_test(timeout=30)
async def test_many_requests_at_once_fetch_a_secret_once(world: World) -> None:
    world.cluster.secret("used", password=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "used", "entry": "password"}})
    source = await world.open()
    users = await asyncio.gather(*(source.user("admin") for _ in range(30)))
    assert {user.password_hash for user in users if user} == {HASH}
    assert sum(request[1] == "secrets" for request in world.cluster.requests) == 1


@pytest.mark.gen_test(timeout=30)
async def test_a_cancelled_request_does_not_take_the_others_secret_along(world: World) -> None:
    world.cluster.secret("used", password=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "used", "entry": "password"}})
    source = await world.open()
    world.cluster.hang = True
    impatient, patient = (asyncio.create_task(source.user("admin")) for _ in range(2))
    await world.until(lambda: bool(source._secrets._running))
    impatient.cancel()
    world.cluster.hang = False
    user = await patient
    assert user is not None
    assert user.password_hash == HASH
    assert impatient.cancelled()


# -- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_added_changed_and_deleted_objects_arrive_by_the_watch(world: World) -> None:
    source = await world.open()
    world.cluster.apply("backupcollections", "new", spec=collection_spec())
    await world.until(lambda: len(world.versions()) == 1)
    world.cluster.apply("backupcollections", "new", spec=collection_spec(description="changed"))
    await world.until(lambda: world.versions() == [str(world.cluster.version)])
    collection = await source.collection("new")
    assert collection is not None
    assert collection.description == "changed"
    world.cluster.delete("backupcollections", "new")
    await world.until(lambda: not world.versions())
    assert await source.collection("new") is None
    assert [world.lists(plural) for plural in PLURALS] == [1, 1]


@pytest.mark.gen_test(timeout=30)
async def test_revocation_takes_effect_without_a_restart(world: World) -> None:
    world.cluster.apply("backupusers", "eve", spec={"roles": ["systemAdmin"]})
    source = await world.open()
    before = await source.user("eve")
    assert before is not None
    assert not before.deactivated
    world.cluster.apply("backupusers", "eve", spec={"deactivated": True})
    await world.until(lambda: world.versions() == [str(world.cluster.version)])
    after = await source.user("eve")
    assert after is not None
    assert after.deactivated
    assert after.roles == frozenset()


@pytest.mark.gen_test(timeout=30)
async def test_a_user_deleted_while_its_secret_is_on_its_way_is_gone(world: World) -> None:
    world.cluster.secret("slow", password=HASH)
    world.cluster.apply("backupusers", "eve", spec={"passwordFromRef": {"name": "slow", "entry": "password"}})
    source = await world.open()
    world.cluster.hang = True
    asked = asyncio.create_task(source.user("eve"))
    await world.until(lambda: bool(source._secrets._running))
    next(iter(source._copies.values())).items.pop("eve")
    world.cluster.hang = False
    assert await asked is None


@pytest.mark.gen_test(timeout=30)
async def test_a_changed_secret_is_noticed_within_its_five_seconds(world: World) -> None:
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "passwords", "entry": "admin"}})
    source = await world.open()
    await source.user("admin")
    world.cluster.secret("passwords", admin=OTHER_HASH)
    world.ticks.now += kubernetes_secrets.FRESH_SECONDS
    changed = await source.user("admin")
    assert changed is not None
    assert changed.password_hash == OTHER_HASH
    world.cluster.delete("secrets", "passwords")
    world.ticks.now += kubernetes_secrets.FRESH_SECONDS
    with pytest.raises(ConfigurationFault, match=r"BackupUser/admin: .*passwords.*does not exist"):
        await source.user("admin")


@pytest.mark.gen_test(timeout=30)
async def test_reload_lists_and_fetches_anew(world: World) -> None:
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "passwords", "entry": "admin"}})
    source = await world.open()
    await source.user("admin")
    world.cluster.secret("passwords", admin=OTHER_HASH)
    source.reload()
    user = await source.user("admin")
    assert user is not None
    assert user.password_hash == OTHER_HASH
    await world.until(lambda: [world.lists(plural) for plural in PLURALS] == [2, 2])
    await world.until(lambda: len(world.cluster.open_watches) == 2)


# -- faults in objects ------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_a_broken_object_takes_down_itself_alone_and_is_named(world: World) -> None:
    world.cluster.apply("backupcollections", "broken", spec={"maxBackupsCount": 0})
    world.cluster.apply("backupcollections", "fine", spec=collection_spec())
    world.cluster.apply("backupusers", "odd", spec="not a mapping")
    source = await world.open()
    with pytest.raises(ConfigurationFault, match="BackupCollection/broken: "):
        await source.collection("broken")
    with pytest.raises(ConfigurationFault, match="BackupUser/odd: "):
        await source.user("odd")
    assert await source.collection("fine") is not None
    assert await source.collection_names() == ["broken", "fine"]
    assert {fault.source for fault in await source.faults()} == {"BackupCollection/broken", "BackupUser/odd"}


@pytest.mark.gen_test(timeout=30)
async def test_a_voided_entry_is_reported_once_per_change(world: World) -> None:
    spec = collection_spec(accessControl=[{"name": "bob", "roles": ["systemAdmin"]}])
    world.cluster.apply("backupcollections", "db", spec=spec)
    source = await world.open()
    for _ in range(3):
        collection = await source.collection("db")
        assert collection is not None
        assert collection.access_control == ()
    assert [fault.source for fault in world.faults] == ["BackupCollection/db"]
    world.cluster.apply("backupcollections", "db", spec=spec)
    await world.until(lambda: world.versions() == [str(world.cluster.version)])
    await source.collection("db")
    assert len(world.faults) == 2


@pytest.mark.gen_test(timeout=30)
async def test_an_unreadable_entry_beside_the_one_in_use_does_no_harm(world: World) -> None:
    import base64

    binary = base64.b64encode(bytes(range(256))).decode()
    good = base64.b64encode(HASH.encode()).decode()
    world.cluster.apply("secrets", "mixed", data={"keystore": binary, "password": good, "long": good * 100})
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "mixed", "entry": "password"}})
    world.cluster.apply("backupusers", "lost", spec={"passwordFromRef": {"name": "mixed", "entry": "keystore"}})
    source = await world.open()
    user = await source.user("admin")
    assert user is not None
    assert user.password_hash == HASH
    with pytest.raises(ConfigurationFault, match="keystore"):
        await source.user("lost")


@pytest.mark.gen_test(timeout=30)
async def test_a_secret_the_account_may_not_read_is_named_with_the_cure(world: World) -> None:
    world.cluster.allowed.discard(("get", "secrets"))
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "p", "entry": "e"}})
    source = await world.open()
    with pytest.raises(ConfigurationFault, match=r'Secret/p: may not be read .*; allow it "get"'):
        await source.user("admin")


# -- watches that end -------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_a_dropped_watch_resumes_where_it_was_without_a_list(world: World) -> None:
    world.cluster.apply("backupcollections", "one", spec=collection_spec())
    await world.open()
    world.cluster.drop_connections()
    world.cluster.apply("backupcollections", "two", spec=collection_spec())
    await world.until(lambda: len(world.versions()) == 2)
    assert [world.lists(plural) for plural in PLURALS] == [1, 1]


@pytest.mark.gen_test(timeout=30)
async def test_history_that_is_gone_leads_to_a_new_list(world: World) -> None:
    world.cluster.apply("backupcollections", "gone", spec=collection_spec())
    world.cluster.apply("backupcollections", "stays", spec=collection_spec())
    source = await world.open()
    world.cluster.down = True
    world.cluster.drop_connections()
    await world.until(lambda: not world.cluster.open_watches)
    world.cluster.delete("backupcollections", "gone")
    world.cluster.compact()
    world.cluster.down = False
    await world.until(lambda: len(world.versions()) == 1)
    assert await source.collection_names() == ["stays"]
    assert await source.collection("gone") is None
    assert world.lists("backupcollections") == 2


@pytest.mark.gen_test(timeout=30)
async def test_410_as_an_http_status_leads_to_a_new_list_too(world: World) -> None:
    await world.open()
    world.cluster.fail_with = 410
    world.cluster.drop_connections()
    await world.until(lambda: not world.cluster.open_watches)
    refused = len(world.cluster.targets)
    await world.until(lambda: len(world.cluster.targets) > refused + 4)
    world.cluster.fail_with = 0
    await world.until(lambda: len(world.cluster.open_watches) == 2)
    assert all(world.lists(plural) >= 2 for plural in PLURALS)


@pytest.mark.gen_test(timeout=30)
async def test_bookmarks_move_the_place_to_resume_from(world: World) -> None:
    await world.open()
    world.cluster.version += 500
    world.cluster.bookmark()
    copies = world.source._copies.values()
    await world.until(lambda: all(copy._resume_from == str(world.cluster.version) for copy in copies))
    world.cluster.compact()
    world.cluster.drop_connections()
    await world.until(lambda: len(world.cluster.open_watches) == 2)
    assert [world.lists(plural) for plural in PLURALS] == [1, 1]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}\n',
        b'{"type": "NONSENSE", "object": {"metadata": {"name": "x", "resourceVersion": "9"}}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "9"}}}\n',
        b'{"type": "BOOKMARK"}\n',
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_an_event_that_cannot_be_understood_leads_to_a_new_list(world: World, line: bytes) -> None:
    world.cluster.apply("backupcollections", "one", spec=collection_spec())
    source = await world.open()
    world.cluster.send_raw(line)
    await world.until(lambda: all(world.lists(plural) == 2 for plural in PLURALS))
    await world.until(lambda: len(world.cluster.open_watches) == 2)
    assert await source.collection_names() == ["one"]


@pytest.mark.gen_test(timeout=30)
async def test_junk_in_a_watch_only_reconnects(world: World) -> None:
    source = await world.open()
    world.cluster.send_raw(b"this is no JSON\n")
    world.cluster.apply("backupcollections", "one", spec=collection_spec())
    await world.until(lambda: len(world.versions()) == 1)
    assert await source.collection_names() == ["one"]


@pytest.mark.gen_test(timeout=30)
async def test_an_event_without_end_is_given_up_in_bounded_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "MAX_EVENT_BYTES", 1 << 20)
    await world.open()
    watches = set(world.cluster.open_watches)
    world.cluster.send_raw(b"x" * (3 << 20))
    await world.until(lambda: len(world.cluster.open_watches - watches) == 2)


@pytest.mark.gen_test(timeout=30)
async def test_a_server_that_ends_watches_at_once_is_not_asked_in_a_tight_loop(world: World) -> None:
    await world.open()
    world.cluster.end_watches_at_once = True
    world.cluster._wake()
    asked = len(world.cluster.targets)
    started = asyncio.get_running_loop().time()
    await world.until(lambda: len(world.cluster.targets) >= asked + 10)
    # The pauses of this test double from 10 to 50 ms, and each is at least half of that.
    assert asyncio.get_running_loop().time() - started > 0.08


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_a_rotated_token_is_used_from_the_next_request_on(world: World) -> None:
    source = await world.open()
    world.cluster.tokens = {"second-token"}
    with pytest.raises(ConfigurationFault, match="401"):
        await source.ping()
    world.token("second-token")
    await source.ping()
    world.cluster.drop_connections()
    world.cluster.apply("backupcollections", "one", spec=collection_spec())
    await world.until(lambda: len(world.versions()) == 1)


@pytest.mark.gen_test(timeout=30)
async def test_a_missing_token_file_is_a_fault_not_a_crash(world: World) -> None:
    source = await world.open()
    (world.account / "token").unlink()
    with pytest.raises(ConfigurationFault, match=r"cannot read .*token"):
        await source.ping()


@pytest.mark.gen_test(timeout=30)
async def test_a_replaced_authority_is_noticed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    source = await world.open()
    good = (world.account / "ca.crt").read_bytes()
    stranger = FakeKubernetes(world.account / "stranger").authority
    (world.account / "ca.crt").write_bytes(stranger.ca_file.read_bytes())
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigurationFault, match="certificate"):
        await source.ping()
    (world.account / "ca.crt").write_bytes(good)
    await source.ping()


# -- the API server is away -------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_last_known_objects_serve_for_ten_minutes_and_then_nobody_gets_in(world: World) -> None:
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "passwords", "entry": "admin"}})
    world.cluster.apply("backupcollections", "db", spec=collection_spec())
    source = await world.open()
    await source.user("admin")
    world.cluster.down = True
    world.cluster.drop_connections()
    await world.until(lambda: all(copy._away for copy in source._copies.values()))
    world.ticks.now += STALE_SECONDS
    user = await source.user("admin")
    assert user is not None
    assert await source.collection("db") is not None
    with pytest.raises(ConfigurationFault, match="objects last known 600 seconds ago"):
        await source.ping()
    world.ticks.now += 1
    for read in (source.user("admin"), source.user("nobody"), source.collection("db"), source.collection_names()):
        with pytest.raises(ConfigurationFault, match="too old to be relied on"):
            await read
    world.cluster.down = False
    await world.until(lambda: not any(copy._away for copy in source._copies.values()))
    assert await source.user("admin") is not None
    await source.ping()


@pytest.mark.gen_test(timeout=30)
async def test_while_away_a_secret_never_seen_lets_nobody_in(world: World) -> None:
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "passwords", "entry": "admin"}})
    source = await world.open()
    world.cluster.down = True
    with pytest.raises(ConfigurationFault, match="Secret/passwords: cannot be fetched"):
        await source.user("admin")
    world.cluster.down = False
    assert await source.user("admin") is not None


@pytest.mark.gen_test(timeout=30)
async def test_while_away_a_known_secret_is_given_after_a_short_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_secrets, "PATIENCE_SECONDS", 0.05)
    world.cluster.secret("passwords", admin=HASH)
    world.cluster.apply("backupusers", "admin", spec={"passwordFromRef": {"name": "passwords", "entry": "admin"}})
    source = await world.open()
    await source.user("admin")
    world.cluster.hang = True
    world.ticks.now += kubernetes_secrets.FRESH_SECONDS
    started = asyncio.get_running_loop().time()
    user = await source.user("admin")
    assert user is not None
    assert user.password_hash == HASH
    assert asyncio.get_running_loop().time() - started < 2
    world.ticks.now += STALE_SECONDS + 1
    with pytest.raises(ConfigurationFault, match="too old"):
        await source.user("admin")


@pytest.mark.gen_test(timeout=30)
async def test_ping_gives_a_hanging_server_five_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_backups.config.kubernetes.PING_SECONDS", 0.05)
    source = await world.open()
    await source.ping()
    world.cluster.hang = True
    with pytest.raises(ConfigurationFault, match=r"did not answer within 0\.05 seconds"):
        await source.ping()


@pytest.mark.gen_test(timeout=30)
async def test_ping_says_when_only_the_watch_is_dead(world: World) -> None:
    source = await world.open()
    world.cluster.allowed -= {("watch", plural) for plural in PLURALS}
    world.cluster.drop_connections()
    await world.until(lambda: all(copy._away for copy in source._copies.values()))
    await source.ping()
    world.ticks.now += 2 * kubernetes_watch.WATCH_SECONDS + 1
    with pytest.raises(ConfigurationFault, match="watching it fails"):
        await source.ping()


@pytest.mark.gen_test(timeout=30)
async def test_losing_and_finding_the_server_is_logged_once_each(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    source = await world.open()
    with caplog.at_level(logging.INFO, "tornado_backups"):
        world.cluster.fail_with = 503
        world.cluster.drop_connections()
        refused = len(world.cluster.targets)
        await world.until(lambda: len(world.cluster.targets) > refused + 6)
        world.cluster.fail_with = 0
        await world.until(lambda: not any(copy._away for copy in source._copies.values()))
    lines = [record.getMessage() for record in caplog.records]
    assert sum("cannot follow" in line for line in lines) == 2
    assert sum("are current again" in line for line in lines) == 2
    assert "first-token" not in caplog.text


@pytest.mark.gen_test(timeout=30)
async def test_a_failed_page_changes_nothing(world: World) -> None:
    for number in range(6):
        world.cluster.apply("backupcollections", f"c{number}", spec=collection_spec())
    source = await world.open()
    world.cluster.page_cap = 4
    world.cluster.expire_continue = 1000
    world.cluster.delete("backupcollections", "c0")
    await world.until(lambda: len(world.versions()) == 5)
    source.reload()
    await world.until(lambda: world.lists("backupcollections") > 6)
    assert len(await source.collection_names()) == 5


# -- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda cluster: cluster.allowed.discard(("list", "backupusers")),
            r"403: .*; the account needs a Role",
        ),
        (lambda cluster: cluster.tokens.clear(), "answered 401: Unauthorized; the account's token is not accepted"),
        (lambda cluster: setattr(cluster, "fail_with", 404), "answered 404: .*; the CRDs are not installed"),
        (lambda cluster: setattr(cluster, "down", True), "dropped before an answer"),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_a_source_that_cannot_be_read_stops_the_start_in_one_line(
    world: World, spoil: Callable[[FakeKubernetes], object], sentence: str
) -> None:
    spoil(world.cluster)
    with pytest.raises(StartupError, match=sentence) as caught:
        await world.source.open()
    assert caught.value.sentence.startswith("kubernetes: cannot list backupusers in the namespace backups: ")
    assert "\n" not in caught.value.sentence
    assert "first-token" not in caught.value.sentence


@pytest.mark.gen_test(timeout=30)
async def test_a_hanging_server_stops_the_start_in_bounded_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_backups.config.kubernetes.OPEN_SECONDS", 0.05)
    world.cluster.hang = True
    with pytest.raises(StartupError, match=r"no answer within 0\.05 seconds"):
        await world.source.open()


@pytest.mark.gen_test(timeout=30)
async def test_a_port_where_nobody_listens_stops_the_start(world: World) -> None:
    await world.cluster.stop()
    with pytest.raises(StartupError, match=r"127.0.0.1:\d+: .*[Rr]efused"):
        await world.source.open()
