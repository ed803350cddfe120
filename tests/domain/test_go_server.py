"""Which rows of a Go server become versions and sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tornado_backups.domain.go_server import GoSession, GoVersion, session_of, sort_out
from tornado_backups.domain.model import Session
from tornado_backups.domain.recovery import MAX_NUMBER

NOON = datetime(2022, 3, 1, 12, tzinfo=UTC)
NEVER = datetime(1, 1, 1, tzinfo=UTC)


def row(number: int, hours: int = 0, **changes: object) -> GoVersion:
    made = NOON + timedelta(hours=hours)
    plain = GoVersion(f"id-{number}-{hours}", "db", number, f"db-{number}.gpg", 10, "session", "alice", made, made)
    return replace(plain, **changes)  # type: ignore[arg-type]


def session(**changes: object) -> GoSession:
    plain = GoSession("a" * 64, "alice", "key", "ci", "1.2.3.4", NOON, False, False, NOON, NOON)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_usable_rows_come_by_number() -> None:
    rows = [row(10, 2), row(2, 1), row(1, 3)]
    assert sort_out(rows) == ([rows[2], rows[1], rows[0]], [])


def test_of_rows_that_name_one_object_the_newest_is_right() -> None:
    older, newer = row(1, 0, filename="same.gpg"), row(2, 1, filename="same.gpg")
    usable, left = sort_out([older, newer])
    assert usable == [newer]
    assert left == [(older, "version 2, a newer row, has overwritten its object")]


def test_of_rows_with_one_number_the_newest_is_right() -> None:
    older, newer = row(1, 0, filename="old-1.gpg"), row(1, 1)
    assert sort_out([newer, older]) == ([newer], [(older, "a newer row, db/db-1.gpg, has the same number")])


def test_rows_without_a_time_count_as_the_oldest() -> None:
    older, newer = row(1, created_at=None), row(1, 1)
    assert sort_out([older, newer])[0] == [newer]


@pytest.mark.parametrize(
    "changes",
    [
        {"filename": ""},
        {"filename": "../x"},
        {"filename": "x" * 256},
        {"collection": ".."},
        {"number": 0},
        {"number": MAX_NUMBER + 1},
        {"id": ""},
    ],
)
def test_rows_that_make_no_sense_are_left(changes: dict[str, object]) -> None:
    bad = replace(row(1), **changes)  # type: ignore[arg-type]
    usable, left = sort_out([bad])
    assert usable == []
    assert [entry[0] for entry in left] == [bad]
    assert left[0][1]


def test_a_version_keeps_what_the_row_says() -> None:
    version = row(3, 1).version(10, NOON)
    assert (version.id, version.object_key, version.number) == ("id-3-1", "db/db-3.gpg", 3)
    assert (version.size_bytes, version.sha256, version.damage, version.checked_at) == (10, "", "", None)
    assert version.created_at == NOON + timedelta(hours=1)


def test_an_object_of_another_size_is_damaged_from_the_start() -> None:
    version = row(3).version(9, NOON)
    assert version.size_bytes == 10
    assert version.damage == "the object has 9 bytes, 10 were registered"


def test_a_row_without_a_size_takes_that_of_the_object() -> None:
    version = row(3, filesize=0).version(9, NOON)
    assert (version.size_bytes, version.damage) == (9, "")


def test_a_row_without_times_counts_as_made_now() -> None:
    now = NOON + timedelta(days=1)
    assert row(1, created_at=None, updated_at=NEVER).version(1, now).created_at == now
    assert row(1, created_at=NEVER).version(1, now).created_at == NOON


def test_a_session_keeps_expiry_and_deactivation() -> None:
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    found = session_of(session(deactivated=True, expires_at=berlin, created_at=None))
    assert found == Session("a" * 64, "alice", "key", "ci", "1.2.3.4", NOON, NOON, NOON, deactivated=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deleted": True}, "it is soft-deleted, so its token is not valid"),
        ({"id": "A" * 64}, "its id is not the SHA-256 of a token"),
        ({"user": ""}, "it has no user or no expiry"),
        ({"expires_at": None}, "it has no user or no expiry"),
        ({"expires_at": NEVER}, "it has no user or no expiry"),
    ],
)
def test_a_session_that_could_not_be_used_is_left(changes: dict[str, object], reason: str) -> None:
    assert session_of(session(**changes)) == reason


def test_a_session_without_times_is_as_old_as_can_be() -> None:
    found = session_of(session(created_at=None, updated_at=None))
    assert isinstance(found, Session)
    assert found.created_at == datetime(1970, 1, 1, tzinfo=UTC)
