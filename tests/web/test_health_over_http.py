"""What monitoring sees: alive, ready, a collection's health with its codes, metrics; statuses and fields."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.serving import REPOSITORY, RunningServer, ShiftedClock, Tree, message

CODE = "a code for monitoring"
CODE_HASH = hashlib.sha256(CODE.encode()).hexdigest()
SERVER_CODE = "a code for the server"
CHECK_FIELDS = {"name", "status", "statusText", "message"}
ALWAYS = ["BackupWindowValidator", "VersionsSizeValidator", "SumOfVersionsValidator", "IntegrityValidator"]


@pytest.fixture
def boxed(tree: Tree, start: Callable[..., RunningServer]) -> Callable[..., RunningServer]:
    """Start a server with one collection ``box``."""

    def make(options: dict[str, object] | None = None, **spec: Any) -> RunningServer:
        tree.user("admin", roles=["systemAdmin"])
        tree.collection("box", **spec)
        return start(**(options or {}))

    return make


def health(server: RunningServer, **headers: str) -> Any:
    """Ask for the health of ``box``."""
    return server.request("GET", f"{REPOSITORY}/box/health", headers=headers)


def failed(answer: Any) -> list[str]:
    """Return the names of failed checks, after checking the shape and that the status fits."""
    assert set(answer.data) == {"health"}
    checks = answer.data["health"]
    assert all(set(check) == CHECK_FIELDS for check in checks)
    assert all(isinstance(check["status"], bool) and check["message"] for check in checks)
    names = [check["name"] for check in checks if not check["status"]]
    assert answer.status == (500 if names else 200)
    assert answer.json["status"] is (not names)
    assert answer.json.get("reason") == ("unhealthy" if names else None)
    assert bool(answer.json.get("error")) == bool(names)
    return names


# -- the process -----------------------------------------------------------------------------------------------------


def test_the_process_says_that_it_is_alive(boxed: Any) -> None:
    answer = boxed().request("GET", "/health")
    assert (answer.status, answer.json["status"], set(answer.data)) == (200, True, {"msg"})


def test_alive_touches_no_dependency(boxed: Any) -> None:
    server = boxed()
    server.run(server.server.registry.close)
    server.tree.root.rename(server.tree.root.with_name("gone"))
    assert server.request("GET", "/health").status == 200
    assert server.request("GET", "/ready").status == 500


@pytest.mark.parametrize("path", ["/health", "/ready", f"{REPOSITORY}/box/health"])
def test_head_answers_like_get_without_a_body(boxed: Any, path: str) -> None:
    server = boxed()
    got, asked = server.request("GET", path), server.request("HEAD", path)
    assert (asked.status, asked.body) == (got.status, b"")
    assert asked.headers["content-length"] == str(len(got.body))
    assert asked.headers["content-type"] == got.headers["content-type"]


def test_ready_names_the_three_validators(boxed: Any) -> None:
    answer = boxed({"health_check_key": SERVER_CODE}).request("GET", f"/ready?code={SERVER_CODE.replace(' ', '%20')}")
    assert failed(answer) == []
    assert [check["name"] for check in answer.data["health"]] == [
        "DbValidator",
        "StorageAvailabilityValidator",
        "ConfigurationProviderValidator",
    ]


def test_ready_without_a_configured_code_shows_names_and_status_only(boxed: Any) -> None:
    server = boxed()
    server.tree.root.rename(server.tree.root.with_name("gone"))
    answer = server.request("GET", "/ready")
    assert (answer.status, answer.json["error"], answer.json["reason"]) == (500, "one of checks failed", "unhealthy")
    assert [check["status"] for check in answer.data["health"]] == [True, True, False]
    assert {check["message"] for check in answer.data["health"]} == {""}


def test_ready_sees_a_storage_that_cannot_be_written(boxed: Any, tmp_path: Path) -> None:
    server = boxed({"health_check_key": SERVER_CODE})
    objects = server.data_dir / "objects"
    objects.rename(tmp_path / "moved")
    objects.write_text("a file where the folder was")
    answer = server.request("GET", "/ready", headers={"Authorization": SERVER_CODE})
    assert failed(answer) == ["StorageAvailabilityValidator"]
    assert answer.json["error"] == "one of checks failed"


def test_probing_the_storage_leaves_nothing_behind(boxed: Any) -> None:
    server = boxed()
    for _ in range(3):
        assert server.request("GET", "/ready").status == 200
    assert server.objects() == []


@pytest.mark.parametrize("path", ["/ready", "/metrics"])
@pytest.mark.parametrize("code", [None, "", "wrong", SERVER_CODE + "x", "\u00e9"])
def test_the_servers_code_guards_ready_and_metrics(boxed: Any, path: str, code: str | None) -> None:
    server = boxed({"health_check_key": SERVER_CODE})
    headers = {} if code is None else {"Authorization": code.encode("latin-1")}
    answer = server.request("GET", path, headers=headers)
    assert (answer.status, answer.json["reason"]) == (403, "not-authorized")
    assert server.request("GET", path, headers={"Authorization": SERVER_CODE}).status == 200
    assert server.request("GET", path, headers={"Authorization": f"Bearer {SERVER_CODE}"}).status == 200


# -- a collection ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [CODE_HASH, base64.b64encode(CODE_HASH.encode()).decode(), CODE_HASH.upper()])
def test_a_collections_code_opens_its_health_by_query_and_by_header(boxed: Any, tree: Tree, entry: str) -> None:
    tree.secret("codes", box=entry)
    server = boxed(healthSecretRef={"name": "codes", "entry": "box"})
    path = f"{REPOSITORY}/box/health"
    assert server.request("GET", f"{path}?code={CODE.replace(' ', '+')}").status == 200
    assert server.request("GET", f"{path.replace('stable', 'alpha')}?code={CODE.replace(' ', '+')}").status == 200
    assert server.request("GET", path, headers={"Authorization": CODE}).status == 200
    assert server.request("GET", path, headers={"Authorization": f"Bearer {CODE}"}).status == 200
    for headers in ({}, {"Authorization": "wrong"}, {"Authorization": CODE_HASH}):
        answer = server.request("GET", path, headers=headers)
        assert (answer.status, answer.json["reason"], answer.data) == (403, "not-authorized", {})


def test_without_a_code_anyone_may_ask(boxed: Any) -> None:
    answer = health(boxed())
    assert failed(answer) == []
    assert [check["name"] for check in answer.data["health"]] == ALWAYS


def test_a_collection_that_does_not_exist_is_not_found(boxed: Any) -> None:
    server = boxed()
    for name in ("missing", "..", "%2e%2e", "%00", "a" * 300, "box.yaml", "box%2f..%2fbox"):
        answer = server.request("GET", f"{REPOSITORY}/{name}/health")
        assert answer.status == 404, name
        assert answer.json["reason"] == "not-found"


@pytest.mark.parametrize("entry", ["not a hash", "", "00"])
def test_a_code_that_cannot_be_read_is_a_fault_that_keeps_no_backup_out(
    boxed: Any, tree: Tree, caplog: pytest.LogCaptureFixture, entry: str
) -> None:
    tree.secret("codes", box=entry)
    server = boxed(healthSecretRef={"name": "codes", "entry": "box"})
    for headers in ({}, {"Authorization": entry}, {"Authorization": "x"}):
        answer = health(server, **headers)
        assert (answer.status, answer.json["reason"], answer.data) == (500, "configuration", {})
        assert str(tree.root) not in answer.body.decode()
    assert server.upload("box", server.login("admin")).status == 200
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("codes.yaml" in line or "box.yaml:" in line for line in logged), logged
    tree.secret("codes", box=CODE_HASH)
    assert health(server, Authorization=CODE).status == 200


def test_a_broken_collection_is_a_configuration_fault(boxed: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = boxed()
    server.tree.collection("box", windows=[{"from": "00 30 * * *", "duration": "1h"}])
    answer = health(server)
    assert (answer.status, answer.json["reason"]) == (500, "configuration")
    assert any("box.yaml:" in record.getMessage() for record in caplog.records)


def test_no_version_yet_fails_a_collection_with_windows(boxed: Any, clock: ShiftedClock) -> None:
    windows = [{"from": "* * * * *", "duration": "2m", "timezone": "UTC"}]
    server = boxed(windows=windows)
    assert failed(health(server)) == ["BackupWindowValidator"]
    server.upload("box", server.login("admin"))
    assert failed(health(server)) == []
    clock.forward(timedelta(minutes=10))
    answer = health(server)
    assert failed(answer) == ["BackupWindowValidator"]
    assert "version 1" in answer.data["health"][0]["message"]


def test_extra_space_in_use_is_reported(boxed: Any) -> None:
    server = boxed(maxBackupsCount=2, maxOneVersionSize="200B", maxCollectionSize="1K")
    token = server.login("admin")
    server.upload("box", token, message(100))
    assert failed(health(server)) == []
    server.upload("box", token, message(300))
    assert failed(health(server)) == ["VersionsSizeValidator"]


def test_a_total_over_the_hard_limit_is_reported(boxed: Any) -> None:
    server = boxed()
    server.upload("box", server.login("admin"), message(2000))
    server.tree.collection("box", maxCollectionSize="1K")
    assert failed(health(server)) == ["SumOfVersionsValidator"]


def test_freshness_appears_where_it_is_configured(boxed: Any, clock: ShiftedClock) -> None:
    server = boxed(maxAge="26h")
    assert failed(health(server)) == ["FreshnessValidator"]
    server.upload("box", server.login("admin"))
    assert failed(health(server)) == []
    clock.forward(timedelta(hours=25))
    assert failed(health(server)) == []
    clock.forward(timedelta(hours=1, seconds=1))
    answer = health(server)
    assert failed(answer) == ["FreshnessValidator"]
    assert [check["name"] for check in answer.data["health"]] == [*ALWAYS, "FreshnessValidator"]


def test_a_newest_version_that_shrank_is_reported_and_holds_rotation_back(boxed: Any) -> None:
    server = boxed(maxBackupsCount=2, minSizeRatio=0.5)
    token = server.login("admin")
    for size in (1000, 1000, 100):
        assert server.upload("box", token, message(size)).status == 200
    assert failed(health(server)) == ["SizeTrendValidator"]
    assert server.numbers("box", token) == [1, 2, 3]
    server.upload("box", token, message(1000))
    assert failed(health(server)) == []
    assert server.numbers("box", token) == [3, 4]


def test_a_missing_object_is_reported_once_it_is_known(boxed: Any) -> None:
    server = boxed()
    token = server.login("admin")
    server.upload("box", token)
    (path,) = (server.data_dir / "objects" / name for name in server.objects())
    path.unlink()
    assert server.request("GET", f"{REPOSITORY}/box/version/1", token=token).status == 500
    answer = health(server)
    assert failed(answer) == ["IntegrityValidator"]
    (listed,) = server.request("GET", REPOSITORY, token=token).data["collections"]
    assert listed["healthy"] is False


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_tell_of_every_collection_and_of_the_process(boxed: Any) -> None:
    server = boxed(maxCollectionSize="1M")
    token = server.login("admin")
    body = message()
    server.upload("box", token, body)
    server.upload("box", token, b"no message")
    server.request("GET", f"{REPOSITORY}/box/version/1", token=token)
    server.request("POST", "/api/stable/auth/login", {"username": "x", "password": "y"})
    server.maintain()
    answer = server.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    series = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    collection = "tornado_backups_collection_"
    assert float(series[f'{collection}versions{{collection="box"}}']) == 1
    assert float(series[f'{collection}used_bytes{{collection="box"}}']) == len(body)
    assert float(series[f'{collection}max_bytes{{collection="box"}}']) == 2**20
    assert float(series[f'{collection}last_size_bytes{{collection="box"}}']) == len(body)
    newest = float(series[f'{collection}last_success_timestamp_seconds{{collection="box"}}'])
    assert abs(server.clock.now().timestamp() - newest) < 60
    for check in ALWAYS:
        assert float(series[f'{collection}healthy{{check="{check}",collection="box"}}']) == 1
    assert float(series['tornado_backups_uploads_total{result="ok"}']) == 1
    assert float(series['tornado_backups_uploads_total{result="not-encrypted"}']) == 1
    assert float(series['tornado_backups_downloads_total{result="ok"}']) == 1
    assert float(series["tornado_backups_upload_bytes_total"]) >= len(body)
    assert float(series["tornado_backups_download_bytes_total"]) == len(body)
    assert float(series["tornado_backups_upload_seconds_count"]) == 1
    assert float(series["tornado_backups_download_seconds_count"]) == 1
    assert float(series['tornado_backups_logins_total{result="ok"}']) == 1
    assert float(series['tornado_backups_logins_total{result="not-authenticated"}']) == 1
    assert float(series["tornado_backups_uploads_running"]) == 0
    assert float(series["tornado_backups_downloads_running"]) == 0
    assert float(series['tornado_backups_maintenance_passes_total{result="ok"}']) >= 1
    assert float(series["tornado_backups_maintenance_last_success_timestamp_seconds"]) > 0
    assert float(series["tornado_backups_storage_unknown_objects"]) == 0
    assert any(name.startswith("process_") for name in series)


def test_a_rate_limited_request_is_counted(boxed: Any) -> None:
    server = boxed({"rate_collection_health_limit": 2})
    answers = [health(server) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert 'rate_limited_total{limit="collection-health"} 1' in server.request("GET", "/metrics").body.decode()
