"""``--help`` and the table of docs/configuration.md, made from the table of options.

Owns: their form. Does not own: any fact about an option (``settings_table``).
``python -m tornado_backups.config.settings_docs docs/configuration.md`` renews the table in that page.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tornado_backups.config.settings_table import OPTIONS, Option

BEGIN = "<!-- options: begin -->"
END = "<!-- options: end -->"

_WIDTH = 96


def help_text(command: str) -> str:
    """Return the options that ``command`` takes, wrapped to 96 columns."""
    intro = (
        f"Options of {command}. Each can also be set by the environment variable named beside it; the switch wins. "
        "With _FILE appended to its name, the variable names a file that holds the value."
    )
    lines = textwrap.wrap(intro, _WIDTH)
    for group, options in groupby(OPTIONS, lambda option: option.group):
        lines += ["", f"{group}:"]
        for option in options:
            lines += _help_lines(option)
    return "\n".join(lines)


def markdown() -> str:
    """Return the options as Markdown tables, one per group."""
    return "\n".join(_markdown_lines()).strip() + "\n"


def renewed(page: str) -> str:
    """Return ``page`` with the text between the two markers made anew; raises ``ValueError`` without markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{markdown()}{END}{after}"


def _help_lines(option: Option) -> Iterator[str]:
    metavar = f" {option.metavar}" if option.metavar else ""
    short = f"{option.short}{metavar}, " if option.short else ""
    yield f"  {short}{option.switch}{metavar}   [{option.env}]"
    allowed = "" if option.is_flag else f" Allowed: {option.allowed}."
    default = "" if option.is_flag else f" Default: {option.shown_default}."
    about = f"{option.meaning}.{allowed}{default}".replace("`", "")
    indent = " " * 8
    yield from textwrap.wrap(
        about, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _markdown_lines() -> Iterator[str]:
    for group, options in groupby(OPTIONS, lambda option: option.group):
        yield f"### {group}\n"
        yield "| switch | environment | default | meaning | allowed |\n|---|---|---|---|---|"
        for option in options:
            names = f"`{option.switch}`" + (f", `{option.short}`" if option.short else "")
            default = f"`{option.default}`" if isinstance(option.default, str) else option.shown_default
            cells = (names, f"`{option.env}`", default, option.meaning, option.allowed)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        target = Path(sys.argv[1])
        target.write_text(renewed(target.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(markdown())
