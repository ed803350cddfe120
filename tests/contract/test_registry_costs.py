"""What must stay cheap: queries answered by an index, and databases that are not used not imported."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.registry_cases import NOON
from tornado_backups.registry import transactions_versions as stored
from tornado_backups.registry.dialect import Dialect
from tornado_backups.registry.schema import MIGRATIONS
from tornado_backups.registry.script import Transaction

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "query",
    [
        stored.versions("photos"),
        stored.version("photos", 1),
        stored.latest_version("photos"),
        stored.expired_versions(100),
        stored.usages(),
        stored.recent_sizes(6),
        stored.largest_sizes(),
        stored.damaged_versions(),
        stored.known_keys(["a", "b"]),
        stored.next_to_check(NOON, 100),
    ],
    ids=lambda query: query.name,
)
def test_no_query_reads_the_whole_table_of_versions(query: Transaction[Any]) -> None:
    connection = sqlite3.connect(":memory:")
    for statements in MIGRATIONS:
        for sql in statements:
            connection.execute(Dialect.SQLITE.translate(sql))
    statement = next(query.start())
    plan = [
        row[3]
        for row in connection.execute(f"EXPLAIN QUERY PLAN {Dialect.SQLITE.translate(statement.sql)}", statement.values)
    ]
    connection.close()
    steps = [step for step in plan if step.startswith(("SCAN v", "SEARCH v", "SCAN w", "SEARCH w", "SCAN TABLE"))]
    assert steps
    for step in steps:
        assert " USING " in step, plan
        assert step.startswith("SEARCH") or "COVERING INDEX" in step or "versions_damaged" in step, plan


def test_who_uses_sqlite_does_not_pay_for_postgresql() -> None:
    code = (
        "import sys; import tornado_backups.registry.sqlite, tornado_backups.registry.postgres;"
        "assert not {'psycopg2', 'aiopg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=20)
