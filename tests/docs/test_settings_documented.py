"""docs/configuration.md holds every option as the program has it, and its sample message is a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tornado_backups.config.settings import load_settings
from tornado_backups.config.settings_docs import markdown, renewed
from tornado_backups.config.settings_table import OPTIONS
from tornado_backups.domain.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_table_of_options_in_the_docs_is_the_one_the_program_has() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page), "run: python -m tornado_backups.config.settings_docs docs/configuration.md"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_is_in_the_table_with_its_variable_and_meaning(option) -> None:
    (row,) = [line for line in markdown().splitlines() if line.startswith(f"| `{option.switch}`")]
    assert f"`{option.env}`" in row
    assert option.meaning in row


def test_the_sample_of_a_refusal_is_what_the_program_says() -> None:
    with pytest.raises(UsageError) as caught:
        load_settings([], {"BR_IDLE_TIMEOUT": "5x"})
    assert caught.value.sentence in PAGE.read_text(encoding="utf-8").splitlines()


def test_a_page_without_markers_is_not_renewed() -> None:
    with pytest.raises(ValueError, match="options: begin"):
        renewed("a page")
