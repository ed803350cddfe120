"""How much is measured: sizes, rounds and waits of a whole and of a quick run.

Owns: what every measurement is given besides the table. Does not own: the measurements.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ours import Setup
from benchmarks.payload import write_message
from benchmarks.results import Table
from tests.servers import postgres, s3

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """A run; with fewer bytes the figures mean less, and nothing else changes."""

    folder: Path
    table: Table
    file_mib: int = 1024
    rounds: int = 5
    s3_rounds: int = 3
    slow_uploads: int = 100
    slow_seconds: float = 30.0
    wait_seconds: float = 60.0
    small_uploads: int = 300
    health_seconds: float = 10.0
    rows: int = 1_000_000
    collections: int = 10_000
    servers: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def space(self) -> Iterator[Path]:
        """Yield an empty folder that is gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def body(self, size_mib: int | None = None) -> Path:
        """Return a file of an OpenPGP message of that many MiB (of the run's size when not given), made once."""
        size = size_mib or self.file_mib
        path = self.folder / f"body-{size}"
        return path if path.exists() else write_message(path, size * MIB)


@contextlib.contextmanager
def s3_and_postgres(folder: Path) -> Iterator[tuple[Setup, s3.S3Server]]:
    """Run ``rclone serve s3`` over ``folder`` and a PostgreSQL; yield how our server is told of them."""
    with s3.rclone(folder / "bucket") as bucket, postgres.running_postgres() as database:
        switches = {"storage-url": bucket.url(), "db-url": database.create_database()}
        yield Setup("PostgreSQL + S3", switches, bucket.environment()), bucket
