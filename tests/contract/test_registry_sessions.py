"""What every registry promises about sessions, health states and alerts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

import pytest

from tests.contract.registry_cases import NOON, session_of
from tornado_backups.domain.model import HealthState
from tornado_backups.ports import Registry

pytest_plugins = ["tests.contract.registry_fixtures"]

LATER = NOON + timedelta(hours=1)


@pytest.mark.gen_test
async def test_a_session_keeps_every_field_and_narrowing(registry: Registry) -> None:
    session = session_of(
        "alice",
        "token",
        access_key_name="laptop",
        restrict_by_ip=(ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")),
        single_use=True,
        narrowed_lifetime=True,
        deactivated=True,
    )
    plain = session_of("bob", "other")
    await registry.add_session(session)
    await registry.add_session(plain)
    assert await registry.session(session.id) == session
    assert await registry.session(plain.id) == plain


@pytest.mark.gen_test
async def test_a_session_that_exists_stays_as_it_is(registry: Registry) -> None:
    session = session_of("alice", "token")
    await registry.add_session(session)
    await registry.revoke_session(session.id, LATER)
    await registry.add_session(session)
    found = await registry.session(session.id)
    assert found is not None
    assert found.deactivated


@pytest.mark.gen_test
async def test_sessions_list_newest_first_for_one_user_and_bounded(registry: Registry) -> None:
    for minutes in (5, 1, 3):
        await registry.add_session(session_of("alice", f"token-{minutes}", timedelta(minutes=minutes)))
    await registry.add_session(session_of("bob", "token"))
    ages = [NOON - session.created_at for session in await registry.sessions("alice", 100)]
    assert ages == [timedelta(minutes=minutes) for minutes in (1, 3, 5)]
    assert len(await registry.sessions("alice", 2)) == 2
    assert await registry.sessions("alice", 0) == []
    assert await registry.sessions("alice", -1) == []


@pytest.mark.gen_test
async def test_a_revoked_session_stays_listed_and_revoking_again_is_success(registry: Registry) -> None:
    session = session_of("alice", "token")
    await registry.add_session(session)
    assert await registry.revoke_session(session.id, LATER)
    assert await registry.revoke_session(session.id, LATER + timedelta(hours=1))
    assert await registry.sessions("alice", 10) == [replace(session, deactivated=True, updated_at=LATER)]
    assert not await registry.revoke_session("0" * 64, LATER)


@pytest.mark.gen_test
async def test_only_sessions_that_expired_before_are_purged(registry: Registry) -> None:
    old = session_of("alice", "old", expires_at=NOON - timedelta(microseconds=1))
    edge = session_of("alice", "edge", expires_at=NOON)
    for session in (old, edge):
        await registry.add_session(session)
    assert await registry.purge_sessions(NOON) == 1
    assert await registry.sessions("alice", 10) == [edge]
    assert await registry.purge_sessions(NOON) == 0


@pytest.mark.gen_test
async def test_free_text_that_no_database_could_hold_is_mended(registry: Registry) -> None:
    session = session_of("alice", "token", description="a\x00b\udcffc ✓ 𝄞")
    await registry.add_session(session)
    found = await registry.session(session.id)
    assert found is not None
    assert found.description == "a\ufffdb\ufffdc ✓ 𝄞"


@pytest.mark.gen_test
async def test_health_states_are_replaced_and_alerts_queued_together(registry: Registry) -> None:
    sick = HealthState("photos", False, NOON, ("BackupWindowValidator", "IntegrityValidator"))
    many = [HealthState(f"c{index:04}", True, NOON) for index in range(250)]
    await registry.record_health([sick, *many], ['{"a": 1}', '{"b": "✓"}'], NOON)
    assert await registry.health_states() == {state.collection: state for state in [sick, *many]}
    well = HealthState("photos", True, LATER)
    await registry.record_health([sick, well], [], LATER)
    assert (await registry.health_states())["photos"] == well
    assert [alert.body for alert in await registry.due_alerts(NOON, 10)] == ['{"a": 1}', '{"b": "✓"}']
    await registry.record_health([], [], NOON)


@pytest.mark.gen_test
async def test_alerts_wait_for_their_time_count_attempts_and_go_when_delivered(registry: Registry) -> None:
    await registry.record_health([], ["first", "second"], NOON)
    assert await registry.due_alerts(NOON - timedelta(seconds=1), 10) == []
    first, second = await registry.due_alerts(NOON, 10)
    assert (first.body, first.attempts, first.next_attempt_at) == ("first", 0, NOON)
    assert await registry.due_alerts(NOON, 1) == [first]
    await registry.postpone_alert(first.id, LATER)
    assert await registry.due_alerts(NOON, 10) == [second]
    await registry.forget_alert(second.id)
    assert await registry.due_alerts(LATER, 10) == [replace(first, attempts=1, next_attempt_at=LATER)]
    await registry.forget_alert(first.id)
    await registry.forget_alert(first.id)
    assert await registry.due_alerts(LATER, 10) == []
