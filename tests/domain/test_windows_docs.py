"""The tables of docs/windows.md, recomputed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tornado_backups.domain.cron import MAX_CRON_CHARACTERS, parse_cron
from tornado_backups.domain.health import CHECK_NAMES
from tornado_backups.domain.model import BackupWindow
from tornado_backups.domain.units import format_duration, parse_duration
from tornado_backups.domain.windows import MAX_DURATION, is_open, occurrence

PAGE = (Path(__file__).parents[2] / "docs" / "windows.md").read_text(encoding="utf-8")


def rows(header: str) -> list[list[str]]:
    """Return the cells of every table with that header, code marks dropped."""
    found = []
    for table in PAGE.split(header + "\n")[1:]:
        lines = table.split("\n\n")[0].splitlines()[1:]
        found += [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]
    return found


SLOTS = rows("| from | duration | timezone | now (UTC) | | start (UTC) | end (UTC) |")
REFUSALS = rows("| text | answer |")


def test_the_page_has_the_tables_that_are_recomputed() -> None:
    assert len(SLOTS) == 14
    assert len(REFUSALS) == 7


@pytest.mark.parametrize("row", SLOTS, ids=" ".join)
def test_a_documented_slot_is_the_one_that_counts(row: list[str]) -> None:
    cron, duration, zone, at, state, *slot = row
    window, now = BackupWindow(cron, parse_duration(duration), zone), datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert is_open([window], now) == (state == "open")
    found = occurrence(window, now)
    assert found is not None
    assert [moment.strftime("%Y-%m-%dT%H:%M") for moment in (found.start, found.end)] == slot


@pytest.mark.parametrize(("text", "answer"), REFUSALS)
def test_a_documented_refusal_is_the_one_that_is_given(text: str, answer: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_cron(text)
    assert str(refusal.value).removeprefix(f'cron text "{text}"').lstrip(": ") == answer


def test_every_check_and_limit_is_documented() -> None:
    assert all(f"| `{name}` |" in PAGE for name in CHECK_NAMES)
    assert f"over {format_duration(MAX_DURATION).removesuffix('d')} days" in PAGE
    assert f"more than {MAX_CRON_CHARACTERS} characters" in PAGE
