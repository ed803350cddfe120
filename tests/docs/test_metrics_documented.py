"""docs/monitoring.md lists every metric as the program describes it, and rules and dashboard use only what exists."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT, blocks, read
from tests.serving import PASSWORD, RunningServer, Tree
from tornado_backups.domain.health import CHECK_NAMES
from tornado_backups.services.alerts import signature
from tornado_backups.services.metrics import DESCRIPTIONS, PREFIX

PAGE = "docs/monitoring.md"
ROW = re.compile(r"^\| `([\w:]+)` \| (gauge|counter|histogram) \|\s*([^|\n]*?)\s*\| ([^|\n]*) \|$", re.MULTILINE)
RULES = ROOT / "docs/monitoring/alert-rules.yaml"
DASHBOARD = ROOT / "docs/monitoring/grafana-dashboard.json"
SELECTOR = re.compile(r"(\b[a-z]\w*)\{([^}]*)\}")
MATCHER = re.compile(r'\s*(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"\s*')
FROM_SCRAPING = {"job", "instance"}


def full_name(name: str) -> str:
    return name if name.startswith("process_") else PREFIX + name


def documented() -> dict[str, tuple[str, set[str], str]]:
    rows = ROW.findall(read(PAGE))
    return {name: (kind, set(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}


def expressions() -> list[str]:
    """Every PromQL expression of the alert rules and the dashboard."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_is_in_the_table_with_its_type_and_meaning_in_the_same_order() -> None:
    told = [(full_name(name), kind, meaning) for name, (kind, meaning) in DESCRIPTIONS.items()]
    assert [(name, kind, meaning) for name, (kind, _, meaning) in documented().items()] == told


def provoke(server: RunningServer) -> str:
    """Let everything happen that is counted; return what /metrics says."""
    token = server.login("admin")
    server.upload("files", token)
    server.request("GET", "/api/stable/repository/collection/files/version/1", token=token)
    server.maintain()
    for _ in range(4):
        server.request("POST", "/api/stable/auth/login", {"username": "nobody", "password": PASSWORD})
    return server.request("GET", "/metrics").body.decode()


def test_every_metric_has_the_labels_that_the_table_says(tree: Tree, start: Callable[..., RunningServer]) -> None:
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxAge="26h")
    text = provoke(start(rate_auth_limit=2))
    seen: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines():
        found = re.match(r"([\w:]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ", line)
        if found and not line.startswith("#"):
            seen[found[1]] |= {name for name in re.findall(r'(\w+)="', found[2] or "") if name != "le"}
    assert seen == {name: labels for name, (_, labels, _) in documented().items()}


def metrics_in(expression: str) -> Iterator[str]:
    yield from re.findall(r"\b((?:tornado_backups|process)_\w+)", expression)


def base_name(name: str) -> str:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if documented().get(base, ("",))[0] == "histogram" else name


@pytest.mark.parametrize("expression", expressions())
def test_each_expression_uses_metrics_and_labels_that_exist(expression: str) -> None:
    names = list(metrics_in(expression))
    assert all(base_name(name) in documented() for name in names), names
    for name, inside in SELECTOR.findall(expression):
        labels = {label for label, _ in MATCHER.findall(inside)}
        assert labels - FROM_SCRAPING <= (documented()[base_name(name)][1] if name != "up" else set())
        assert re.fullmatch(rf"(?:{MATCHER.pattern},?)*", inside), inside
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        known = {label for name in names for label in documented()[base_name(name)][1]} | FROM_SCRAPING | {"le"}
        assert set(re.split(r",\s*", group)) <= known


@pytest.mark.parametrize("expression", expressions())
def test_each_expression_is_put_together_rightly(expression: str) -> None:
    plain = re.sub(r'"[^"]*"', '""', expression)
    for opening, closing in ("()", "[]", "{}"):
        assert plain.count(opening) == plain.count(closing)
    for name in metrics_in(plain):
        counts_up = documented()[base_name(name)][0] in ("counter", "histogram")
        in_range = rf"(?:rate|increase)\({name}(?:\{{[^}}]*\}})?\[(?:\d+[smhd]|\$__rate_interval)\]\)"
        assert bool(re.search(in_range, plain)) == counts_up, (
            f"{name}: counters want rate() or increase(), gauges do not"
        )


def test_checks_that_the_rules_name_exist() -> None:
    named = {
        check
        for text in expressions()
        for found in re.findall(r'check[=!]~?"([^"]*)"', text)
        for check in found.split("|")
    }
    assert named
    assert named <= set(CHECK_NAMES)


def test_every_metric_is_used_by_the_rules_or_the_dashboard() -> None:
    used = {base_name(name) for text in expressions() for name in metrics_in(text)}
    left_out = {"process_virtual_memory_bytes", "process_start_time_seconds", "process_open_fds"}
    assert set(documented()) - used == left_out


def test_every_alert_has_what_prometheus_wants_and_a_line_in_the_page() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"\d+[mhd]", rule.get("for", "1m"))
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"]
            assert f"`{rule['alert']}`" in read(PAGE)


def test_panels_of_the_dashboard_do_not_overlap_and_ask_the_chosen_data_source() -> None:
    taken: set[tuple[int, int]] = set()
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells
        assert at["x"] + at["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"
        taken |= cells


def test_the_page_verifies_a_signature_as_the_server_makes_it() -> None:
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    names: dict[str, Any] = {}
    exec(code, names)
    body = '{"collection": "café"}'
    header = "sha256=" + signature("secret", body)
    assert names["is_genuine"](body.encode(), header, "secret")
    assert not names["is_genuine"](body.encode() + b" ", header, "secret")
    assert not names["is_genuine"](body.encode(), header, "another")
