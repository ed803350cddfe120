"""What every registry promises: leases, uploads, versions. Run over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.registry_cases import (
    NOON,
    Database,
    begin,
    intent_for,
    session_of,
    store,
    version_of,
)
from tornado_backups.domain.errors import DatabaseUnavailable, LeaseLost, NotAuthenticated
from tornado_backups.domain.model import Lease, Removal, Usage, Version
from tornado_backups.ports import Registry

pytest_plugins = ["tests.contract.registry_fixtures"]

LATER = NOON + timedelta(hours=1)


async def with_lease(registry: Registry, collection: str = "photos") -> Lease:
    lease = await registry.acquire_lease(f"collection/{collection}", 30)
    assert lease is not None
    return lease


# -- leases ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_lease_is_had_by_one_at_a_time(registry: Registry, other: Registry) -> None:
    assert await registry.acquire_lease("a", 30) is not None
    assert await other.acquire_lease("a", 30) is None
    assert await registry.acquire_lease("a", 30) is None, "not even the same process gets it twice"
    assert await other.acquire_lease("b", 30) is not None


@pytest.mark.gen_test
async def test_a_released_lease_is_free_and_its_fencing_number_rises(registry: Registry, other: Registry) -> None:
    first = await with_lease(registry)
    await registry.release_lease(first)
    second = await with_lease(other)
    assert second.fencing > first.fencing
    await registry.release_lease(first)
    assert await registry.acquire_lease(second.name, 30) is None, "the former holder released someone else's lease"


@pytest.mark.gen_test
async def test_a_lease_that_ran_out_is_taken_over_and_cannot_be_renewed(
    registry: Registry, other: Registry, database: Database
) -> None:
    lost = await with_lease(registry)
    database.let_pass(29)
    assert await other.acquire_lease(lost.name, 30) is None
    database.let_pass(2)
    taken = await with_lease(other)
    assert taken.fencing > lost.fencing
    assert not await registry.renew_lease(lost, 30)
    assert await other.renew_lease(taken, 30)


@pytest.mark.gen_test
async def test_a_renewed_lease_lives_on(registry: Registry, other: Registry, database: Database) -> None:
    lease = await with_lease(registry)
    for _ in range(3):
        database.let_pass(20)
        assert await registry.renew_lease(lease, 30)
        assert await other.acquire_lease(lease.name, 30) is None


@pytest.mark.gen_test
async def test_a_lease_that_ran_out_is_renewed_while_nobody_took_it(registry: Registry, database: Database) -> None:
    lease = await with_lease(registry)
    database.let_pass(3600)
    assert await registry.renew_lease(lease, 30)
    await registry.add_intent(intent_for(lease, 1))


@pytest.mark.gen_test
async def test_a_clock_set_back_by_a_day_does_not_keep_a_dead_servers_lease(
    registry: Registry, other: Registry, database: Database
) -> None:
    lease = await with_lease(registry)
    database.let_pass(-86400)
    assert await registry.renew_lease(lease, 30), "a living server goes on"
    database.let_pass(-86400)
    assert await other.acquire_lease(lease.name, 30) is not None


@pytest.mark.gen_test
async def test_a_clock_corrected_by_half_a_second_costs_no_upload(
    registry: Registry, other: Registry, database: Database
) -> None:
    intent = await begin(registry)
    database.let_pass(-0.5)
    assert await other.acquire_lease(intent.lease.name, 30) is None
    await registry.commit_upload(intent, version_of(intent), [])


# -- uploads ---------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_committed_upload_is_a_version_with_every_field(registry: Registry) -> None:
    intent = await begin(registry)
    version = version_of(intent, size_bytes=5 * 2**40)
    await registry.commit_upload(intent, version, [])
    assert await registry.versions("photos") == [version]
    assert await registry.version("photos", 1) == version
    assert await registry.latest_version("photos") == version
    assert await registry.next_number("photos") == 2


@pytest.mark.gen_test
async def test_a_commit_releases_the_lease_and_forgets_the_intent(
    registry: Registry, other: Registry, database: Database
) -> None:
    await store(registry)
    assert await other.acquire_lease("collection/photos", 30) is not None
    database.let_pass(3600)
    assert await other.abandoned_intents(10) == []


@pytest.mark.gen_test
async def test_a_commit_marks_what_rotation_removes_in_the_same_transaction(registry: Registry) -> None:
    old, older = await store(registry), await store(registry)
    new = await store(registry, removals=(older, old), created_at=LATER)
    assert await registry.versions("photos") == [new]
    marked = await registry.expired_versions(10)
    assert [(version.id, reason) for version, reason in marked] == [
        (old.id, "queue is full"),
        (older.id, "queue is full"),
    ]
    assert marked[0][0].updated_at == LATER


@pytest.mark.gen_test
async def test_a_commit_repeated_after_a_lost_answer_succeeds_and_changes_nothing(registry: Registry) -> None:
    session = session_of("alice", "one", single_use=True)
    await registry.add_session(session)
    intent = await begin(registry)
    version = version_of(intent)
    for _ in range(2):
        await registry.commit_upload(intent, version, [], session.id)
    assert await registry.versions("photos") == [version]
    assert await registry.next_number("photos") == 2


@pytest.mark.gen_test
async def test_a_commit_without_the_lease_fails_and_leaves_all_as_it_was(
    registry: Registry, other: Registry, database: Database
) -> None:
    kept = await store(registry)
    intent = await begin(registry)
    database.let_pass(31)
    removals = [Removal(kept.id, kept.number, "rotated")]
    with pytest.raises(LeaseLost):
        await registry.commit_upload(intent, version_of(intent), removals)
    assert await other.acquire_lease(intent.lease.name, 30) is not None
    with pytest.raises(LeaseLost):
        await registry.commit_upload(intent, version_of(intent), removals)
    assert await registry.versions("photos") == [kept]
    assert await registry.expired_versions(10) == []
    assert await registry.next_number("photos") == 2


@pytest.mark.gen_test
async def test_a_commit_with_a_number_that_was_taken_fails(registry: Registry) -> None:
    intent = await begin(registry)
    await registry.raise_counter("photos", 1)
    with pytest.raises(LeaseLost):
        await registry.commit_upload(intent, version_of(intent), [])
    assert await registry.versions("photos") == []


@pytest.mark.gen_test
async def test_a_commit_of_a_dropped_intent_fails(registry: Registry) -> None:
    intent = await begin(registry)
    await registry.drop_intent(intent)
    lease = await with_lease(registry)
    with pytest.raises(LeaseLost):
        await registry.commit_upload(replace(intent, lease=lease), version_of(intent), [])


@pytest.mark.gen_test
async def test_dropping_an_intent_frees_the_collection_and_may_be_repeated(registry: Registry, other: Registry) -> None:
    intent = await begin(registry)
    await registry.drop_intent(intent)
    taken = await with_lease(other)
    await registry.drop_intent(intent)
    assert await other.renew_lease(taken, 30), "dropping again released the next upload's lease"


@pytest.mark.gen_test
async def test_an_intent_without_a_live_lease_is_refused(registry: Registry, database: Database) -> None:
    lease = await with_lease(registry)
    await registry.add_intent(intent_for(lease, 1))
    database.let_pass(31)
    with pytest.raises(LeaseLost):
        await registry.add_intent(intent_for(lease, 1))
    with pytest.raises(LeaseLost):
        await registry.add_intent(intent_for(Lease("collection/other", "nobody", 1), 1))


@pytest.mark.gen_test
async def test_writing_an_intent_down_twice_is_success(registry: Registry) -> None:
    intent = await begin(registry)
    await registry.add_intent(intent)
    await registry.commit_upload(intent, version_of(intent), [])


@pytest.mark.gen_test
async def test_a_single_use_session_ends_with_its_upload(registry: Registry) -> None:
    session = session_of("alice", "one", single_use=True)
    await registry.add_session(session)
    first = await begin(registry)
    await registry.commit_upload(first, version_of(first, created_at=LATER), [], session.id)
    found = await registry.session(session.id)
    assert found is not None
    assert found.deactivated
    assert found.updated_at == LATER
    second = await begin(registry)
    with pytest.raises(NotAuthenticated):
        await registry.commit_upload(second, version_of(second), [], session.id)
    assert len(await registry.versions("photos")) == 1
    await registry.commit_upload(second, version_of(second), [])


# -- abandoned intents -----------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_intent_is_abandoned_when_its_lease_is_not_live_and_can_never_be_committed(
    registry: Registry, other: Registry, database: Database
) -> None:
    intent = await begin(registry)
    assert await other.abandoned_intents(10) == []
    database.let_pass(31)
    assert await other.abandoned_intents(10) == [intent]
    assert not await registry.renew_lease(intent.lease, 30), "its server learns of it at the next heartbeat"
    with pytest.raises(LeaseLost):
        await registry.commit_upload(intent, version_of(intent), [])
    lease = await with_lease(registry)
    with pytest.raises(LeaseLost):
        await registry.commit_upload(replace(intent, lease=lease), version_of(intent), [])
    assert await other.abandoned_intents(10) == [intent], "until it is dropped it is found again"
    await other.drop_intent(intent)
    assert await other.abandoned_intents(10) == []


@pytest.mark.gen_test
async def test_an_intent_whose_lease_was_taken_over_is_abandoned(
    registry: Registry, other: Registry, database: Database
) -> None:
    dead = await begin(registry)
    database.let_pass(31)
    alive = await begin(other)
    assert await registry.abandoned_intents(10) == [dead]
    await other.drop_intent(dead)
    await other.commit_upload(alive, version_of(alive), [])
    assert [version.id for version in await registry.versions("photos")] == [alive.id]


@pytest.mark.gen_test
async def test_abandoned_intents_come_oldest_first_and_bounded(registry: Registry, database: Database) -> None:
    intents = []
    for index in range(5):
        lease = await with_lease(registry, f"c{index}")
        intent = replace(intent_for(lease, 1, f"c{index}"), created_at=NOON - timedelta(minutes=index))
        await registry.add_intent(intent)
        intents.append(intent)
    database.let_pass(31)
    assert await registry.abandoned_intents(3) == [intents[4], intents[3], intents[2]]
    assert await registry.abandoned_intents(0) == []


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_numbers_are_never_given_twice_not_even_after_removal(registry: Registry) -> None:
    numbers = []
    for _ in range(4):
        version = await store(registry)
        numbers.append(version.number)
        assert await registry.expire_version(version, "deleted by alice", LATER)
        await registry.forget_versions([version.id])
    assert numbers == [1, 2, 3, 4]
    assert await registry.next_number("photos") == 5
    assert await registry.next_number("unknown") == 1


@pytest.mark.gen_test
async def test_an_upload_begins_with_the_lease_and_all_that_is_decided_under_it(
    registry: Registry, other: Registry
) -> None:
    first = await store(registry)
    expired = await store(registry)
    assert await registry.expire_version(expired, "deleted by alice", LATER)
    beginning = await registry.begin_upload("photos", "collection/photos", 30)
    assert beginning is not None
    assert (beginning.versions, beginning.next_number) == ([first], 3)
    await registry.add_intent(intent_for(beginning.lease, 3))
    assert await other.begin_upload("photos", "collection/photos", 30) is None
    assert await other.acquire_lease("collection/photos", 30) is None
    await registry.release_lease(beginning.lease)
    again = await other.begin_upload("photos", "collection/photos", 30)
    assert again is not None
    assert again.lease.fencing > beginning.lease.fencing
    fresh = await registry.begin_upload("unknown", "collection/unknown", 30)
    assert fresh is not None
    assert (fresh.versions, fresh.next_number) == ([], 1)


@pytest.mark.gen_test
async def test_many_expired_versions_are_forgotten_at_once_and_a_live_one_never(registry: Registry) -> None:
    stored = [await store(registry) for _ in range(5)]
    for version in stored[:3]:
        assert await registry.expire_version(version, "rotated", LATER)
    strangers = [f"stranger-{number}" for number in range(1000)]
    await registry.forget_versions([*strangers, *(version.id for version in stored)])
    assert await registry.expired_versions(10) == []
    assert await registry.versions("photos") == stored[3:]
    await registry.forget_versions([])


@pytest.mark.gen_test
async def test_an_expired_version_lists_no_more_until_it_is_forgotten(registry: Registry) -> None:
    version = await store(registry)
    await registry.forget_versions([version.id])
    assert await registry.versions("photos") == [version], "a live version must not be forgotten"
    assert await registry.expire_version(version, "deleted by \x00alice", LATER)
    assert not await registry.expire_version(version, "again", LATER)
    assert await registry.versions("photos") == []
    assert await registry.version("photos", 1) is None
    assert await registry.latest_version("photos") is None
    assert await registry.expired_versions(10) == [(version._replace(updated_at=LATER), "deleted by \ufffdalice")]
    await registry.forget_versions([version.id])
    await registry.forget_versions([version.id])
    assert await registry.expired_versions(10) == []


@pytest.mark.gen_test
async def test_expired_versions_come_oldest_mark_first_and_bounded(registry: Registry) -> None:
    versions = [await store(registry) for _ in range(3)]
    for minutes, version in zip((3, 1, 2), versions, strict=True):
        await registry.expire_version(version, "r", NOON + timedelta(minutes=minutes))
    assert [version.number for version, _ in await registry.expired_versions(2)] == [2, 3]


@pytest.mark.gen_test
async def test_rotation_outside_an_upload_needs_the_live_lease(registry: Registry, database: Database) -> None:
    versions = [await store(registry) for _ in range(3)]
    lease = await with_lease(registry)
    removals = [Removal(version.id, version.number, "rotated") for version in versions[:2]]
    await registry.expire_versions("photos", removals, lease, LATER)
    await registry.expire_versions("photos", removals, lease, LATER)
    assert [version.number for version in await registry.versions("photos")] == [3]
    database.let_pass(31)
    with pytest.raises(LeaseLost):
        await registry.expire_versions("photos", [Removal(versions[2].id, 3, "rotated")], lease, LATER)
    assert [version.number for version in await registry.versions("photos")] == [3]


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["unknown", "nul\x00", "\udcff", "", "'; DROP TABLE versions; --", "%s", "?", "{now}"])
async def test_names_that_nothing_has_are_simply_not_found(registry: Registry, name: str) -> None:
    await store(registry)
    assert await registry.versions(name) == []
    assert await registry.version(name, 1) is None
    assert await registry.latest_version(name) is None
    assert await registry.session(name) is None
    assert await registry.sessions(name, 10) == []
    assert not await registry.revoke_session(name, NOON)
    assert await registry.known_keys([name, "x"]) == set()


@pytest.mark.gen_test
@pytest.mark.parametrize("number", [0, -1, 2, 2**53, 2**63, 2**64, 10**30])
async def test_numbers_that_nothing_has_are_simply_not_found(registry: Registry, number: int) -> None:
    await store(registry)
    assert await registry.version("photos", number) is None


@pytest.mark.gen_test
async def test_a_key_is_known_when_a_live_or_expired_version_or_an_intent_names_it(registry: Registry) -> None:
    live, expired = await store(registry), await store(registry)
    await registry.expire_version(expired, "r", LATER)
    intent = await begin(registry)
    strangers = [f"stranger/{index}" for index in range(997)]
    keys = [*strangers, live.object_key, expired.object_key, intent.object_key]
    assert await registry.known_keys(keys) == {live.object_key, expired.object_key, intent.object_key}
    assert await registry.known_keys([]) == set()


@pytest.mark.gen_test
async def test_checks_are_due_by_age_never_checked_first(registry: Registry) -> None:
    versions = [await store(registry) for _ in range(4)]
    await registry.record_check(versions[0].id, NOON - timedelta(days=2), "", "")
    await registry.record_check(versions[1].id, NOON - timedelta(days=3), "", "")
    await registry.record_check(versions[2].id, NOON, "", "")
    due = await registry.next_to_check(NOON - timedelta(days=1), 10)
    assert [version.number for version in due] == [4, 2, 1]
    assert due[1].checked_at == NOON - timedelta(days=3)
    assert [version.number for version in await registry.next_to_check(NOON, 2)] == [4, 2]
    await registry.expire_version(versions[3], "r", NOON)
    assert [version.number for version in await registry.next_to_check(NOON, 1)] == [2]


@pytest.mark.gen_test
async def test_a_check_fills_an_empty_digest_and_changes_no_other(registry: Registry) -> None:
    lease = await with_lease(registry)
    imported = version_of(intent_for(lease, 1))._replace(sha256="", object_key="photos/photos-v1.gpg")
    await registry.adopt_version(imported, lease)
    await registry.record_check(imported.id, NOON, "a" * 64, "")
    await registry.record_check(imported.id, LATER, "b" * 64, "the digest differs")
    found = await registry.version("photos", 1)
    assert found == imported._replace(sha256="a" * 64, checked_at=LATER, damage="the digest differs")
    assert await registry.damaged_versions() == {"photos": [found]}
    await registry.record_check(imported.id, LATER, "a" * 64, "")
    assert await registry.damaged_versions() == {}


@pytest.mark.gen_test
async def test_damage_of_an_expired_version_is_nobodys_concern(registry: Registry) -> None:
    version = await store(registry)
    await registry.record_check(version.id, NOON, "", "missing")
    await registry.expire_version(version, "r", NOON)
    assert await registry.damaged_versions() == {}


# -- recover and import ----------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_adopted_version_raises_the_counter_and_may_be_adopted_again(registry: Registry) -> None:
    lease = await with_lease(registry)
    found = version_of(intent_for(lease, 7))._replace(object_key="photos/old-7.gpg")
    for _ in range(2):
        await registry.adopt_version(found, lease)
    lower = version_of(intent_for(lease, 3))
    await registry.adopt_version(lower, lease)
    assert await registry.versions("photos") == [lower, found]
    assert await registry.next_number("photos") == 8


@pytest.mark.gen_test
async def test_a_version_is_not_adopted_over_another(registry: Registry, database: Database) -> None:
    there = await store(registry)
    intent = await begin(registry)
    lease = intent.lease
    stranger = version_of(intent_for(lease, 5))
    for refused in (
        stranger._replace(number=there.number),
        stranger._replace(object_key=there.object_key),
        stranger._replace(object_key=intent.object_key),
        stranger._replace(id=there.id),
        stranger._replace(number=0),
        stranger._replace(number=2**53),
        stranger._replace(number=10**30),
        stranger._replace(object_key="photos/\udcff"),
    ):
        with pytest.raises(LeaseLost):
            await registry.adopt_version(refused, lease)
    database.let_pass(31)
    with pytest.raises(LeaseLost):
        await registry.adopt_version(stranger, lease)
    assert await registry.versions("photos") == [there]
    assert await registry.next_number("photos") == 2


@pytest.mark.gen_test
async def test_the_counter_only_rises(registry: Registry) -> None:
    await registry.raise_counter("photos", 9)
    await registry.raise_counter("photos", 4)
    assert await registry.next_number("photos") == 10
    assert (await store(registry)).number == 10
    await registry.raise_counter("photos", 10)
    assert await registry.next_number("photos") == 11


# -- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=30)
async def test_sums_agree_with_the_rows_after_any_sequence_of_changes(registry: Registry) -> None:
    chance = random.Random(20240517)
    live: dict[str, list[Version]] = {name: [] for name in ("a", "b", "c", "d")}
    for step in range(120):
        name = chance.choice("abcd")
        if live[name] and chance.random() < 0.35:
            gone = live[name].pop(chance.randrange(len(live[name])))
            assert await registry.expire_version(gone, "r", NOON)
            if chance.random() < 0.5:
                await registry.forget_versions([gone.id])
        else:
            rotated = tuple(live[name][:1]) if chance.random() < 0.5 else ()
            live[name] = live[name][len(rotated) :]
            live[name].append(await store(registry, name, chance.randrange(2**45), rotated))
        if step % 10 == 0:
            await _assert_sums(registry, live)
    await _assert_sums(registry, live)


async def _assert_sums(registry: Registry, live: dict[str, list[Version]]) -> None:
    present = {name: versions for name, versions in live.items() if versions}
    assert await registry.usages() == {
        name: Usage(name, len(versions), sum(version.size_bytes for version in versions), versions[-1])
        for name, versions in present.items()
    }
    for limit in (1, 3, 100):
        assert await registry.recent_sizes(limit) == {
            name: [version.size_bytes for version in versions[::-1][:limit]] for name, versions in present.items()
        }
    assert await registry.recent_sizes(0) == {}
    assert await registry.largest_sizes() == {
        name: max(version.size_bytes for version in versions) for name, versions in present.items()
    }
    for name, versions in live.items():
        assert await registry.versions(name) == versions


# -- opening and closing ---------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_was_stored_is_there_after_closing_and_opening_again(registry: Registry) -> None:
    version = await store(registry)
    await registry.ping()
    await registry.close()
    await registry.close()
    with pytest.raises(DatabaseUnavailable):
        await registry.versions("photos")
    await registry.open()
    assert await registry.versions("photos") == [version]
    assert await registry.next_number("photos") == 2


@pytest.mark.gen_test
async def test_text_that_no_database_could_hold_is_a_bug_of_the_caller(registry: Registry) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await registry.acquire_lease("nul\x00", 30)
    await store(registry)
