"""Numbers read from names, and given to objects that a registry has forgotten."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_backups.domain.model import StoredObject
from tornado_backups.domain.recovery import (
    MAX_NUMBER,
    Place,
    number_by_guess,
    number_by_template,
    place_of,
    plan_recovery,
)

DAY = datetime(2024, 5, 17, tzinfo=UTC)
IDS = [str(uuid.UUID(int=number)) for number in range(100)]


def stored(filename: str, age_days: int = 0, id_: str = IDS[0]) -> StoredObject:
    key = f"db/{id_}/{filename}" if id_ else f"db/{filename}"
    return StoredObject(key, 10, DAY - timedelta(days=age_days))


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (f"db/{IDS[1]}/db-1.gpg", Place("db", IDS[1], "db-1.gpg")),
        ("db/db-1.gpg", Place("db", "", "db-1.gpg")),
        ("db-1.gpg", None),
        ("", None),
        (f"db/{IDS[1]}", Place("db", "", IDS[1])),
        (f"db/{IDS[1]}/", None),
        (f"/{IDS[1]}/x", None),
        (f"db/{IDS[1].upper().replace('0', 'A')}/x1", None),
        (f"db/{{{IDS[1]}}}/x1", None),
        ("db/no-uuid/x1", None),
        (f"db/{IDS[1]}/a/b1", None),
        (f"../{IDS[1]}/x1", None),
        (f"db/{IDS[1]}/x\0", None),
        (f"db/{IDS[1]}/{'x' * 256}", None),
        (f"db/{IDS[1]}/x\udcff1", None),
    ],
)
def test_only_keys_of_the_two_layouts_have_a_place(key: str, place: Place | None) -> None:
    assert place_of(key) == place


@pytest.mark.parametrize(
    ("filename", "template", "number"),
    [
        ("db-7.gpg", "db-${version}.gpg", 7),
        ("db-7-${version}.gpg", "db-${version}-${version}.gpg", 7),
        ("7", "${version}", 7),
        ("db-07.gpg", "db-${version}.gpg", None),
        ("db-0.gpg", "db-${version}.gpg", None),
        ("dbx7.gpg", "db.${version}.gpg", None),
        ("db-7.gpg.old", "db-${version}.gpg", None),
        ("db-٧.gpg", "db-${version}.gpg", None),
        (f"db-{MAX_NUMBER}.gpg", "db-${version}.gpg", MAX_NUMBER),
        (f"db-{MAX_NUMBER + 1}.gpg", "db-${version}.gpg", None),
        (f"db-{'9' * 5000}.gpg", "db-${version}.gpg", None),
    ],
)
def test_a_template_says_where_the_number_stands(filename: str, template: str, number: int | None) -> None:
    assert number_by_template(filename, template) == number


@pytest.mark.parametrize(
    ("filename", "number"),
    [
        ("pg15-7.sql.bz2", 7),
        ("iwa-ait-v12.tar.gz", 12),
        ("7-db.tar", 7),
        ("db.7.gpg", 7),
        ("db-007.gpg", 7),
        ("db-000.gpg", None),
        ("notes", None),
        ("notes.gpg", None),
    ],
)
def test_without_a_template_the_number_is_the_last_one_before_the_first_dot(filename: str, number: int | None) -> None:
    assert number_by_guess(filename) == number


@given(st.integers(1, MAX_NUMBER), st.sampled_from(["db-${version}.gpg", "${version}", "pg15-${version}.${version}x"]))
def test_what_a_template_makes_it_reads_again(number: int, template: str) -> None:
    assert number_by_template(template.replace("${version}", str(number), 1), template) == number


def test_numbers_are_given_in_the_order_of_number_then_age() -> None:
    objects = [stored("db-3.gpg", 1), stored("db-3.gpg", 5, IDS[1]), stored("db-1.gpg", 9, IDS[2]), stored("db-9.gpg")]
    plan = plan_recovery(objects, "db-${version}.gpg", set(), 0)
    assert [(adoption.stored, adoption.number) for adoption in plan.adoptions] == [
        (objects[2], 1),
        (objects[1], 3),
        (objects[0], 10),
        (objects[3], 9),
    ]
    assert plan.highest == 10
    assert plan.adoptions[2].named_number == 3


def test_a_taken_number_becomes_the_next_after_the_highest_of_all() -> None:
    plan = plan_recovery([stored("db-2.gpg"), stored("db-1.gpg", 0, IDS[1])], "db-${version}.gpg", {2, 5}, 20)
    assert [(adoption.named_number, adoption.number) for adoption in plan.adoptions] == [(1, 1), (2, 21)]


def test_an_object_without_a_number_is_left_with_the_reason() -> None:
    nameless, foreign, stranger = stored("notes.gpg"), stored("db-4.zip", id_=""), StoredObject("x/y/z1", 1, DAY)
    plan = plan_recovery([nameless, foreign, stranger], "db-${version}.gpg", set(), 0)
    assert plan.adoptions == ()
    assert plan.highest == 0
    assert [(left, reason.split(",")[0]) for left, reason in plan.left] == [
        (nameless, "its name holds no number that a version can have"),
        (foreign, "its name does not fit the collection's filenameTemplate 'db-${version}.gpg'"),
        (stranger, "it lies in neither collection/id/filename nor collection/filename"),
    ]


def test_an_object_of_the_go_server_needs_a_configured_collection() -> None:
    kept = stored("db-4.gpg", id_="")
    assert plan_recovery([kept], "db-${version}.gpg", set(), 0).adoptions[0].number == 4
    (left,) = plan_recovery([kept], None, set(), 0).left
    assert left[1].startswith("no collection 'db' is configured")


def test_an_object_named_by_a_former_template_gives_way_to_one_that_fits() -> None:
    former, fitting = stored("old-2.gpg", 30), stored("db-2.gpg", 1, IDS[1])
    plan = plan_recovery([former, fitting], "db-${version}.gpg", set(), 0)
    assert [(adoption.stored, adoption.number) for adoption in plan.adoptions] == [(fitting, 2), (former, 3)]


def test_without_a_configured_collection_the_number_is_guessed() -> None:
    plan = plan_recovery([stored("pg15-7.sql.gpg")], None, set(), 0)
    assert [adoption.number for adoption in plan.adoptions] == [7]


@given(st.lists(st.integers(1, 12), max_size=20), st.sets(st.integers(1, 12)), st.integers(0, 20))
def test_no_number_is_given_twice_and_none_is_lost(names: list[int], taken: set[int], last_number: int) -> None:
    objects = [stored(f"db-{number}.gpg", 0, IDS[index]) for index, number in enumerate(names)]
    plan = plan_recovery(objects, "db-${version}.gpg", taken, last_number)
    given_numbers = [adoption.number for adoption in plan.adoptions]
    assert len(set(given_numbers)) == len(objects)
    assert not set(given_numbers) & taken
    assert set(names) - taken <= set(given_numbers)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.data())
def test_a_recovery_that_was_killed_half_way_goes_on_with_numbers_not_given_yet(
    names: list[int], data: st.DataObject
) -> None:
    objects = [stored(f"db-{number}.gpg", 0, IDS[index]) for index, number in enumerate(names)]
    plan = plan_recovery(objects, "db-${version}.gpg", set(), 0)
    done = plan.adoptions[: data.draw(st.integers(0, len(objects)))]
    given_before = {adoption.number for adoption in done}
    rest = [stored_ for stored_ in objects if stored_ not in [adoption.stored for adoption in done]]
    second = plan_recovery(rest, "db-${version}.gpg", given_before, plan.highest)
    numbers = [adoption.number for adoption in second.adoptions]
    assert len(set(numbers)) == len(rest)
    assert not given_before & set(numbers)
    assert given_before | set(numbers) >= set(names)
