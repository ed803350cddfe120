"""docs/rotation.md is right: every table in it is worked out again by the rules themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.domain.rotation_cases import kept, removed, version
from tornado_backups.domain.model import Collection, Fifo, FifoPlusOlder, Gfs, NoRotation, RotationRule, Version
from tornado_backups.domain.rotation import plan_rotation
from tornado_backups.domain.units import format_duration, format_size, parse_duration, parse_size

PAGE = (Path(__file__).parents[2] / "docs" / "rotation.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```yaml\n(?P<yaml>.*?)^```$|(?P<table>(?:^\|[^\n]*\n)+)|asked at `(?P<asked>[^`]+)`", re.M | re.S)
UPLOADS = ["upload at", "size", "may have", "stays", "leaves", "answer"]
REASONS = ["version", "stays because", "until"]
SIZES = ["written", "bytes", "shown as"]
DURATIONS = ["written", "seconds", "shown as"]
REFERENCE = [["strategyName", "strategySpec"], ["field", "meaning"]]


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def read_collection(text: str) -> Collection:
    """Read a spec of the page; the real reading of manifests has tests of its own."""
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]
    return Collection(
        "db",
        "db-${version}.gpg",
        spec["maxBackupsCount"],
        max_one_version_bytes=parse_size(spec.get("maxOneVersionSize", 0)),
        max_collection_bytes=parse_size(spec.get("maxCollectionSize", 0)),
        rotation=read_rule(spec["strategyName"], spec.get("strategySpec", {})),
        protect_for=parse_duration(spec.get("protectFor", "0")),
        min_size_ratio=spec.get("minSizeRatio", 0.0),
    )


def read_rule(name: str, spec: dict[str, Any]) -> RotationRule:
    if name == "fifo-plus-older":
        return FifoPlusOlder(spec["maxOlderCopies"], parse_duration(spec["keepLastOlderNotMoreThan"]))
    if name == "gfs":
        return Gfs(**{re.sub("[A-Z]", lambda found: "_" + found[0].lower(), key): spec[key] for key in spec})
    return {"fifo": Fifo(), "none": NoRotation()}[name]


def listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "–"


class Worked:
    """Works the page through from top to bottom: specs set the collection, tables act on it."""

    def __init__(self) -> None:
        self.collection = Collection("db", "db-${version}.gpg", 1)
        self.versions: list[Version] = []
        self.asked = ""
        self.seen: list[list[str]] = []

    def spec(self, text: str) -> None:
        """A spec begins a new collection, unless its first line says that it changes the one before."""
        self.collection = read_collection(text)
        if not text.startswith("# changed"):
            self.versions = []

    def rows(self, header: list[str], rows: list[list[str]]) -> list[list[str]]:
        """Return what the rows of a table should be, from their first cells."""
        self.seen.append(header)
        if header == UPLOADS:
            return [self.upload(row[0], row[1]) for row in rows]
        if header == REASONS:
            plan = plan_rotation(self.collection, self.versions, moment(self.asked))
            return [[str(k.number), k.reason, f"{k.until:%Y-%m-%d %H:%M}" if k.until else "–"] for k in plan.keep]
        if header == SIZES:
            return [[r[0], str(parse_size(r[0])), format_size(parse_size(r[0]))] for r in rows]
        if header == DURATIONS:
            spans = [parse_duration(row[0]) for row in rows]
            return [
                [row[0], f"{span / timedelta(seconds=1):g}", format_duration(span)]
                for row, span in zip(rows, spans, strict=True)
            ]
        assert header in REFERENCE, f"no one works out a table with the columns {header}"
        return rows

    def upload(self, at: str, size: str) -> list[str]:
        begin = plan_rotation(self.collection, self.versions, moment(at))
        plan = begin
        if begin.refusal is None:
            plan = plan_rotation(self.collection, self.versions, moment(at), parse_size(size))
        if plan.refusal is None:
            self.versions = [k.version or version(k.number, moment(at), parse_size(size)) for k in plan.keep]
        allowed = "any size" if begin.allowed_bytes is None else format_size(begin.allowed_bytes)
        answer = plan.refusal.reason if plan.refusal else "stored"
        return [at, size, allowed, listed(kept(plan)), listed(removed(plan)), answer]


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


@pytest.fixture(scope="module")
def worked() -> tuple[list[tuple[list[list[str]], list[list[str]]]], list[list[str]]]:
    """Every table's rows as they stand and as they should be, and the headers seen."""
    state, pairs = Worked(), []
    for block in BLOCK.finditer(PAGE):
        if block["yaml"] is not None:
            state.spec(block["yaml"])
        elif block["asked"] is not None:
            state.asked = block["asked"]
        else:
            header, _, *rows = [cells(line) for line in block["table"].splitlines()]
            pairs.append((rows, state.rows(header, rows)))
    return pairs, state.seen


def test_every_table_of_the_rotation_page_says_what_the_rules_say(worked) -> None:
    pairs, _ = worked
    for standing, computed in pairs:
        assert standing == computed


def test_the_page_works_out_every_strategy_and_every_kind_of_table(worked) -> None:
    _, seen = worked
    assert seen.count(UPLOADS) >= 8
    for header in (REASONS, SIZES, DURATIONS, *REFERENCE):
        assert header in seen
    for name in ("fifo", "fifo-plus-older", "gfs", "none"):
        assert f"strategyName: {name}\n" in PAGE


def test_the_page_shows_every_refusal_that_rotation_knows(worked) -> None:
    pairs, _ = worked
    answers = {row[-1] for rows, _ in pairs for row in rows if len(row) == len(UPLOADS)}
    assert answers == {"stored", "protected", "quota-exceeded"}
