"""Collections and rotation as a client sees them: listing, plan, simulation, and what uploads really remove."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.serving import REPOSITORY, RunningServer, ShiftedClock, Tree, message

OLD_REPOSITORY = REPOSITORY.replace("stable", "alpha")
VERSION_FIELDS = {
    "id", "collectionId", "versionNumber", "filename", "filesize", "sha256", "uploadedBySessionId", "user",
    "CreatedAt", "UpdatedAt", "DeletedAt",
}  # fmt: skip
COLLECTION_FIELDS = {
    "name", "description", "strategyName", "maxBackupsCount", "maxOneVersionSize", "maxCollectionSize",
    "versionsCount", "usedBytes", "latestVersion", "windows", "healthy",
}  # fmt: skip
PLAN_FIELDS = {"keep", "remove", "allowedBytes", "refusal"}


@pytest.fixture
def admin_server(tree: Tree, start: Callable[..., RunningServer]) -> Callable[..., tuple[RunningServer, str]]:
    """Start a server with one collection ``box`` and log an administrator in."""

    def make(options: dict[str, object] | None = None, **spec: Any) -> tuple[RunningServer, str]:
        tree.user("admin", roles=["systemAdmin"])
        tree.user("ann")
        tree.collection("box", **{"accessControl": [{"userName": "ann", "roles": ["collectionManager"]}], **spec})
        server = start(**(options or {}))
        return server, server.login("admin")

    return make


def plan(server: RunningServer, token: str, collection: str = "box") -> dict[str, Any]:
    """Return the plan for an upload now."""
    answer = server.request("GET", f"{REPOSITORY}/{collection}/rotation", token=token)
    assert answer.status == 200, answer.body
    assert set(answer.data) == {"plan"}
    found = answer.data["plan"]
    assert set(found) == PLAN_FIELDS
    assert all(set(kept) == {"versionNumber", "reason", "until"} and kept["reason"] for kept in found["keep"])
    assert all(set(gone) == {"versionNumber", "reason"} and gone["reason"] for gone in found["remove"])
    return found


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    """Return the version numbers of a plan's entries."""
    return [entry["versionNumber"] for entry in entries]


# -- listing collections ---------------------------------------------------------------------------------------------


def test_a_collection_is_listed_with_limits_figures_and_windows(admin_server: Any) -> None:
    windows = [{"from": "30 2 * * MON-FRI", "duration": "90m", "timezone": "Europe/Warsaw"}]
    server, token = admin_server(
        description="nightly", maxBackupsCount=3, maxOneVersionSize="1M", maxCollectionSize="5M", windows=windows
    )
    body = message(200)
    assert server.upload("box", token, body).status == 200
    answer = server.request("GET", REPOSITORY, token=token)
    (found,) = answer.data["collections"]
    assert set(answer.data) == {"collections"}
    assert set(found) == COLLECTION_FIELDS
    assert (found["name"], found["description"], found["strategyName"]) == ("box", "nightly", "fifo")
    assert (found["maxBackupsCount"], found["maxOneVersionSize"], found["maxCollectionSize"]) == (3, 2**20, 5 * 2**20)
    assert (found["versionsCount"], found["usedBytes"]) == (1, len(body))
    assert set(found["latestVersion"]) == VERSION_FIELDS
    assert found["latestVersion"]["versionNumber"] == 1
    assert found["windows"] == [{"from": "30 2 * * MON-FRI", "duration": "1h30m", "timezone": "Europe/Warsaw"}]
    assert isinstance(found["healthy"], bool)


def test_an_empty_collection_has_no_latest_version(admin_server: Any) -> None:
    server, token = admin_server()
    (found,) = server.request("GET", REPOSITORY, token=token).data["collections"]
    assert (found["latestVersion"], found["versionsCount"], found["usedBytes"]) == (None, 0, 0)
    assert found["healthy"] is True


