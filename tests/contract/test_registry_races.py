"""Two servers on one database: whatever they do at once, one wins and both know it."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.registry_cases import Database, begin, intent_for, session_of, store, version_of
from tornado_backups.domain.errors import LeaseLost, NotAuthenticated
from tornado_backups.domain.model import Intent, Version
from tornado_backups.ports import Registry

pytest_plugins = ["tests.contract.registry_fixtures"]

ROUNDS = 12


@pytest.mark.gen_test(timeout=30)
async def test_of_two_servers_one_gets_the_lease(registry: Registry, other: Registry) -> None:
    for round_ in range(ROUNDS):
        name = f"collection/{round_}"
        taken = await asyncio.gather(*(server.acquire_lease(name, 30) for server in [registry, other] * 2))
        assert sum(lease is not None for lease in taken) == 1


@pytest.mark.gen_test(timeout=30)
async def test_a_lease_that_ran_out_is_taken_over_by_one(
    registry: Registry, other: Registry, database: Database
) -> None:
    for _ in range(ROUNDS):
        taken = await asyncio.gather(*(server.acquire_lease("collection/a", 30) for server in [registry, other] * 2))
        assert sum(lease is not None for lease in taken) == 1
        database.let_pass(31)


@pytest.mark.gen_test(timeout=60)
async def test_uploads_from_two_servers_get_every_number_once(registry: Registry, other: Registry) -> None:
    async def upload(server: Registry) -> int:
        while (lease := await server.acquire_lease("collection/photos", 30)) is None:
            await asyncio.sleep(0)
        intent = intent_for(lease, await server.next_number("photos"))
        await server.add_intent(intent)
        await server.commit_upload(intent, version_of(intent), [])
        return intent.number

    numbers = await asyncio.gather(*(upload(server) for server in [registry, other] * 8))
    assert sorted(numbers) == list(range(1, 17))
    assert [version.number for version in await registry.versions("photos")] == sorted(numbers)


@pytest.mark.gen_test(timeout=30)
async def test_a_commit_sent_again_while_the_first_still_runs_makes_one_version(registry: Registry) -> None:
    for round_ in range(ROUNDS):
        intent = await begin(registry)
        version = version_of(intent)
        await asyncio.gather(*(registry.commit_upload(intent, version, []) for _ in range(3)))
        assert len(await registry.versions("photos")) == round_ + 1


@pytest.mark.gen_test(timeout=30)
async def test_an_upload_is_either_committed_or_abandoned(
    registry: Registry, other: Registry, database: Database
) -> None:
    async def commit(intent: Intent) -> bool:
        try:
            await registry.commit_upload(intent, version_of(intent), [])
        except LeaseLost:
            return False
        return True

    async def give_up() -> list[Intent]:
        await asyncio.get_running_loop().run_in_executor(None, database.let_pass, 31)
        return await other.abandoned_intents(10)

    for _ in range(ROUNDS):
        intent = await begin(registry)
        committed, abandoned = await asyncio.gather(commit(intent), give_up())
        assert abandoned == ([] if committed else [intent])
        stored = await registry.version("photos", intent.number)
        assert (stored is not None) == committed
        await registry.drop_intent(intent)


@pytest.mark.gen_test(timeout=30)
async def test_a_token_good_for_one_upload_is_good_for_one_upload(registry: Registry, other: Registry) -> None:
    async def commit(server: Registry, intent: Intent, session_id: str) -> int:
        try:
            await server.commit_upload(intent, version_of(intent), [], session_id)
        except NotAuthenticated:
            return 0
        return 1

    for round_ in range(ROUNDS):
        session = session_of("alice", str(round_), single_use=True)
        await registry.add_session(session)
        first, second = await begin(registry, f"a{round_}"), await begin(other, f"b{round_}")
        won = await asyncio.gather(commit(registry, first, session.id), commit(other, second, session.id))
        assert sum(won) == 1


@pytest.mark.gen_test(timeout=30)
async def test_an_object_is_adopted_once(registry: Registry, other: Registry) -> None:
    async def adopt(server: Registry, version: Version, lease_name: str) -> int:
        lease = await server.acquire_lease(lease_name, 30)
        assert lease is not None
        try:
            await server.adopt_version(version, lease)
        except LeaseLost:
            return 0
        finally:
            await server.release_lease(lease)
        return 1

    lease = await registry.acquire_lease("collection/model", 30)
    assert lease is not None
    for number in range(1, ROUNDS):
        one = version_of(intent_for(lease, number))
        two = version_of(intent_for(lease, number, "b"))._replace(object_key=one.object_key)
        won = await asyncio.gather(adopt(registry, one, "collection/photos"), adopt(other, two, "collection/b"))
        assert sum(won) == 1


@pytest.mark.gen_test(timeout=30)
async def test_a_version_deleted_by_two_at_once_is_deleted_once(registry: Registry, other: Registry) -> None:
    for _ in range(ROUNDS):
        version = await store(registry)
        done = await asyncio.gather(
            *(server.expire_version(version, "deleted", version.created_at) for server in (registry, other))
        )
        assert sorted(done) == [False, True]


@pytest.mark.gen_test(timeout=30)
async def test_servers_that_start_at_once_on_an_empty_database_all_get_the_tables(database: Database) -> None:
    servers = [database.registry(f"server-{index}") for index in range(4)]
    try:
        await asyncio.gather(*(server.open() for server in servers))
        for server in servers:
            await store(server)
        assert await servers[0].next_number("photos") == 5
        assert len(database.execute("SELECT number FROM schema_migrations")) == 1
    finally:
        await asyncio.gather(*(server.close() for server in servers))
