"""Rotation by example: fifo, fifo-plus-older, none, protection, the size trend and refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.domain.rotation_cases import (
    DAY,
    HOUR,
    NOON,
    collection,
    kept,
    numbers,
    removed,
    upload,
    upload_all,
    version,
)
from tornado_backups.domain.errors import Protected, QuotaExceeded
from tornado_backups.domain.model import Fifo, FifoPlusOlder, Gfs, NoRotation
from tornado_backups.domain.rotation import plan_rotation, protected_until, strategy_name, trend_holds

OLDER = FifoPlusOlder(max_older_copies=2, max_older_age=5 * DAY)


def days(count: int) -> list[datetime]:
    return [NOON + n * DAY for n in range(count)]


# -- fifo ----------------------------------------------------------------------------------------------------------


def test_fifo_keeps_the_newest_and_says_why_the_oldest_leaves() -> None:
    plan = plan_rotation(collection(3), [version(n) for n in (4, 5, 6)], NOON)
    assert kept(plan) == [5, 6, 7]
    assert [(r.version_id, r.number, r.reason) for r in plan.removals] == [
        ("id-4", 4, "not among the newest 3 (maxBackupsCount)")
    ]
    assert {k.reason for k in plan.keep} == {"among the newest 3 (maxBackupsCount)"}
    assert {k.until for k in plan.keep} == {None}
    assert [k.version for k in plan.keep] == [version(5), version(6), None]
    assert plan.refusal is None


def test_fifo_removes_nothing_while_the_queue_has_room() -> None:
    plan = plan_rotation(collection(3), [version(1), version(2)], NOON)
    assert (kept(plan), removed(plan)) == ([1, 2, 3], [])


def test_the_first_version_of_a_collection_gets_number_one() -> None:
    assert kept(plan_rotation(collection(1), [], NOON)) == [1]


def test_the_new_number_may_be_given_when_higher_ones_were_deleted() -> None:
    assert kept(plan_rotation(collection(3), [version(1)], NOON, new_number=9)) == [1, 9]


def test_order_is_by_number_though_the_clock_stepped_back() -> None:
    clocked = [version(1, NOON + 9 * DAY), version(2, NOON), version(3, NOON - DAY)]
    assert removed(plan_rotation(collection(3), clocked, NOON)) == [1]


def test_versions_in_any_order_give_the_same_plan() -> None:
    versions = [version(n) for n in (1, 2, 3)]
    assert plan_rotation(collection(2), versions[::-1], NOON) == plan_rotation(collection(2), versions, NOON)


def test_a_smaller_count_takes_effect_on_the_next_upload() -> None:
    plan = plan_rotation(collection(2), [version(n) for n in range(1, 8)], NOON)
    assert (kept(plan), removed(plan)) == ([7, 8], [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("count", [1, 0, -3])
def test_the_upload_itself_stays_whatever_the_count_says(count: int) -> None:
    assert kept(plan_rotation(collection(count), [version(1), version(2)], NOON)) == [3]


# -- fifo-plus-older -----------------------------------------------------------------------------------------------


def test_what_falls_out_of_the_queue_takes_the_free_places() -> None:
    versions = upload_all(collection(3, OLDER), days(5))
    assert numbers(versions) == [1, 2, 3, 4, 5]


def test_a_flood_cannot_push_the_older_copies_out_before_their_age() -> None:
    versions = upload_all(collection(3, OLDER), [NOON + n * HOUR for n in range(50)])
    assert numbers(versions) == [1, 2, 48, 49, 50]


def test_a_version_that_finds_every_place_taken_leaves_itself_and_is_told_why() -> None:
    plan = plan_rotation(collection(3, OLDER), upload_all(collection(3, OLDER), days(5)), NOON + 5 * DAY)
    assert removed(plan) == [3]
    assert plan.removals[0].reason == (
        "not among the newest 3 (maxBackupsCount), and no older copy's place (maxOlderCopies) is free"
    )


def test_a_place_is_freed_only_by_a_holder_older_than_the_age_not_just_as_old() -> None:
    versions = upload_all(collection(3, OLDER), days(5))
    assert removed(plan_rotation(collection(3, OLDER), versions, NOON + 5 * DAY)) == [3]
    plan = plan_rotation(collection(3, OLDER), versions, NOON + 5 * DAY + timedelta(microseconds=1))
    assert removed(plan) == [1]
    assert plan.removals[0].reason == "older than 5d (keepLastOlderNotMoreThan), and version 3 takes its place"


def test_only_one_holder_leaves_for_each_that_falls_out_however_old_the_others_are() -> None:
    versions = upload_all(collection(3, OLDER), days(5))
    plan = plan_rotation(collection(3, OLDER), versions, NOON + 100 * DAY)
    assert (kept(plan), removed(plan)) == ([2, 3, 4, 5, 6], [1])


def test_a_place_is_passed_over_while_its_holder_is_protected() -> None:
    stepped = [version(1, NOON + 2 * DAY), version(2, NOON - 9 * DAY), version(3, NOON - 9 * DAY), version(4)]
    plan = plan_rotation(collection(2, OLDER, protect=HOUR), stepped, NOON + HOUR)
    assert (kept(plan), removed(plan)) == ([1, 3, 4, 5], [2])


def test_fewer_places_are_settled_as_if_the_rest_had_just_fallen_out() -> None:
    versions = upload_all(collection(3, FifoPlusOlder(4, 5 * DAY)), days(7))
    one_place = collection(3, FifoPlusOlder(1, 5 * DAY))
    assert removed(plan_rotation(one_place, versions, NOON + 6.5 * DAY)) == [1, 2, 4, 5]
    assert removed(plan_rotation(one_place, versions, NOON + 4.5 * DAY)) == [2, 3, 4, 5]


def test_without_places_fifo_plus_older_is_fifo() -> None:
    versions = [version(n) for n in range(1, 5)]
    assert removed(plan_rotation(collection(3, FifoPlusOlder(0, 5 * DAY)), versions, NOON)) == [1, 2]


def test_a_place_says_when_it_may_be_freed_at_the_earliest() -> None:
    versions = upload_all(collection(3, OLDER), days(4))
    young = plan_rotation(collection(3, OLDER), versions, NOON + 4 * DAY).keep[0]
    assert young.until == NOON + 5 * DAY
    assert young.reason == "one of up to 2 older copies (maxOlderCopies), at least until older than 5d"
    old = plan_rotation(collection(3, OLDER), versions, NOON + 6 * DAY).keep[0]
    assert old.until is None
    assert old.reason == "one of up to 2 older copies (maxOlderCopies), until a next one falls out of the queue"


# -- none ----------------------------------------------------------------------------------------------------------


def test_none_keeps_everything_until_the_count_is_reached() -> None:
    plan = plan_rotation(collection(3, NoRotation()), [version(1), version(2)], NOON)
    assert (kept(plan), plan.refusal) == ([1, 2, 3], None)
    assert plan.keep[0].reason == "nothing is rotated (strategy none)"


@pytest.mark.parametrize("present", [3, 5])
def test_none_refuses_an_upload_to_a_full_collection(present: int) -> None:
    plan = plan_rotation(collection(3, NoRotation()), [version(n) for n in range(1, present + 1)], NOON)
    assert isinstance(plan.refusal, QuotaExceeded)
    assert plan.allowed_bytes == 0
    assert f"holds {present} of 3 versions (maxBackupsCount)" in plan.refusal.sentence
    assert (kept(plan), removed(plan)) == (list(range(1, present + 1)), [])


def test_none_refuses_an_upload_to_a_collection_without_room() -> None:
    plan = plan_rotation(collection(9, NoRotation(), hard=30), [version(1), version(2, size=20)], NOON)
    assert isinstance(plan.refusal, QuotaExceeded)
    assert plan.refusal.sentence == (
        "collection db has no room for another version (maxOneVersionSize 0B, maxCollectionSize 30B)"
    )


# -- protection ----------------------------------------------------------------------------------------------------


def test_an_upload_that_would_rotate_out_a_protected_version_is_refused_until_its_protection_ends() -> None:
    guarded = collection(2, protect=3 * DAY)
    versions = upload_all(guarded, days(2))
    plan = plan_rotation(guarded, versions, NOON + 2 * DAY)
    assert isinstance(plan.refusal, Protected)
    assert plan.refusal.until == NOON + 3 * DAY
    assert plan.refusal.sentence == (
        "this upload would rotate out version 1 of collection db, protected by protectFor (3d); "
        "try again after 2024-05-04T12:00:00+00:00"
    )
    assert (kept(plan), removed(plan), plan.allowed_bytes) == ([1, 2], [], 0)
    assert plan.keep[0].reason == "nothing leaves: the upload is refused; protected (protectFor)"
    assert plan_rotation(guarded, versions, NOON + 3 * DAY).refusal is None


def test_several_protected_versions_are_counted_and_the_last_end_is_named() -> None:
    plan = plan_rotation(collection(1, protect=3 * DAY), [version(n, NOON + n * HOUR) for n in range(5)], NOON + DAY)
    assert isinstance(plan.refusal, Protected)
    assert "version 0 and 4 more of collection" in plan.refusal.sentence
    assert plan.refusal.until == NOON + 3 * DAY + 4 * HOUR


def test_a_kept_version_says_how_long_it_is_protected() -> None:
    plan = plan_rotation(collection(3, protect=3 * DAY), [version(1, NOON - 4 * DAY), version(2, NOON - DAY)], NOON)
    assert [k.until for k in plan.keep] == [None, NOON + 2 * DAY, NOON + 3 * DAY]
    assert plan.keep[1].reason == "among the newest 3 (maxBackupsCount); protected (protectFor)"


def test_an_older_copy_stays_until_both_its_protection_and_its_age_are_over() -> None:
    versions = [version(1, NOON), version(2, NOON)]
    for protect, until in ((7 * DAY, NOON + 7 * DAY), (DAY, NOON + 5 * DAY)):
        plan = plan_rotation(collection(2, OLDER, protect=protect), versions, NOON + HOUR)
        assert plan.keep[0].until == until


def test_an_older_copy_that_finds_no_place_while_protected_refuses_the_upload() -> None:
    guarded = collection(1, FifoPlusOlder(1, 5 * DAY), protect=2 * DAY)
    plan = plan_rotation(guarded, [version(1), version(2, NOON + DAY)], NOON + 2.5 * DAY)
    assert isinstance(plan.refusal, Protected)
    assert plan.refusal.until == NOON + 3 * DAY


def test_a_version_from_the_future_is_protected_only_where_protection_is_configured() -> None:
    future = [version(1, NOON + 9 * DAY)]
    assert removed(plan_rotation(collection(1), future, NOON)) == [1]
    refusal = plan_rotation(collection(1, protect=HOUR), future, NOON).refusal
    assert isinstance(refusal, Protected)
    assert refusal.until == NOON + 9 * DAY + HOUR


def test_protection_ends_exactly_when_the_version_is_no_longer_younger_than_it() -> None:
    guarded = collection(1, protect=HOUR)
    assert protected_until(guarded, version(1), NOON + HOUR - timedelta(microseconds=1)) == NOON + HOUR
    assert protected_until(guarded, version(1), NOON + HOUR) is None
    assert protected_until(collection(1), version(1), NOON) is None


def test_a_protection_beyond_the_end_of_the_calendar_lasts_until_that_end() -> None:
    guarded = collection(1, protect=timedelta.max)
    end = datetime.max.replace(tzinfo=UTC)
    assert protected_until(guarded, version(1), NOON) == end
    assert plan_rotation(guarded, [], NOON).keep[0].until == end


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_what_is_allowed_counts_the_versions_left_after_the_rotation() -> None:
    limits = collection(2, soft=20, hard=50)
    plan = plan_rotation(limits, [version(1, size=30), version(2, size=25)], NOON)
    assert (plan.allowed_bytes, plan.refusal) == (25, None)


def test_older_copies_count_towards_the_hard_limit() -> None:
    limits = collection(1, FifoPlusOlder(2, 5 * DAY), soft=20, hard=50)
    plan = plan_rotation(limits, [version(1, size=20), version(2, size=20)], NOON)
    assert plan.allowed_bytes == 10


def test_without_limits_nothing_is_too_large() -> None:
    plan = plan_rotation(collection(1), [], NOON, 10**18)
    assert (plan.allowed_bytes, plan.refusal) == (None, None)


def test_an_upload_of_exactly_the_allowed_size_is_taken_and_one_byte_more_is_not() -> None:
    limits = collection(2, soft=20, hard=50)
    assert plan_rotation(limits, [version(1)], NOON, 30).refusal is None
    plan = plan_rotation(limits, [version(1)], NOON, 31)
    assert isinstance(plan.refusal, QuotaExceeded)
    assert (plan.refusal.size_bytes, plan.refusal.allowed_bytes, plan.allowed_bytes) == (31, 30, 30)
    assert plan.refusal.sentence == (
        "the upload has 31 bytes, collection db allows 30 (maxOneVersionSize 20B, maxCollectionSize 50B)"
    )


def test_an_upload_too_large_removes_nothing() -> None:
    plan = plan_rotation(collection(1, soft=20), [version(1)], NOON, 21)
    assert (kept(plan), removed(plan)) == ([1], [])


def test_a_collection_without_room_refuses_before_the_size_is_known() -> None:
    plan = plan_rotation(collection(3, soft=20, hard=40), [version(1, size=20), version(2, size=20)], NOON)
    assert isinstance(plan.refusal, QuotaExceeded)
    assert plan.allowed_bytes == 0


# -- size trend ----------------------------------------------------------------------------------------------------


def test_a_too_small_upload_holds_its_own_rotation_back() -> None:
    watched = collection(3, ratio=0.5)
    versions = [version(n, size=100) for n in (1, 2, 3)]
    plan = plan_rotation(watched, versions, NOON, 49)
    assert (kept(plan), removed(plan), plan.refusal) == ([1, 2, 3, 4], [], None)
    assert plan.keep[0].reason == "rotation is held back: the new version is too small (minSizeRatio)"
    assert removed(plan_rotation(watched, versions, NOON, 50)) == [1]


def test_the_first_upload_that_follows_the_trend_again_catches_up() -> None:
    watched = collection(3, ratio=0.5)
    versions = upload_all(watched, days(3), 100)
    for day in (3, 4):
        versions, plan = upload(watched, versions, NOON + day * DAY, 1)
        assert removed(plan) == []
    versions, plan = upload(watched, versions, NOON + 5 * DAY, 100)
    assert removed(plan) == [1, 2, 3]
    assert numbers(versions) == [4, 5, 6]


def test_before_the_size_is_known_the_plan_assumes_one_that_follows_the_trend() -> None:
    versions = [version(1, size=100), version(2, size=100), version(3, size=1)]
    assert removed(plan_rotation(collection(3, ratio=0.5), versions, NOON)) == [1]


def test_the_hard_limit_holds_though_rotation_is_held_back() -> None:
    watched = collection(2, ratio=0.5, hard=250)
    versions = [version(1, size=100), version(2, size=100)]
    assert plan_rotation(watched, versions, NOON).allowed_bytes == 150
    assert plan_rotation(watched, versions, NOON, 49).refusal is None
    crowded = [version(1, size=100), version(2, size=120)]
    refused = plan_rotation(watched, crowded, NOON, 31)
    assert isinstance(refused.refusal, QuotaExceeded)
    assert (refused.refusal.size_bytes, refused.allowed_bytes) == (31, 30)
    assert plan_rotation(watched, crowded, NOON, 30).refusal is None


def test_where_any_allowed_size_is_too_small_the_budget_counts_everything_from_the_start() -> None:
    watched = collection(3, ratio=0.9, soft=50, hard=150)
    versions = [version(1, size=20), version(2, size=60), version(3, size=60)]
    assert plan_rotation(watched, versions, NOON).allowed_bytes == 10


def test_a_held_back_rotation_asks_nothing_of_protection() -> None:
    watched = collection(1, ratio=0.5, protect=DAY)
    assert isinstance(plan_rotation(watched, [version(1, size=100)], NOON).refusal, Protected)
    assert plan_rotation(watched, [version(1, size=100)], NOON, 1).refusal is None


@pytest.mark.parametrize(
    ("sizes", "holds"),
    [
        ([], True),
        ([1], True),
        ([50, 100], True),
        ([49, 100], False),
        ([50, 100, 100, 100, 1, 1], True),
        ([49, 100, 100, 100, 1, 1], False),
        ([50, 100, 100, 100, 100, 100, 9999, 9999, 9999], True),
    ],
)
def test_the_newest_size_is_judged_by_the_median_of_the_five_before(sizes: list[int], holds: bool) -> None:
    assert trend_holds(collection(3, ratio=0.5), sizes) is holds
    assert trend_holds(collection(3), sizes) is True


def test_every_rule_has_its_name_of_the_yaml() -> None:
    rules = [Fifo(), OLDER, Gfs(), NoRotation()]
    assert [strategy_name(rule) for rule in rules] == ["fifo", "fifo-plus-older", "gfs", "none"]