def test_a_session_sees_the_collections_it_may_list_and_no_other(admin_server: Any, tree: Tree) -> None:
    server, _ = admin_server()
    for number in range(9):
        tree.collection(f"other{number}")
    tree.collection("shared", accessControl=[{"userName": "ann", "roles": ["backupDownloader"]}])

    def seen(**login: Any) -> list[str]:
        answer = server.request("GET", REPOSITORY, token=server.login(**login))
        return [each["name"] for each in answer.data["collections"]]

    assert seen(username="ann") == ["box", "shared"]
    assert len(seen(username="admin")) == 11
    scope = {"elements": [{"type": "collection", "name": "box", "roles": ["backupUploader"]}]}
    assert seen(username="ann", operationsScope=scope) == ["box"]
    assert seen(username="admin", operationsScope=scope) == ["box"]


def test_a_broken_collection_is_left_out_and_the_others_are_listed(admin_server: Any, tree: Tree) -> None:
    server, token = admin_server()
    tree.collection("broken", maxBackupsCount=0)
    found = server.request("GET", REPOSITORY, token=token).data["collections"]
    assert [each["name"] for each in found] == ["box"]
    answer = server.request("GET", f"{REPOSITORY}/broken/version", token=token)
    assert (answer.status, answer.json["reason"]) == (500, "configuration")
    assert str(tree.root).encode() not in answer.body


@pytest.mark.parametrize("path", [OLD_REPOSITORY, "//api/alpha//repository/collection/", f"{REPOSITORY}/"])
def test_other_spellings_of_the_listing_answer_the_same(admin_server: Any, path: str) -> None:
    server, token = admin_server()
    assert server.request("GET", path, token=token).body == server.request("GET", REPOSITORY, token=token).body


@pytest.mark.parametrize("tail", ["version", "version/1", "rotation", "health"])
def test_every_route_of_a_collection_answers_under_the_old_prefix(admin_server: Any, tail: str) -> None:
    server, token = admin_server()
    server.upload("box", token)
    new = server.request("GET", f"{REPOSITORY}/box/{tail}", token=token)
    old = server.request("GET", f"{OLD_REPOSITORY}//box/{tail}/", token=token)
    assert (new.status, old.status) == (200, 200)
    if tail != "rotation":
        assert new.body == old.body


# -- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_of_an_empty_collection_keeps_the_upload_itself(admin_server: Any) -> None:
    server, token = admin_server(maxBackupsCount=2)
    found = plan(server, token)
    assert (numbers(found["keep"]), found["remove"]) == ([1], [])
    assert (found["allowedBytes"], found["refusal"]) == (None, None)


def test_the_plan_says_what_the_next_upload_then_does(admin_server: Any) -> None:
    server, token = admin_server(maxBackupsCount=2, maxOneVersionSize="1K", maxCollectionSize="4K")
    for _ in range(2):
        server.upload("box", token)
    planned = plan(server, token)
    assert (numbers(planned["keep"]), numbers(planned["remove"])) == ([2, 3], [1])
    size = len(message())
    assert planned["allowedBytes"] == min(1024 + 2048, 4096 - size)
    assert server.numbers("box", token) == [1, 2]
    assert server.upload("box", token).data["version"]["versionNumber"] == 3
    assert server.numbers("box", token) == [2, 3]


def test_the_plan_counts_on_from_a_number_that_was_deleted(admin_server: Any) -> None:
    server, token = admin_server()
    server.upload("box", token)
    server.upload("box", token)
    assert server.request("DELETE", f"{REPOSITORY}/box/version/2", token=token).status == 200
    assert numbers(plan(server, token)["keep"]) == [1, 3]
    assert server.upload("box", token).data["version"]["versionNumber"] == 3


def test_fifo_plus_older_keeps_its_older_copies(admin_server: Any, clock: ShiftedClock) -> None:
    spec = {"keepLastOlderNotMoreThan": "5d", "maxOlderCopies": 1}
    server, token = admin_server(maxBackupsCount=1, strategyName="fifo-plus-older", strategySpec=spec)
    for _ in range(3):
        server.upload("box", token)
    assert server.numbers("box", token) == [1, 3]
    (kept, _, _) = sorted(plan(server, token)["keep"] + plan(server, token)["remove"], key=lambda e: e["versionNumber"])
    assert kept["until"] is not None
    clock.forward(timedelta(days=6))
    assert numbers(plan(server, token)["remove"]) == [1]
    server.upload("box", token)
    assert server.numbers("box", token) == [3, 4]


