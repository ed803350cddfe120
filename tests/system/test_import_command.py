"""Moving over with the program itself: dry run, import, again, verify; from PostgreSQL into either database."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.contract.registry_cases import NOON, PostgresDatabase
from tests.services.adoption_cases import put
from tests.services.go_server import DAY, GoDatabaseMaker
from tests.system.program import run

pytest_plugins = ["tests.contract.registry_fixtures", "tests.services.go_server_fixtures"]


@pytest.fixture(params=["sqlite", "postgres"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The options of a server with an empty database of either kind, and an object folder."""
    (tmp_path / "config" / "backup-repository").mkdir(parents=True)
    options = ["--data-dir", str(tmp_path), "--provider=filesystem", f"--config-local-path={tmp_path / 'config'}"]
    if request.param == "postgres":
        database: PostgresDatabase = request.getfixturevalue("postgres_database")
        options += ["--db-url", database.url]
    return options


def test_a_go_server_is_taken_over_twice_without_harm(
    options: list[str], go_database: GoDatabaseMaker, tmp_path: Path
) -> None:
    for number in (1, 2):
        go_database.version("db", number, 5)
    put(tmp_path / "objects", "db/db-v1.tar.gpg", b"12345", DAY)
    go_database.session("a" * 64, NOON + timedelta(days=10000))
    command = ["import", "--from-db-url", go_database.url]
    dry = run(*command, "--dry-run", *options)
    assert (dry.returncode, dry.stderr) == (0, "this was a dry run: nothing was changed\n")
    assert list(tmp_path.glob("registry.sqlite3*")) == []
    done = run(*command, *options)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", dry.stdout)
    assert done.stdout.splitlines() == [
        "took db/db-v1.tar.gpg as version 1 of db",
        "left 'db/db-v2.tar.gpg' (version 2 of db): the storage holds no such object",
        "took the counter of db: its next version is number 3 or higher",
        "took 1 sessions: 0 expired and 0 revoked ones among them stay so",
    ]
    again = run(*command, *options)
    assert again.returncode == 0
    assert "took" not in again.stdout
    verified = run("verify", *options)
    assert (verified.returncode, verified.stderr) == (0, "1 versions checked, 0 damaged or missing\n")
    (tmp_path / "objects/db/db-v1.tar.gpg").write_bytes(b"1234X")
    assert "its SHA-256 is" in run("verify", *options).stdout  # so the first verify recorded it


def test_a_database_that_is_away_is_one_line_without_its_password(tmp_path: Path) -> None:
    done = run("import", "--from-db-url", "postgresql://go:s3cret@127.0.0.1:1/go", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith('the PostgreSQL database "go" at 127.0.0.1:1 as user "go" cannot be read: ')
    assert "s3cret" not in done.stderr
