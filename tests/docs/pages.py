"""The documentation as data: pages, their fenced blocks, and what the comment before a block says about running it.

Owns: the marking convention of shell blocks, explained for writers in docs/development.md.
Does not own: running them (``tests/docs/shell.py``).
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "shell", "console")
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>[^\n]*?) -->[ ]*\n(?:[ ]*\n)?)?"
    r"^(?P<indent>[ ]*)(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_PAGE_MARK = re.compile(r"^<!-- page not run: (.+?) -->$", re.MULTILINE)
_RUN = re.compile(r"run: (?P<session>[a-z]+)(?:, exit (?P<status>\d+))?")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``mark`` is the text of the comment right before it, empty when there is none."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def is_shell(self) -> bool:
        """Whether it holds commands for a shell."""
        return self.language in SHELLS

    @property
    def session(self) -> str:
        """Name the session that runs it, empty when none does."""
        found = _RUN.fullmatch(self.mark)
        return found["session"] if found else ""

    @property
    def status(self) -> int:
        """The exit status that the page promises."""
        found = _RUN.fullmatch(self.mark)
        return int(found["status"] or 0) if found else 0

    @property
    def why_not_run(self) -> str:
        """Say why it is not run, empty when no reason is given."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def is_output(self) -> bool:
        """Whether it shows what the block before it prints."""
        return self.mark == "output"

    @property
    def place(self) -> str:
        """Where it stands, as an editor understands it."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return README.md and every page below docs/, relative to the project."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def read(page: str) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Return a page's fenced blocks in their order."""
    text = read(page)
    return [
        Block(
            page,
            text.count("\n", 0, found.start("indent")) + 1,
            found["language"].strip(),
            textwrap.dedent(found["text"]),
            (found["mark"] or "").strip(),
        )
        for found in _BLOCK.finditer(text)
    ]


def prose(page: str) -> str:
    """Return a page's text without its fenced blocks."""
    return _BLOCK.sub("", read(page))


def why_page_is_not_run(page: str) -> str:
    """Return the reason for which none of a page's commands are run, empty when it gives none."""
    found = _PAGE_MARK.search(read(page))
    return found[1] if found else ""