def test_gfs_keeps_one_a_day(admin_server: Any, clock: ShiftedClock) -> None:
    server, token = admin_server(maxBackupsCount=10, strategyName="gfs", strategySpec={"keepDaily": 2})
    for hours in (0, 24, 24, 0):
        clock.forward(timedelta(hours=hours))
        server.upload("box", token)
    assert server.numbers("box", token) == [2, 4]
    (listed,) = server.request("GET", REPOSITORY, token=token).data["collections"]
    assert listed["strategyName"] == "gfs"


def test_without_rotation_a_full_collection_refuses(admin_server: Any) -> None:
    server, token = admin_server(maxBackupsCount=1, strategyName="none")
    assert server.upload("box", token).status == 200
    answer = server.upload("box", token)
    assert (answer.status, answer.json["reason"]) == (413, "quota-exceeded")
    found = plan(server, token)
    assert set(found["refusal"]) == {"reason", "error"}
    assert (found["refusal"]["reason"], found["allowedBytes"]) == ("quota-exceeded", 0)
    assert numbers(found["keep"]) == [1]
    assert server.numbers("box", token) == [1]


def test_a_protected_version_stops_uploads_and_deletions_until_it_is_old_enough(
    admin_server: Any, clock: ShiftedClock
) -> None:
    server, token = admin_server(maxBackupsCount=1, protectFor="24h")
    server.upload("box", token)
    path = f"{REPOSITORY}/box/version/1"
    for answer in (server.upload("box", token), server.request("DELETE", path, token=token)):
        assert (answer.status, answer.json["reason"]) == (403, "protected")
    found = plan(server, token)
    assert found["refusal"]["reason"] == "protected"
    assert (numbers(found["keep"]), found["remove"]) == ([1], [])
    clock.forward(timedelta(hours=24, seconds=1))
    assert server.upload("box", token).status == 200
    assert server.numbers("box", token) == [2]


def test_an_append_only_server_deletes_by_rotation_only(admin_server: Any) -> None:
    server, token = admin_server({"append_only": "true"}, maxBackupsCount=1)
    server.upload("box", token)
    answer = server.request("DELETE", f"{REPOSITORY}/box/version/1", token=token)
    assert (answer.status, answer.json["reason"]) == (403, "append-only")
    assert server.numbers("box", token) == [1]
    server.upload("box", token)
    assert server.numbers("box", token) == [2]


# -- the simulation --------------------------------------------------------------------------------------------------


def at(clock: ShiftedClock, *hours: int) -> dict[str, list[str]]:
    """Return a simulation's body."""
    return {"uploads": [(clock.now() + timedelta(hours=each)).isoformat() for each in hours]}


def test_a_simulation_shows_every_step_and_changes_nothing(admin_server: Any, clock: ShiftedClock) -> None:
    server, token = admin_server(maxBackupsCount=2)
    server.upload("box", token)
    server.upload("box", token)
    path = f"{REPOSITORY}/box/rotation"
    uploads = at(clock, 1, 2)
    answer = server.request("POST", path, uploads, token)
    assert answer.status == 200
    assert set(answer.data) == {"steps", "plan"}
    steps = answer.data["steps"]
    assert [set(step) for step in steps] == [{"time", "plan"}] * 2
    assert [datetime.fromisoformat(step["time"]) for step in steps] == [
        datetime.fromisoformat(each) for each in uploads["uploads"]
    ]
    assert [numbers(step["plan"]["keep"]) for step in steps] == [[2, 3], [3, 4]]
    assert [numbers(step["plan"]["remove"]) for step in steps] == [[1], [2]]
    assert answer.data["plan"] == steps[-1]["plan"]
    assert server.numbers("box", token) == [1, 2]
    assert server.upload("box", token).data["version"]["versionNumber"] == 3


