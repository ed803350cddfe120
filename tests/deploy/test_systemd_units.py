"""The units, held to systemd's own judgement: no unknown key, and an exposure of 1.5 at most."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.env_file import env_file
from tornado_backups.config.settings_table import OPTIONS
from tornado_backups.domain.units import parse_duration

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICES = ("tornado-backups.service", "tornado-backups-verify.service")
INSTALLED = "/opt/tornado-backups/bin/tornado-backups"


def settings(name: str) -> list[tuple[str, str]]:
    """Return the assignments of a unit, in order."""
    lines = (UNITS / name).read_text().splitlines()
    return [(key, value) for key, eq, value in (line.partition("=") for line in lines if line[:1] not in "#[") if eq]


def one(name: str, key: str) -> str:
    (value,) = [value for found, value in settings(name) if found == key]
    return value


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as the installation lays them out, with every line of credentials.conf in use."""
    program = tmp_path / "tornado-backups"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.glob("tornado-backups*"):
        if unit.suffix in (".service", ".socket", ".timer"):
            (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(program)))
    secrets = re.sub(r"(?m)^#(?=Environment=)", "", (UNITS / "credentials.conf").read_text())
    for service in SERVICES:
        (tmp_path / f"{service}.d").mkdir()
        (tmp_path / f"{service}.d" / "credentials.conf").write_text(secrets)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("unit", [*SERVICES, "tornado-backups.socket", "tornado-backups-verify.timer"])
def test_systemd_finds_nothing_to_say_against_a_unit(installed: Path, unit: str) -> None:
    answer = analyze("verify", "--recursive-errors=yes", "--man=no", str(installed / unit))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_systemd_would_say_so_if_there_were_something(installed: Path) -> None:
    path = installed / "tornado-backups.service"
    path.write_text(path.read_text().replace("ProtectSystem=strict", "ProtectSytem=strict"))
    answer = analyze("verify", "--recursive-errors=yes", "--man=no", str(path))
    assert answer.returncode != 0
    assert "ProtectSytem" in answer.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_the_exposure_is_one_and_a_half_at_most(service: str) -> None:
    answer = analyze("security", "--offline=true", "--threshold=15", "--no-pager", str(UNITS / service))
    assert answer.returncode == 0, answer.stdout
    assert "Overall exposure level" in answer.stdout


def test_both_services_stand_in_the_same_sandbox() -> None:
    sandbox = re.compile(r"(Protect|Private|Restrict|SystemCall|Capability|Ambient|NoNew|Lock|Memory(Deny)|Keyring)")
    kept = [
        {pair for pair in settings(service) if sandbox.match(pair[0]) or pair[0] in ("User", "Group", "LoadCredential")}
        for service in SERVICES
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 30


def test_every_sandbox_option_is_explained() -> None:
    text = (UNITS / "tornado-backups.service").read_text()
    section = text[text.index("# -- who and where") : text.index("[Install]")]
    explained = False
    for line in section.splitlines():
        if line.startswith("#"):
            explained = not line.startswith("# --")
        elif line:
            assert explained, line


def test_the_socket_passes_what_the_server_takes() -> None:
    assert one("tornado-backups.socket", "Accept") == "no"
    listen = next(option for option in OPTIONS if option.switch == "--listen")
    assert one("tornado-backups.socket", "ListenStream") == listen.default


def test_systemd_waits_longer_than_running_transfers_may_take() -> None:
    limit = next(option for option in OPTIONS if option.switch == "--shutdown-timeout")
    assert one("tornado-backups.service", "TimeoutStopSec") == "6min"
    assert parse_duration(str(limit.default)).total_seconds() < 6 * 60


def test_the_environment_file_holds_every_option_and_sets_none() -> None:
    text = (UNITS / "tornado-backups.env").read_text()
    assert text == env_file(), "renew it: python -m tests.deploy.env_file > systemd/tornado-backups.env"
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [option.env for option in OPTIONS] == re.findall(r"(?m)^#([A-Z_]+)=", text)


def test_every_credential_is_loaded_by_both_services_and_used_by_the_drop_in() -> None:
    text = (UNITS / "credentials.conf").read_text()
    used = dict(re.findall(r"(?m)^#Environment=([A-Z_]+)=%d/(\S+)$", text))
    known = {option.env for option in OPTIONS} | {f"{option.env}_FILE" for option in OPTIONS}
    assert set(used) - known == {"AWS_SHARED_CREDENTIALS_FILE"}
    assert {"BR_JWT_SECRET_KEY_FILE", "BR_DB_PASSWORD_FILE", "BR_HEALTH_CHECK_KEY_FILE"} <= set(used)
    for service in SERVICES:
        loaded = [value for key, value in settings(service) if key == "LoadCredential"]
        # A name alone is looked up in /etc/credstore and may be missing; with a path a missing one stops the start.
        assert sorted(loaded) == sorted(used.values())
        assert not any(":" in value for value in loaded)


def test_no_secret_stands_uncommented_in_any_file() -> None:
    for path in UNITS.iterdir():
        active = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert not [line for line in active if re.search(r"(SECRET|PASSWORD|_KEY)\w*=", line)], path.name
