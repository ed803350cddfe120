"""Recovering with the program itself: from S3 into PostgreSQL, and an object larger than the memory it may take."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

from tests.contract.registry_cases import NOON, PostgresDatabase
from tests.servers import s3
from tests.services.adoption_cases import put
from tests.system.program import environment, run

pytest_plugins = ["tests.contract.registry_fixtures"]

MIB = 1024 * 1024
ID = str(uuid.UUID(int=7))


def options(folder: Path) -> list[str]:
    (folder / "config" / "backup-repository").mkdir(parents=True, exist_ok=True)
    return ["--data-dir", str(folder), "--provider=filesystem", f"--config-local-path={folder / 'config'}"]


def test_objects_in_a_bucket_come_back_into_postgresql(postgres_database: PostgresDatabase, tmp_path: Path) -> None:
    with s3.moto() as server:
        bucket = s3.client(server)
        for number in (1, 2):
            bucket.put_object(Bucket=server.bucket, Key=f"db/{uuid.UUID(int=number)}/db-{number}.gpg", Body=b"12345")
        before = [(entry["Key"], entry["ETag"]) for entry in bucket.list_objects_v2(Bucket=server.bucket)["Contents"]]
        where = [*options(tmp_path), "--db-url", postgres_database.url, "--storage-url", server.url()]
        dry = run("recover", "--dry-run", *where, **server.environment())
        done = run("recover", *where, **server.environment())
        assert (done.returncode, done.stderr, done.stdout) == (0, "", dry.stdout)
        assert done.stdout.count("took ") == 2
        assert run("recover", *where, **server.environment()).stderr == "nothing to do\n"
        verified = run("verify", *where, **server.environment())
        assert (verified.returncode, verified.stderr) == (0, "2 versions checked, 0 damaged or missing\n")
        assert before == [
            (entry["Key"], entry["ETag"]) for entry in bucket.list_objects_v2(Bucket=server.bucket)["Contents"]
        ]
    assert postgres_database.execute("SELECT number, sha256 FROM versions ORDER BY number") == [
        (number, hashlib.sha256(b"12345").hexdigest()) for number in (1, 2)
    ]


def peak_bytes(command: str, folder: Path) -> int:
    """Run a command to its end; return the most memory that it held."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tornado_backups", command, *options(folder)],
        stdout=subprocess.DEVNULL,
        env=environment(),
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_a_large_object_is_recovered_and_verified_in_bounded_memory(tmp_path: Path) -> None:
    for name, size in (("small", 1), ("large", 256 * MIB)):
        key = f"objects/db/{ID}/db-1.gpg"
        put(tmp_path / name, key, b"", NOON)
        os.truncate(tmp_path / name / key, size)
    for command in ("recover", "verify"):
        growth = peak_bytes(command, tmp_path / "large") - peak_bytes(command, tmp_path / "small")
        assert growth < 12 * MIB, f"{command} grew by {growth / MIB:.1f} MiB"
