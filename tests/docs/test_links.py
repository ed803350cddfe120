"""No dead end in the documentation: relative links lead to files, anchors to headings, the index to every page."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from tests.docs.pages import ROOT, pages, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def links(page: str) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def target(page: str, link: str) -> str:
    path = (ROOT / page).parent / link.partition("#")[0] if not link.startswith("#") else ROOT / page
    return str(PurePosixPath(path.resolve().relative_to(ROOT)))


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_of_a_page_leads_somewhere(page: str) -> None:
    assert [link for link in links(page) if not (ROOT / target(page, link)).exists()] == []


@pytest.mark.parametrize("page", pages())
def test_every_anchor_that_a_page_links_to_is_a_heading(page: str) -> None:
    dead = []
    for link in links(page):
        _, hash_sign, anchor = link.partition("#")
        if hash_sign and target(page, link).endswith(".md") and anchor not in anchors(target(page, link)):
            dead.append(link)
    assert dead == []


def test_the_index_links_every_page() -> None:
    linked = {target("docs/README.md", link) for link in links("docs/README.md")}
    missing = [page for page in pages() if page.startswith("docs/") and page not in linked | {"docs/README.md"}]
    assert [page for page in missing if not page.startswith("docs/adr/")] == []
    assert "docs/adr" in linked
