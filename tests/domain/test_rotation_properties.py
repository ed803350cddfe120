"""What holds for every collection, every history and every upload: the promises of rotation as properties."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.rotation_cases import HOUR, NOON, collection, kept, numbers, removed, upload, version
from tornado_backups.domain.errors import Protected, QuotaExceeded
from tornado_backups.domain.model import (
    Collection,
    Fifo,
    FifoPlusOlder,
    Gfs,
    NoRotation,
    RotationRule,
    Version,
)
from tornado_backups.domain.rotation import plan_rotation, protected_until, simulate

settings.register_profile("rotation", max_examples=150, deadline=None)
moderate = settings.get_profile("rotation")

spans = st.integers(0, 24 * 30).map(lambda hours: hours * HOUR)
few = st.integers(0, 4)
rules: st.SearchStrategy[RotationRule] = st.one_of(
    st.just(Fifo()),
    st.just(NoRotation()),
    st.builds(FifoPlusOlder, max_older_copies=few, max_older_age=spans),
    st.builds(
        Gfs,
        keep_last=few,
        keep_hourly=few,
        keep_daily=few,
        keep_weekly=few,
        keep_monthly=few,
        keep_yearly=few,
        timezone=st.sampled_from(["UTC", "Europe/Warsaw", "Pacific/Apia", "America/St_Johns"]),
    ),
)
collections = st.builds(
    collection,
    st.integers(1, 8),
    rules,
    protect=st.one_of(st.just(timedelta(0)), spans),
    soft=st.sampled_from([0, 50, 100]),
    hard=st.sampled_from([0, 300, 600]),
    ratio=st.sampled_from([0.0, 0.5, 1.0]),
)
moments = st.integers(-24 * 400, 24 * 40).map(lambda hours: NOON + hours * HOUR)
sizes = st.integers(0, 150)


@st.composite
def histories(draw: st.DrawFn) -> list[Version]:
    """Versions with gaps in their numbers and clocks that step back, into the future too."""
    chosen = sorted(draw(st.sets(st.integers(1, 40), max_size=14)))
    return [version(number, draw(moments), draw(sizes)) for number in chosen]


@moderate
@given(collections, histories(), st.one_of(st.none(), sizes))
def test_what_stays_and_what_leaves_are_together_all_versions_and_the_upload(
    of: Collection, versions: list[Version], size: int | None
) -> None:
    plan = plan_rotation(of, versions, NOON, size)
    new = [] if plan.refusal else [max(numbers(versions), default=0) + 1]
    assert sorted(kept(plan) + removed(plan)) == numbers(versions) + new
    assert kept(plan) == sorted(kept(plan))
    assert removed(plan) == sorted(removed(plan))
    assert all(entry.reason for entry in (*plan.keep, *plan.removals))


@moderate
@given(collections, histories(), st.one_of(st.none(), sizes))
def test_no_protected_version_ever_leaves(of: Collection, versions: list[Version], size: int | None) -> None:
    guarded = {entry.number for entry in versions if protected_until(of, entry, NOON) is not None}
    assert guarded.isdisjoint(removed(plan_rotation(of, versions, NOON, size)))


@moderate
@given(collections, histories(), sizes)
def test_the_newest_always_stays_and_a_refused_upload_removes_nothing(
    of: Collection, versions: list[Version], size: int
) -> None:
    after, plan = upload(of, versions, NOON, size)
    if plan.refusal is None:
        assert plan.keep[-1].version is None
        assert numbers(after)[-1] == max(numbers(versions), default=0) + 1
    else:
        assert (plan.removals, after) == ((), versions)


@moderate
@given(collections, histories())
def test_no_rule_keeps_less_than_its_own_minimum(of: Collection, versions: list[Version]) -> None:
    plan = plan_rotation(of, versions, NOON)
    rule, total, count = of.rotation, len(versions) + 1, of.max_backups_count
    if plan.refusal is not None:
        return
    if isinstance(rule, Fifo):
        minimum = min(count, total)
    elif isinstance(rule, FifoPlusOlder):
        minimum = min(count + rule.max_older_copies, total)
    elif isinstance(rule, NoRotation):
        minimum = total
    else:
        minimum = min(count, total, max(1, rule.keep_last))
    assert len(plan.keep) >= minimum


@moderate
@given(collections, histories())
def test_no_rule_keeps_more_than_its_own_maximum(of: Collection, versions: list[Version]) -> None:
    plan = plan_rotation(of, versions, NOON)
    if plan.refusal is None:
        places = of.rotation.max_older_copies if isinstance(of.rotation, FifoPlusOlder) else 0
        assert len(plan.keep) <= of.max_backups_count + places


@moderate
@given(collections, st.integers(1, 30), st.data())
def test_a_flood_of_uploads_within_the_protection_removes_nothing(
    of: Collection, flood: int, data: st.DataObject
) -> None:
    minutes = sorted(data.draw(st.lists(st.integers(0, 59), min_size=flood, max_size=flood)))
    guarded = collection(of.max_backups_count, of.rotation, 2 * HOUR, 0, 0, of.min_size_ratio)
    versions: list[Version] = []
    for minute in minutes:
        versions, plan = upload(guarded, versions, NOON + timedelta(minutes=minute), data.draw(sizes))
        assert plan.removals == ()
        assert plan.refusal is None or isinstance(plan.refusal, Protected | QuotaExceeded)
    assert numbers(versions) == list(range(1, len(versions) + 1))


@moderate
@given(
    st.builds(FifoPlusOlder, max_older_copies=st.integers(1, 4), max_older_age=spans.filter(bool)),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_a_flood_cannot_push_an_older_copy_out_before_its_age(rule: FifoPlusOlder, count: int, flood: int) -> None:
    versions: list[Version] = []
    for n in range(flood):
        versions, _ = upload(collection(count, rule), versions, NOON + rule.max_older_age * n / flood)
    places = min(rule.max_older_copies, max(0, flood - count))
    assert numbers(versions)[:places] == list(range(1, places + 1))


@moderate
@given(collections, histories(), sizes)
def test_what_a_plan_left_is_left_in_peace_by_the_same_rule(of: Collection, versions: list[Version], size: int) -> None:
    """Seen as the outcome of its newest upload, a rotated collection has nothing more to rotate."""
    unlimited = collection(of.max_backups_count, of.rotation, of.protect_for)
    after, plan = upload(unlimited, versions, NOON, size)
    if plan.refusal is None:
        newest = after[-1]
        again = plan_rotation(unlimited, after[:-1], NOON, newest.size_bytes, new_number=newest.number)
        assert kept(again) == numbers(after)
        assert again.removals == ()


@moderate
@given(collections, histories(), sizes)
def test_an_upload_within_what_is_allowed_never_passes_the_hard_limit(
    of: Collection, versions: list[Version], size: int
) -> None:
    after, plan = upload(of, versions, NOON, size)
    assert plan.allowed_bytes is None or plan.allowed_bytes >= 0
    if plan.refusal is None:
        assert plan.allowed_bytes is None or size <= plan.allowed_bytes
        if of.max_collection_bytes:
            assert sum(entry.size_bytes for entry in after) <= of.max_collection_bytes


@moderate
@given(collections, histories(), sizes)
def test_what_the_begin_of_an_upload_allows_its_commit_accepts_unless_rotation_is_held_back(
    of: Collection, versions: list[Version], size: int
) -> None:
    begin = plan_rotation(of, versions, NOON)
    commit = plan_rotation(of, versions, NOON, size)
    held = any("held back" in entry.reason for entry in commit.keep)
    if begin.refusal is None and (begin.allowed_bytes is None or size <= begin.allowed_bytes):
        assert commit.refusal is None or commit.allowed_bytes != begin.allowed_bytes
        assert held or commit.refusal is not None or removed(commit) == removed(begin)


@moderate
@given(collections, histories(), st.lists(moments, max_size=6))
def test_a_simulation_is_what_real_uploads_of_that_size_would_do(
    of: Collection, versions: list[Version], times: list[datetime]
) -> None:
    steps = simulate(of, versions, times, NOON)
    assert [time for time, _ in steps] == times
    size = next((v.size_bytes for _, p in steps for k in p.keep if (v := k.version) and v.id.startswith("sim")), None)
    live = versions
    for time, plan in steps if size is not None else []:
        live, real = upload(of, live, time, size)
        assert (kept(plan), removed(plan)) == (kept(real), removed(real))


@moderate
@given(collections, histories())
def test_until_is_always_still_to_come(of: Collection, versions: list[Version]) -> None:
    plan = plan_rotation(of, versions, NOON)
    assert all(entry.until is None or entry.until >= NOON for entry in plan.keep)
