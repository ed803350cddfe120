"""docs/development.md names what there is: every make target, and no file that is gone."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, blocks, read
from tests.docs.test_commands_in_docs import SESSIONS

PAGE = read("docs/development.md")
FOLDERS = ("", "tornado_backups", "docs")


def test_every_make_target_is_explained_and_no_other() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^\| `make (\w+)` \|", PAGE, re.MULTILINE)) == set(phony.split())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w.-]+/[\w./-]*|[a-z_]+\.py|[A-Z]+\.md)`", PAGE))))
def test_each_file_that_the_page_names_exists(path: str) -> None:
    assert any((ROOT / folder / path).exists() for folder in FOLDERS)


def test_every_folder_of_tests_is_explained() -> None:
    folders = {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert [folder for folder in sorted(folders) if f"`{folder}`" not in PAGE] == []


def test_every_test_of_the_documentation_is_listed() -> None:
    tests = (ROOT / "tests/docs").glob("test_*.py")
    assert [path.name for path in tests if f"`tests/docs/{path.name}`" not in PAGE] == []


def test_every_session_for_commands_is_explained() -> None:
    assert [name for name in SESSIONS if f"`run: {name}`" not in PAGE] == []


def test_the_example_of_the_convention_is_not_taken_for_commands_of_the_page() -> None:
    assert not [block for block in blocks("docs/development.md") if block.is_shell]
