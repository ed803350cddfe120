"""The parsers that see raw network bytes: kept inputs replayed, changed at random, and changed by coverage.

What must hold whatever the bytes are stands in ``targets``; the other parsers have property tests beside their own
tests, which a long run repeats with new seeds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from tests.campaign import corpus, coverage_guided
from tests.campaign.mutations import mutants
from tests.campaign.report import Report
from tests.campaign.targets import TARGETS, Finding, Gpg

MUTANTS = 2000
GUIDED_SECONDS = 2.0
GPG_ASKED = 60
PROPERTY_TESTS = ("tests/domain", "tests/config", "tests/services/test_login_request.py", "tests/web/test_fields.py",
                  "tests/web/test_form.py", "tests/auth/test_tokens.py")  # fmt: skip


def run(report: Report, minutes: float) -> None:
    """Replay and change; with ``minutes`` a third of them for each target, and new inputs are kept."""
    with Gpg() as gpg:
        for target in TARGETS:
            inputs = corpus.load(target)
            _judge_all(report, target, inputs, "kept inputs", gpg)
            seed = time.time_ns() if minutes else 1
            _judge_all(report, target, list(islice(mutants(inputs, seed), MUTANTS)), "changed at random", gpg)
            if coverage_guided.is_available():
                _guided(report, target, inputs, 60 * minutes / len(TARGETS) or GUIDED_SECONDS, gpg, keep=bool(minutes))
            else:
                report.note(f"{target}: atheris is not installed: no coverage-guided run")
        report.count("accepted binary messages listed by gpg", "not incomplete", gpg.asked)
        report.note(f"gpg complained about {gpg.complaints} of them, never about their end")
    if minutes:
        properties(report)


def _judge_all(report: Report, target: str, inputs: list[bytes], how: str, gpg: Gpg) -> None:
    judge = TARGETS[target]
    for data in inputs:
        try:
            outcome = judge(data)
            if target == "message" and gpg.asked < GPG_ASKED:
                gpg.check(data)
        except Finding as found:
            report.finding(f"{target} on {data.hex()}: {found}")
            outcome = "finding"
        report.count(f"{target}: {how}", outcome)


def _guided(report: Report, target: str, inputs: list[bytes], seconds: float, gpg: Gpg, keep: bool) -> None:
    """Run until the time is over or something was found; with ``keep`` the corpus grows."""
    done = coverage_guided.run(target, inputs, seconds)
    report.count(f"{target}: by coverage", "executed", done.executions)
    report.check(done.executions > 0, f"{target}: the fuzzer did not run")
    report.note(f"{target}: {done.coverage}, {len(done.inputs)} inputs")
    for data, said in done.findings:
        report.finding(f"{target} on {data.hex()}: {said}")
    if not keep:
        return
    report.note(f"{target}: {corpus.save(target, done.inputs)} inputs kept")
    for data in done.inputs if target == "message" else ():
        try:
            gpg.check(data)
        except Finding as found:
            report.finding(f"{target} on {data.hex()}: {found}")


def properties(report: Report) -> None:
    """Repeat the property tests with a new seed."""
    seed = time.time_ns() % 1_000_000
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--hypothesis-seed={seed}",
        *PROPERTY_TESTS,
    ]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    report.check(done.returncode == 0, f"the property tests with seed {seed}: {done.stdout[-3000:]}")
    report.count("property tests with another seed", str(done.returncode))
