"""Simulated uploads: numbers, sizes, refusals, and that nothing real changes."""

from __future__ import annotations

from tests.domain.rotation_cases import DAY, HOUR, NOON, collection, kept, numbers, removed, upload_all, version
from tornado_backups.domain.errors import Protected, QuotaExceeded
from tornado_backups.domain.model import FifoPlusOlder
from tornado_backups.domain.rotation import simulate


def test_simulated_uploads_follow_each_other_and_count_on_from_the_newest_number() -> None:
    versions = [version(4), version(6)]
    times = [NOON + n * HOUR for n in range(3)]
    steps = simulate(collection(2), versions, times, NOON)
    assert [time for time, _ in steps] == times
    assert [kept(plan) for _, plan in steps] == [[6, 7], [7, 8], [8, 9]]
    assert [removed(plan) for _, plan in steps] == [[4], [6], [7]]
    assert versions == [version(4), version(6)]


def test_a_step_calls_only_its_own_upload_new_and_earlier_ones_simulated() -> None:
    *_, (_, plan) = simulate(collection(3), [version(1, size=7)], [NOON + HOUR, NOON + DAY], NOON)
    real, earlier, new = plan.keep
    assert real.version == version(1, size=7)
    assert earlier.version is not None
    assert (earlier.version.id, earlier.version.size_bytes, earlier.version.filename) == ("simulated-2", 7, "db-2.gpg")
    assert (earlier.version.created_at, earlier.version.updated_at) == (NOON + HOUR, NOON)
    assert new.version is None


def test_numbers_may_go_on_from_a_higher_counter() -> None:
    steps = simulate(collection(9), [version(1)], [NOON, NOON], NOON, next_number=10)
    assert [kept(plan) for _, plan in steps] == [[1, 10], [1, 10, 11]]


def test_a_simulation_of_no_upload_has_no_step() -> None:
    assert simulate(collection(2), [version(1)], [], NOON) == []


def test_an_empty_collection_can_be_simulated() -> None:
    steps = simulate(collection(2), [], [NOON + n * DAY for n in range(4)], NOON)
    assert [kept(plan) for _, plan in steps] == [[1], [1, 2], [2, 3], [3, 4]]


def test_ages_are_those_at_the_simulated_time() -> None:
    rule = FifoPlusOlder(1, 5 * DAY)
    steps = simulate(collection(1, rule), [version(1)], [NOON + n * 2 * DAY for n in range(1, 5)], NOON)
    assert [removed(plan) for _, plan in steps] == [[], [2], [1], [4]]


def test_a_refused_step_takes_no_number_and_later_ones_go_on() -> None:
    guarded = collection(1, protect=DAY)
    steps = simulate(guarded, [version(1)], [NOON + HOUR, NOON + DAY], NOON)
    assert isinstance(steps[0][1].refusal, Protected)
    assert (kept(steps[1][1]), removed(steps[1][1])) == ([2], [1])


def test_simulated_uploads_have_the_usual_size_so_that_quotas_show() -> None:
    steps = simulate(collection(9, hard=100), [version(n, size=30) for n in (1, 2)], [NOON, NOON], NOON)
    assert steps[0][1].refusal is None
    assert isinstance(steps[1][1].refusal, QuotaExceeded)
    assert steps[1][1].allowed_bytes == 10


def test_simulated_uploads_follow_the_trend_though_the_newest_version_does_not() -> None:
    watched = collection(3, ratio=1.0)
    versions = [*upload_all(watched, [NOON, NOON, NOON], 100), version(4, size=1)]
    (_, plan), (_, after) = simulate(watched, versions, [NOON, NOON], NOON)
    assert numbers(versions) == [1, 2, 3, 4]
    assert (removed(plan), removed(after)) == ([1, 2], [3])
