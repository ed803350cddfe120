"""The gfs strategy by example: periods, time zones, giving way, protection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.domain.rotation_cases import DAY, HOUR, NOON, collection, kept, numbers, removed, upload_all, version
from tornado_backups.domain.errors import ConfigurationFault, Protected
from tornado_backups.domain.model import Gfs
from tornado_backups.domain.rotation import plan_rotation


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_newest_version_of_each_of_the_last_days_stays() -> None:
    daily = collection(10, Gfs(keep_daily=3))
    versions = upload_all(daily, [NOON + n * 8 * HOUR for n in range(12)])
    assert [entry.created_at.isoformat()[:16] for entry in versions] == [
        "2024-05-03T20:00",
        "2024-05-04T20:00",
        "2024-05-05T04:00",
    ]


def test_days_without_a_version_do_not_count() -> None:
    versions = upload_all(collection(10, Gfs(keep_daily=3)), [NOON, NOON + 100 * DAY, NOON + 500 * DAY])
    assert numbers(versions) == [1, 2, 3]


@pytest.mark.parametrize(
    ("rule", "times", "stay"),
    [
        (Gfs(keep_last=2), ["2024-05-01T10:00", "2024-05-01T10:01", "2024-05-01T10:02"], [2, 3]),
        (Gfs(keep_hourly=2), ["2024-05-01T10:00", "2024-05-01T10:59", "2024-05-01T11:00"], [2, 3]),
        (Gfs(keep_daily=2), ["2024-05-01T10:00", "2024-05-01T23:59", "2024-05-02T00:00"], [2, 3]),
        (Gfs(keep_weekly=2), ["2024-12-29T10:00", "2024-12-30T10:00", "2025-01-05T10:00"], [1, 3]),
        (Gfs(keep_monthly=2), ["2024-05-01T10:00", "2024-05-31T10:00", "2024-06-01T00:00"], [2, 3]),
        (Gfs(keep_yearly=2), ["2024-05-01T10:00", "2024-12-31T23:59", "2025-01-01T00:00"], [2, 3]),
        (Gfs(keep_daily=1, keep_yearly=2), ["2023-05-01T10:00", "2024-05-01T10:00", "2024-06-01T10:00"], [1, 3]),
    ],
)
def test_each_rule_keeps_the_newest_of_its_own_periods(rule: Gfs, times: list[str], stay: list[int]) -> None:
    assert numbers(upload_all(collection(10, rule), [at(time) for time in times])) == stay


def test_periods_are_those_of_the_configured_time_zone() -> None:
    around_midnight = [at("2024-05-01T21:59"), at("2024-05-01T22:01")]
    assert numbers(upload_all(collection(9, Gfs(keep_daily=5)), around_midnight)) == [2]
    assert numbers(upload_all(collection(9, Gfs(keep_daily=5, timezone="Europe/Warsaw")), around_midnight)) == [1, 2]


def test_no_time_zone_is_utc() -> None:
    assert numbers(upload_all(collection(9, Gfs(keep_daily=5, timezone="")), [NOON, NOON + 11 * HOUR])) == [2]


def test_the_hour_that_daylight_saving_doubles_is_two_hours() -> None:
    doubled = [at("2024-10-27T00:30"), at("2024-10-27T01:30")]  # 02:30 twice in Warsaw
    assert numbers(upload_all(collection(9, Gfs(keep_hourly=5, timezone="Europe/Warsaw")), doubled)) == [1, 2]


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "Europe", "\0"])
def test_an_unknown_time_zone_refuses_the_upload_and_removes_nothing(zone: str) -> None:
    plan = plan_rotation(collection(1, Gfs(keep_daily=1, timezone=zone)), [version(1), version(2)], NOON)
    assert isinstance(plan.refusal, ConfigurationFault)
    assert "is no known time zone; write an IANA name such as UTC or Europe/Warsaw" in str(plan.refusal)
    assert (kept(plan), removed(plan), plan.allowed_bytes) == ([1, 2], [], 0)


def test_reasons_name_every_rule_and_its_period() -> None:
    rule = Gfs(keep_last=1, keep_hourly=1, keep_daily=2, keep_weekly=1, keep_monthly=2, keep_yearly=1)
    times = [at("2024-04-30T10:00"), at("2024-05-01T10:00")]
    plan = plan_rotation(collection(10, rule), upload_all(collection(10, rule), times), at("2024-05-01T11:00"))
    assert [(entry.number, entry.reason) for entry in plan.keep] == [
        (1, "newest of 2024-04 (keepMonthly), newest of 2024-04-30 (keepDaily)"),
        (
            3,
            "the newest, newest of 2024 (keepYearly), newest of 2024-05 (keepMonthly), newest of 2024-W18 (keepWeekly),"
            " newest of 2024-05-01 (keepDaily), newest of 2024-05-01T11+0000 (keepHourly), among the last 1 (keepLast)",
        ),
    ]
    assert [(removal.number, removal.reason) for removal in plan.removals] == [(2, "no keep rule chooses it")]


def test_the_finest_rule_gives_way_first_and_its_oldest_choice_first() -> None:
    rule = Gfs(keep_daily=4, keep_monthly=3)
    times = [at(f"2024-0{month}-15T10:00") for month in (3, 4)] + [at(f"2024-05-0{day}T10:00") for day in range(1, 7)]
    versions = upload_all(collection(20, rule), times)
    assert numbers(versions) == [1, 2, 5, 6, 7, 8]
    plan = plan_rotation(collection(4, rule), versions, at("2024-05-06T11:00"))
    assert kept(plan) == [1, 2, 7, 9]
    assert [(removal.number, removal.reason) for removal in plan.removals] == [
        (5, "newest of 2024-05-03 (keepDaily) gives way to maxBackupsCount (4)"),
        (6, "newest of 2024-05-04 (keepDaily) gives way to maxBackupsCount (4)"),
        (8, "no keep rule chooses it"),
    ]


def test_the_newest_stays_when_no_rule_has_room_for_it() -> None:
    rule = Gfs(keep_yearly=5)
    versions = [version(1, at("2022-01-01T00:00")), version(2, at("2023-01-01T00:00"))]
    assert kept(plan_rotation(collection(1, rule), versions, NOON)) == [3]


def test_the_newest_stays_though_the_clock_stepped_back_into_a_period_that_is_taken() -> None:
    stepped = [version(1, NOON - DAY), version(2, NOON)]
    plan = plan_rotation(collection(5, Gfs(keep_daily=1)), stepped, NOON - DAY)
    assert (kept(plan), removed(plan)) == ([3], [1, 2])


def test_gfs_without_any_keep_rule_is_fifo() -> None:
    assert removed(plan_rotation(collection(2, Gfs()), [version(1), version(2)], NOON)) == [1]


def test_a_protected_version_that_no_rule_chooses_stays_while_there_is_room() -> None:
    guarded = collection(3, Gfs(keep_daily=7), protect=6 * HOUR)
    plan = plan_rotation(guarded, [version(1)], NOON + HOUR)
    assert (kept(plan), plan.refusal) == ([1, 2], None)
    assert plan.keep[0].reason == "protected (protectFor), no keep rule chooses it"
    assert plan.keep[0].until == NOON + 6 * HOUR
    assert removed(plan_rotation(guarded, [version(1)], NOON + 6 * HOUR)) == [1]


def test_a_protected_version_without_room_refuses_the_upload_instead_of_pushing_an_old_one_out() -> None:
    guarded = collection(3, Gfs(keep_daily=7), protect=6 * HOUR)
    versions = [version(1, NOON - DAY), version(2), version(3, NOON + HOUR)]
    plan = plan_rotation(guarded, versions, NOON + 2 * HOUR)
    assert isinstance(plan.refusal, Protected)
    assert plan.refusal.until == NOON + 6 * HOUR
    assert kept(plan_rotation(guarded, versions, NOON + 6 * HOUR)) == [1, 3, 4]


def test_a_long_history_is_thinned_as_a_calendar_would() -> None:
    rule = Gfs(keep_daily=7, keep_weekly=4, keep_monthly=12, keep_yearly=2)
    versions = upload_all(collection(30, rule), [at("2022-01-01T03:00") + n * DAY for n in range(3 * 365)])
    assert versions[-1].created_at == at("2024-12-30T03:00")
    expected = {at("2024-12-30T03:00") - n * DAY for n in range(7)}
    expected |= {at(f"2024-12-{day}T03:00") for day in ("08", "15", "22", "29")} - {at("2024-12-08T03:00")}
    expected |= {at(f"2024-{month + 1:02}-01T03:00") - DAY for month in range(1, 12)}
    expected |= {at("2023-12-31T03:00")}
    assert {entry.created_at for entry in versions} == expected
    assert timedelta(0) < versions[-1].created_at - versions[0].created_at < 366 * DAY
