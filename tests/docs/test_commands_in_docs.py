"""Every shell block of README.md and docs/ is run here as it stands, or says why it is not.

The convention is explained in docs/development.md, "Commands in the documentation".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import Block, blocks, pages, prose, why_page_is_not_run
from tests.docs.shell import Reader, as_shown
from tests.servers.postgres import PostgresServer, running_postgres

SESSIONS = ("commands", "database", "quickstart", "postgres", "server")
SHORTEST_REASON = 10
RUN = [page for page in pages() if any(block.session for block in blocks(page))]
COMMAND = re.compile(
    r"^ *(?:\$ |(?:sudo|curl|tar|gpg|make|pip|docker|kubectl|helm|systemctl|export|tornado-backups) )",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def reader(page: str, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Whoever follows ``page``: with a quickstart server or a PostgreSQL beside them when its blocks ask for that."""
    sessions = [block.session for block in blocks(page) if block.session]
    needs_postgres = bool({"database", "postgres"} & set(sessions))
    more = request.getfixturevalue("postgres").client_environment() if needs_postgres else {}
    person = Reader(more)
    try:
        if sessions[0] in ("quickstart", "postgres"):
            person.serve()
        yield person
    finally:
        person.close()


def follow(reader: Reader, found: list[Block]) -> list[str]:
    """Run the blocks in their order; return the places whose output is not what the page shows."""
    wrong, printed = [], ""
    for block in found:
        if block.session == "server":
            reader.serve(block.text)
        elif block.session:
            printed = reader.run(block)
        elif block.is_output and not as_shown(block.text, printed):
            wrong.append(f"{block.place} shows something else than was printed:\n{printed}")
    return wrong


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_work_and_print_what_it_shows(page: str, reader: Reader) -> None:
    assert follow(reader, blocks(page)) == []


@pytest.mark.parametrize("page", pages())
def test_every_shell_block_is_run_or_says_why_not(page: str) -> None:
    shells = [block for block in blocks(page) if block.is_shell]
    reason = why_page_is_not_run(page)
    if reason:
        assert shells
        assert not any(block.session for block in shells)
        assert len(reason) >= SHORTEST_REASON
    else:
        unmarked = [b.place for b in shells if b.session not in SESSIONS and len(b.why_not_run) < SHORTEST_REASON]
        assert unmarked == []


@pytest.mark.parametrize("page", pages())
def test_commands_stand_in_blocks_that_are_marked_as_shell(page: str) -> None:
    assert [block.place for block in blocks(page) if not block.language and COMMAND.search(block.text)] == []


@pytest.mark.parametrize("page", pages())
def test_no_block_is_overlooked(page: str) -> None:
    assert "```" not in prose(page)


def test_an_output_differs_when_a_word_differs() -> None:
    assert as_shown("one … three\n", "one two\nand three\n")
    assert not as_shown("one … three", "one two and four")
    assert not as_shown("one", "one two")