def test_a_simulation_of_nothing_answers_with_the_plan_for_now(admin_server: Any) -> None:
    server, token = admin_server(maxBackupsCount=2)
    answer = server.request("POST", f"{REPOSITORY}/box/rotation", {"uploads": []}, token)
    assert answer.data["steps"] == []
    assert numbers(answer.data["plan"]["keep"]) == [1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"uploads": "2026-01-01T00:00:00Z"}',
        b'{"uploads": ["2026-01-01"]}',
        b'{"uploads": ["2026-01-01T00:00:00"]}',
        b'{"uploads": ["2026-13-01T00:00:00Z"]}',
        b'{"uploads": ["9999-12-31T23:59:59-23:59"]}',
        b'{"uploads": ["0001-01-01T00:00:00+23:59"]}',
        b'{"uploads": [5]}',
        b'{"uploads": [null]}',
        b'{"uploads": [' + b",".join([b'"2026-01-01T00:00:00Z"'] * 1001) + b"]}",
    ],
)
def test_a_simulation_that_cannot_be_read_is_a_bad_request(admin_server: Any, body: bytes) -> None:
    server, token = admin_server()
    answer = server.request("POST", f"{REPOSITORY}/box/rotation", body, token)
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")


@pytest.mark.parametrize("strategy", ["fifo", "gfs", "fifo-plus-older", "none"])
@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_a_simulation_at_the_edge_of_time_is_answered(admin_server: Any, strategy: str, when: str) -> None:
    spec = {"gfs": {"keepYearly": 3}, "fifo-plus-older": {"keepLastOlderNotMoreThan": "5d", "maxOlderCopies": 2}}
    server, token = admin_server(strategyName=strategy, strategySpec=spec.get(strategy, {}), protectFor="1d")
    server.upload("box", token)
    answer = server.request("POST", f"{REPOSITORY}/box/rotation", {"uploads": [when] * 3}, token)
    assert answer.status == 200, answer.body
    assert len(answer.data["steps"]) == 3


def test_a_long_simulation_does_not_hold_up_others(admin_server: Any, clock: ShiftedClock) -> None:
    spec = {"keepDaily": 20, "keepYearly": 5}
    server, token = admin_server(maxBackupsCount=30, strategyName="gfs", strategySpec=spec)
    took: list[float] = []
    done = threading.Event()

    def ask_others() -> None:
        while not done.is_set():
            began = time.monotonic()
            assert server.request("GET", "/health").status == 200
            took.append(time.monotonic() - began)

    other = threading.Thread(target=ask_others)
    other.start()
    try:
        answer = server.request("POST", f"{REPOSITORY}/box/rotation", at(clock, *range(1000)), token)
    finally:
        done.set()
        other.join()
    assert len(answer.data["steps"]) == 1000
    assert len(took) >= 5


def test_a_simulation_whose_answer_would_be_huge_is_refused(admin_server: Any, clock: ShiftedClock) -> None:
    server, token = admin_server(maxBackupsCount=10_000)
    answer = server.request("POST", f"{REPOSITORY}/box/rotation", at(clock, *range(1000)), token)
    assert (answer.status, answer.json["reason"]) == (400, "bad-request")
    assert "simulate 49 at a time" in answer.json["error"]
    answer = server.request("POST", f"{REPOSITORY}/box/rotation", at(clock, *range(49)), token)
    assert len(answer.data["steps"]) == 49


# -- windows ---------------------------------------------------------------------------------------------------------


def test_outside_its_window_a_collection_says_when_the_next_one_opens(
    admin_server: Any, tree: Tree, clock: ShiftedClock
) -> None:
    now = clock.now()
    opens = (now + timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
    windows = [{"from": f"0 {opens.hour} * * *", "duration": "1h", "timezone": "UTC"}]
    server, admin = admin_server(windows=windows)
    ann = server.login("ann")
    answer = server.upload("box", ann)
    assert (answer.status, answer.json["reason"]) == (403, "window-closed")
    assert opens.strftime("%Y-%m-%dT%H:%M:%S") in answer.json["error"]
    assert server.upload("box", admin).status == 200
    clock.forward(opens - now + timedelta(minutes=1))
    assert server.upload("box", ann).status == 200
    clock.forward(timedelta(hours=1))
    assert server.upload("box", ann).status == 403


def test_uploads_anytime_in_the_access_list_passes_a_closed_window(admin_server: Any, tree: Tree) -> None:
    windows = [{"from": "0 0 29 2 *", "duration": "1m", "timezone": "UTC"}]
    access = [{"userName": "ann", "roles": ["uploadsAnytime"]}]
    server, _ = admin_server(windows=windows, accessControl=access)
    assert server.upload("box", server.login("ann")).status == 200
