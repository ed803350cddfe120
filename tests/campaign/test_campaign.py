"""The short form of every part of the campaign, in every test run; ``make fuzz`` has the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import PARTS, run_part
from tests.campaign.ledger import Ledger


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_found_by(part: str) -> None:
    report = run_part(part, 0)
    report.show()
    assert report.findings == []
    assert sum(report.tried.values()) > 20


def test_the_command_refuses_a_part_that_does_not_exist() -> None:
    command = [sys.executable, "-m", "tests.campaign", "nothing"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=60)
    assert done.returncode == 2
    assert "there are parsers, http" in done.stderr


def ledger() -> Ledger:
    """Three acknowledged uploads to a collection that keeps two."""
    made = Ledger("c", 2)
    for number in (1, 2, 3):
        made.stored(number, f"sha{number}")
    return made


def test_the_ledger_is_content_with_what_rotation_leaves() -> None:
    assert ledger().faults({2: "sha2", 3: "sha3"}) == []


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ({3: "sha3"}, "version 2 was acknowledged and is gone"),
        ({2: "sha2"}, "version 3 was acknowledged and is gone"),
        ({2: "sha2", 3: "other"}, "version 3 is not what was acknowledged"),
        ({1: "sha1", 2: "sha2", 3: "sha3"}, "version 1 should have left"),
        ({3: "sha3", 4: "strange"}, "version 4 was never uploaded whole"),
    ],
)
def test_the_ledger_tells(found: dict[int, str], fault: str) -> None:
    assert fault in " ".join(ledger().faults(found))


def test_the_ledger_knows_that_an_unanswered_upload_may_have_been_stored_or_not() -> None:
    made = ledger()
    made.unanswered("sha4")
    assert made.last() is None
    assert made.faults({2: "sha2", 3: "sha3"}) == []
    assert made.faults({3: "sha3", 4: "sha4"}) == []
    made.stored(5, "sha5")
    assert made.last() == (5, "sha5")
    assert made.faults({4: "sha4", 5: "sha5"}) == []
    assert made.faults({3: "sha3", 5: "sha5"}) != []
