"""Health checks: what holds, what does not, and what the messages tell the person who is woken up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.domain.health import (
    BACKUP_WINDOW,
    CHECK_NAMES,
    RECENT_SIZES_NEEDED,
    CollectionFacts,
    check_backup_window,
    check_freshness,
    check_integrity,
    check_size_trend,
    check_sum_of_versions,
    check_versions_size,
    collect_facts,
    evaluate,
)
from tornado_backups.domain.model import BackupWindow, Collection, Usage, Version
from tornado_backups.domain.trend import COMPARED_VERSIONS, trend_minimum

HOUR = timedelta(hours=1)
DB = Collection("db", "db-${version}.asc", 5)
NIGHTLY = BackupWindow("0 2 * * *", HOUR, "Europe/Warsaw")
AFTERNOON = BackupWindow("0 14 * * *", HOUR, "UTC")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def version(created_at: str = "2025-06-06T00:10", number: int = 7) -> Version:
    at = utc(created_at)
    return Version(f"id{number}", "db", number, f"db-{number}.asc", f"db/id{number}/db", 100, "", "s", "alice", at, at)


# -- backup windows --------------------------------------------------------------------------------------------------


def test_without_windows_there_is_nothing_to_check() -> None:
    assert check_backup_window(DB, None, utc("2025-06-06T12:00")) is None


def test_a_version_of_the_last_window_is_in_time() -> None:
    result = check_backup_window(replace(DB, windows=(NIGHTLY,)), version(), utc("2025-06-06T12:00"))
    assert result is not None
    assert result.ok
    assert result.message == "the last backup is version 7 of 2025-06-06T00:10:00Z, in time for its backup window"


def test_one_window_kept_is_enough() -> None:
    collection = replace(DB, windows=(AFTERNOON, NIGHTLY))
    result = check_backup_window(collection, version(), utc("2025-06-06T16:00"))
    assert result is not None
    assert result.ok


def test_a_missed_window_says_what_was_expected_and_when_the_last_backup_came() -> None:
    result = check_backup_window(replace(DB, windows=(NIGHTLY,)), version(), utc("2025-06-08T12:00"))
    assert result is not None
    assert not result.ok
    assert result.message == (
        'expected a version in the backup window "0 2 * * *" (Europe/Warsaw) '
        "from 2025-06-08T00:00:00Z to 2025-06-08T01:00:00Z; the last backup is version 7 of 2025-06-06T00:10:00Z; "
        "the next window opens at 2025-06-09T00:00:00Z"
    )


def test_while_a_window_is_open_the_message_names_it_and_the_one_before() -> None:
    result = check_backup_window(replace(DB, windows=(NIGHTLY,)), version(), utc("2025-06-08T00:30"))
    assert result is not None
    assert (
        "from 2025-06-07T00:00:00Z to 2025-06-07T01:00:00Z or from 2025-06-08T00:00:00Z to 2025-06-08T01:00:00Z;"
        in result.message
    )


def test_several_missed_windows_are_all_named_and_no_version_at_all_is_a_failure() -> None:
    result = check_backup_window(replace(DB, windows=(NIGHTLY, AFTERNOON)), None, utc("2025-06-08T12:00"))
    assert result is not None
    assert not result.ok
    assert '"0 2 * * *" (Europe/Warsaw) from' in result.message
    assert ' or in the backup window "0 14 * * *" (UTC) from 2025-06-07T14:00:00Z' in result.message
    assert "; there is no version yet; the next window opens at 2025-06-08T14:00:00Z" in result.message


def test_at_the_end_of_the_calendar_no_next_window_is_promised() -> None:
    in_the_servers_zone = BackupWindow("0 2 1 1 *", HOUR)
    result = check_backup_window(replace(DB, windows=(in_the_servers_zone,)), None, utc("9999-06-06T12:00"))
    assert result is not None
    assert result.message.endswith("there is no version yet")
    assert 'the backup window "0 2 1 1 *" from' in result.message


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("largest", "ok"), [(0, True), (1000, True), (1001, False)])
def test_a_version_above_the_soft_limit_is_reported(largest: int, ok: bool) -> None:
    result = check_versions_size(replace(DB, max_one_version_bytes=1000), largest)
    assert result.ok == ok
    assert f"{largest}" in result.message
    assert "1000 bytes" in result.message


@pytest.mark.parametrize(("used", "ok"), [(0, True), (5000, True), (5001, False)])
def test_a_total_above_the_hard_limit_is_reported(used: int, ok: bool) -> None:
    result = check_sum_of_versions(replace(DB, max_collection_bytes=5000), used)
    assert result.ok == ok
    assert f"{used}" in result.message
    assert "5000 bytes" in result.message


def test_without_limits_every_size_is_right() -> None:
    assert check_versions_size(DB, 10**15).ok
    assert check_sum_of_versions(DB, 10**18).ok


# -- integrity -------------------------------------------------------------------------------------------------------


def test_damaged_versions_are_named_with_the_last_good_backup() -> None:
    assert check_integrity((), version()).ok
    result = check_integrity((5, 3), version())
    assert not result.ok
    assert result.message == (
        "expected every version whole; damaged or missing: version 3, 5; "
        "the last backup is version 7 of 2025-06-06T00:10:00Z"
    )


def test_a_damaged_newest_version_is_not_called_the_last_backup() -> None:
    result = check_integrity((7,), version())
    assert result.message.endswith("version 7; the newest version is among them")


def test_a_flood_of_damage_is_counted_not_listed() -> None:
    result = check_integrity(tuple(range(1, 1001)), version(number=1001))
    assert "version 996, 997, 998, 999, 1000 and 995 older; " in result.message


# -- freshness -------------------------------------------------------------------------------------------------------


def test_freshness_is_checked_only_where_configured() -> None:
    assert check_freshness(DB, version(), utc("2030-01-01T00:00")) is None


@pytest.mark.parametrize(("now", "ok"), [("2025-06-07T02:10", True), ("2025-06-07T02:10:01", False)])
def test_a_version_is_fresh_until_older_than_max_age(now: str, ok: bool) -> None:
    result = check_freshness(replace(DB, max_age=26 * HOUR), version(), utc(now))
    assert result is not None
    assert result.ok == ok
    assert "version 7 of 2025-06-06T00:10:00Z" in result.message


def test_a_stale_collection_says_how_old_a_version_may_be() -> None:
    result = check_freshness(replace(DB, max_age=26 * HOUR), None, utc("2025-06-07T00:00"))
    assert result is not None
    assert not result.ok
    assert result.message == "expected a version no older than 1d2h; there is no version yet"


# -- size trend ------------------------------------------------------------------------------------------------------


def test_the_size_trend_is_checked_only_where_configured() -> None:
    assert check_size_trend(DB, version(), (1, 1000)) is None


@pytest.mark.parametrize(
    ("sizes", "ok"),
    [
        ((), True),
        ((1,), True),
        ((500, 1000), True),
        ((499, 1000), False),
        ((500, 1, 1000, 1000, 1000, 99999), True),
        ((499, 1, 1000, 1000, 1000, 99999), False),
        ((500, 1000, 1000, 1000, 1000, 1000, 99999, 99999, 99999, 99999, 99999, 99999), True),
    ],
)
def test_the_newest_version_has_its_share_of_the_median_of_the_five_before(sizes: tuple[int, ...], ok: bool) -> None:
    result = check_size_trend(replace(DB, min_size_ratio=0.5), version(), sizes)
    assert result is not None
    assert result.ok == ok


def test_a_version_that_is_too_small_says_what_was_expected_and_that_rotation_waits() -> None:
    result = check_size_trend(replace(DB, min_size_ratio=0.5), version(), (10, 1000, 3000))
    assert result is not None
    assert result.message == (
        "expected the newest version to have at least 0.5 of the median of the 2 before it, 1000 bytes; it has 10, "
        "and rotation removes nothing until that holds again; the last backup is version 7 of 2025-06-06T00:10:00Z"
    )


@given(st.floats(0.01, 1), st.lists(st.integers(0, 10**12), max_size=12))
@settings(max_examples=100, deadline=None)
def test_a_steady_size_always_follows_the_trend_and_only_five_versions_count(ratio: float, sizes: list[int]) -> None:
    least = trend_minimum(ratio, sizes)
    assert least == trend_minimum(ratio, sizes[:COMPARED_VERSIONS])
    assert (least is None) == (not sizes)
    if least is not None:
        assert least <= max(sizes[:COMPARED_VERSIONS])
    assert trend_minimum(0, sizes) is None


# -- all together ----------------------------------------------------------------------------------------------------


def test_the_four_checks_of_every_collection_come_first_and_the_configured_ones_after() -> None:
    now = utc("2025-06-06T12:00")
    assert [result.name for result in evaluate(DB, CollectionFacts(), now)] == list(CHECK_NAMES[:4])
    full = replace(DB, windows=(NIGHTLY,), max_age=HOUR, min_size_ratio=0.5)
    assert [result.name for result in evaluate(full, CollectionFacts(), now)] == list(CHECK_NAMES)


def test_an_empty_collection_without_windows_and_max_age_is_healthy() -> None:
    results = evaluate(DB, CollectionFacts(), utc("2025-06-06T12:00"))
    assert all(result.ok for result in results)
    assert results[0].name == BACKUP_WINDOW
    assert results[0].message == "no backup window is configured: any time is right"


def test_every_check_can_fail_at_once() -> None:
    strict = replace(
        DB,
        windows=(NIGHTLY,),
        max_one_version_bytes=10,
        max_collection_bytes=20,
        max_age=HOUR,
        min_size_ratio=0.5,
    )
    facts = CollectionFacts(3, 600, version("2025-06-01T12:00"), (100, 300, 200), 300, (1,))
    results = evaluate(strict, facts, utc("2025-06-06T12:00"))
    assert [result.ok for result in results] == [False] * len(CHECK_NAMES)


def test_facts_are_picked_from_what_the_registry_tells_of_all_collections() -> None:
    newest, broken = version(), version(number=3)
    usages = {"db": Usage("db", 2, 300, newest)}
    facts = collect_facts("db", usages, {"db": [100, 200]}, {"db": 200}, {"db": [broken], "web": [newest]})
    assert facts == CollectionFacts(2, 300, newest, (100, 200), 200, (3,))
    assert collect_facts("db", usages, {}, {}, {}) == CollectionFacts(2, 300, newest)
    assert collect_facts("other", usages, {}, {}, {}) == CollectionFacts()
    assert RECENT_SIZES_NEEDED == 6
