"""The commands as a person types them: what they print, and how they end."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.domain.openpgp_samples import PKESK, SEIPD_BODY, new
from tests.system.program import run, run_here, serving
from tornado_backups import __version__
from tornado_backups.cli import COMMANDS
from tornado_backups.domain.phc import normalise_hash
from tornado_backups.services.audit_file import AuditFile

BODIES = [PKESK + new(18, SEIPD_BODY + bytes([number]) * number * 100_000) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart folder with three versions in it, its server stopped."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    with serving(folder) as server:
        for body in BODIES:
            server.request("/version", "POST", body)
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


def of(folder: Path) -> list[str]:
    """Return the options that make a command work on a quickstart folder."""
    return ["--data-dir", str(folder), "--provider", "filesystem", "--config-local-path", str(folder / "config")]


def stored(folder: Path, number: int) -> Path:
    """Return the object of a version."""
    (found,) = (folder / "objects" / "example").glob(f"*/example-{number}.tar.gpg")
    return found


def lose_database(folder: Path) -> None:
    for path in folder.glob("registry.sqlite3*"):
        path.unlink()


# -- verify ----------------------------------------------------------------------------------------------------------


def test_verify_finds_all_good(folder: Path) -> None:
    for options in ([], ["--collection", "example"], ["--collection=example"]):
        done = run("verify", *options, *of(folder))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "3 versions checked, 0 damaged or missing\n")


def test_verify_names_each_damaged_and_missing_version(folder: Path) -> None:
    stored(folder, 1).unlink()
    body = bytearray(stored(folder, 2).read_bytes())
    body[100_000] ^= 1
    stored(folder, 2).write_bytes(body)
    stored(folder, 3).write_bytes(BODIES[2][:-1])
    done = run("verify", *of(folder))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [f"example version {number}" for number in (1, 2, 3)]
    assert "the object is missing" in lines[0]
    assert "its SHA-256 is" in lines[1]
    assert f"the object has {len(BODIES[2]) - 1} bytes, {len(BODIES[2])} were registered" in lines[2]
    assert done.stderr == "3 versions checked, 3 damaged or missing\n"


def test_verify_of_a_collection_that_does_not_exist_is_a_mistake(folder: Path) -> None:
    done = run("verify", "--collection", "exmaple", *of(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--collection: no collection 'exmaple' is configured")


# -- recover ---------------------------------------------------------------------------------------------------------


def test_after_losing_the_database_everything_downloads_again(folder: Path) -> None:
    lose_database(folder)
    objects = {path: path.read_bytes() for path in (folder / "objects").rglob("*") if path.is_file()}
    dry = run("recover", "--dry-run", *of(folder))
    assert (dry.returncode, dry.stderr) == (0, "this was a dry run: nothing was changed\n")
    assert list(folder.glob("registry.sqlite3*")) == []
    done = run("recover", *of(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == dry.stdout
    assert done.stdout.splitlines() == [
        f"took {stored(folder, number).relative_to(folder / 'objects')} as version {number} of example"
        for number in (1, 2, 3)
    ]
    again = run("recover", *of(folder))
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "nothing to do\n")
    assert {path: path.read_bytes() for path in (folder / "objects").rglob("*") if path.is_file()} == objects
    with serving(folder) as server:
        for number, body in enumerate(BODIES, 1):
            assert server.download(f"/version/{number}") == body
        versions = server.request("/version")["versions"]
        assert [version["sha256"] for version in versions] == [hashlib.sha256(body).hexdigest() for body in BODIES]
        assert server.request("/version", "POST", BODIES[0])["version"]["versionNumber"] == 4


def test_recover_names_what_it_leaves_and_does_only_what_it_was_asked_to(folder: Path) -> None:
    lose_database(folder)
    nameless = stored(folder, 2).rename(stored(folder, 2).with_name("back\nup.gpg"))
    done = run("recover", "--collection", "other", *of(folder))
    assert (done.returncode, done.stdout) == (0, "")
    done = run("recover", "--collection", "example", *of(folder))
    assert done.returncode == 0
    (left,) = [line for line in done.stdout.splitlines() if line.startswith("left")]
    shown = str(nameless.relative_to(folder / "objects")).replace("\n", "\\n")
    assert left == f"left {shown}: its name holds no number that a version can have"


def test_recover_beside_a_running_upload_says_so_and_fails(folder: Path) -> None:
    with sqlite3.connect(folder / "registry.sqlite3") as database:
        database.execute("DELETE FROM versions WHERE number = 2")
        database.execute(
            "UPDATE leases SET owner = 'a server', ttl_us = 600000000,"
            " expires_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + 599000000"
            " WHERE name = 'collection/example'"
        )
    database.close()
    done = run("recover", *of(folder))
    assert done.returncode == 1
    assert done.stdout == "failed collection example: an upload to it is running; run this again when it has ended\n"
    assert done.stderr == "1 failed: run the command again\n"


def test_recover_without_its_configuration_ends_with_one_line(folder: Path) -> None:
    done = run("recover", "--data-dir", str(folder), "--provider", "filesystem", "--config-local-path", "/nowhere")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "/nowhere" in done.stderr


# -- passwords, tokens, audit ----------------------------------------------------------------------------------------


def test_encode_password_takes_an_argument_or_a_pipe() -> None:
    from argon2 import PasswordHasher

    for done in (run("encode-password", "pass word"), run("encode-password", stdin="pass word\nignored\n")):
        assert (done.returncode, done.stderr) == (0, "")
        assert PasswordHasher().verify(normalise_hash(done.stdout.strip()), "pass word")


def test_hash_jwt_prints_the_session_id() -> None:
    done = run("hash-jwt", "a.b.c")
    assert (done.returncode, done.stdout) == (0, hashlib.sha256(b"a.b.c").hexdigest() + "\n")


def test_audit_verify_names_the_first_altered_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    for number in range(3):
        audit.append({"event": "login", "number": number})
    assert run("audit-verify", str(path)).returncode == 0
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace('"number":1', '"number":7'), lines[2]]), "utf-8")
    done = run("audit-verify", str(path))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}:2: ")
    done = run("audit-verify", str(tmp_path / "none"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


# -- help, and mistakes ----------------------------------------------------------------------------------------------


def test_the_program_tells_its_version_and_its_commands() -> None:
    assert run("--version").stdout == f"tornado-backups {__version__}\n"
    overview = run("--help")
    assert overview.returncode == 0
    for word, command in COMMANDS.items():
        assert f"  {command.usage}\n" in overview.stdout
        assert command.usage.startswith(word)
    assert run().stdout == overview.stdout


def test_a_mistake_is_the_process_exit_status_too() -> None:
    done = run("verify", "--colection", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the switch '--colection' is not known; see --help\n"


@pytest.mark.parametrize("word", COMMANDS)
def test_each_command_explains_itself(word: str) -> None:
    done = run_here(word, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: tornado-backups {COMMANDS[word].usage}\n")
    assert ("--storage-url" in done.stdout) == COMMANDS[word].takes_settings
    assert run_here(word, "--version").stdout == f"tornado-backups {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "unknown command 'frobnicate'; allowed are serve"),
        (["verify", "--colection", "x"], "--colection"),
        (["verify", "--collection"], "--collection needs a value"),
        (["verify", "stray"], "'stray'"),
        (["recover", "--dry-runs"], "--dry-runs"),
        (["recover", "--lease-time", "soon"], "--lease-time"),
        (["import", "--dry-run"], "import needs --from-db-url"),
        (["import", "--from-db-url", "mysql://u:s3cret@h/d"], "--from-db-url: the database URL"),
        (["check-config", "--provider", "ldap"], "--provider"),
        (["serve", "--listen", "here"], "--listen"),
        (["quickstart", "--dirr", "x"], "--dirr"),
        (["encode-password", "a", "b"], "encode-password takes one password at most"),
        (["encode-password"], "the password is empty"),
        (["hash-jwt"], "hash-jwt takes exactly one argument"),
        (["audit-verify"], "audit-verify takes exactly one argument"),
    ],
)
def test_a_wrong_switch_or_value_is_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run_here(*arguments, BR_DATA_DIR=str(tmp_path), BR_CONFIG_LOCAL_PATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert "s3cret" not in done.stderr
