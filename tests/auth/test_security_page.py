"""docs/security.md names the test behind each claim; here the names are looked up."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8")))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    existing = {
        name for source in sources for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", source, re.MULTILINE)
    }
    assert len(named) > 40
    assert not named - existing
