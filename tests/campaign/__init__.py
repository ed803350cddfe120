"""Hostile input and hard load against the finished server (docs/robustness.md).

Each part is a module with ``run(report, minutes)``; the short form of every one is part of the test run.
"""

from __future__ import annotations

import importlib

from tests.campaign.report import Report

PARTS = {
    "parsers": "tests.campaign.parsers",
    "http": "tests.campaign.http",
    "slow": "tests.campaign.slow",
    "load": "tests.campaign.load",
    "yaml": "tests.campaign.hostile_yaml",
    "disk": "tests.campaign.disk",
    "clock": "tests.campaign.clock",
}


def run_part(part: str, minutes: float) -> Report:
    """Run one part and return what it tried and found."""
    report = Report(part)
    importlib.import_module(PARTS[part]).run(report, minutes)
    return report
