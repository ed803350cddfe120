"""The Dockerfile and the compose file: linted, and held to what docs/docker.md promises.

That the image builds and starts was tried by hand, without a registry; docs/docker.md says how far that went.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tornado_backups import __version__
from tornado_backups.config.settings_table import OPTIONS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
NAMES = {option.env for option in OPTIONS} | {f"{option.env}_FILE" for option in OPTIONS}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    answer = subprocess.run(
        [str(linter), "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_the_final_stage_runs_as_nonroot_and_without_a_shell() -> None:
    assert "USER 65532:65532" in FINAL
    assert not re.search(r"(?m)^RUN ", FINAL)
    for word in ("ENTRYPOINT", "CMD", "    CMD"):
        (line,) = re.findall(rf"(?m)^{word} (.*)$", FINAL)
        assert line.startswith("["), f"{word} has to be a list: there is no shell to read a text"


def test_an_empty_environment_serves_from_the_volume() -> None:
    variables = dict(re.findall(r"\b(BR_[A-Z_]+)=(\S+)", FINAL))
    assert variables == {"BR_LISTEN": ":8080", "BR_DATA_DIR": "/data", "BR_CONFIG_LOCAL_PATH": "/config"}
    assert set(variables) <= NAMES
    assert 'VOLUME ["/data"]' in FINAL
    assert "EXPOSE 8080" in FINAL


def test_the_label_holds_the_programs_version() -> None:
    (version,) = re.findall(r'org\.opencontainers\.image\.version="([^"]+)"', DOCKERFILE)
    assert version == __version__


def test_what_the_build_copies_is_what_the_context_holds() -> None:
    copied = " ".join(re.findall(r"(?m)^COPY (?!--from)(.*) \./?\S*$", DOCKERFILE)).split()
    kept = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in kept)


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_follows_the_servers_answer(status: int, healthy: bool) -> None:
    (script,) = re.findall(r'CMD \["\S+", "-c", "(.*)"\]', FINAL)
    with HTTPServer(("127.0.0.1", 0), type("Handler", (_Health,), {"status": status})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = subprocess.run(
            [sys.executable, "-c", script],
            env={"BR_LISTEN": f":{server.server_port}"},
            capture_output=True,
            timeout=30,
            check=False,
        )
        server.shutdown()
    assert (answer.returncode == 0) is healthy


def test_compose_sets_only_options_that_exist(compose: dict[str, Any]) -> None:
    names = {name for name in compose["services"]["server"]["environment"] if name.startswith("BR_")}
    assert names <= NAMES
    assert {"BR_DB_HOSTNAME", "BR_STORAGE_DRIVER_URL", "BR_JWT_SECRET_KEY_FILE"} <= names


def test_compose_runs_the_server_read_only_and_bounded(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert server["stop_grace_period"] == "6m"


def test_compose_names_what_it_uses(compose: dict[str, Any]) -> None:
    named = set(compose["volumes"])
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        sources = {mount.split(":")[0] for mount in service.get("volumes", [])}
        assert {source for source in sources if not source.startswith((".", "/"))} <= named
    assert not re.search(r"(?i)(password|secret\w*): *[\"']?[a-z0-9]{6,}", (ROOT / "compose.yaml").read_text())
