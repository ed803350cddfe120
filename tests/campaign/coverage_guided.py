"""A coverage-guided run of one target with atheris (libFuzzer), in a process of its own.

Owns: starting it with the kept corpus, and taking over what it found: new inputs, and findings as files. Atheris is
optional: without it this module says so, and the replay and the mutations of ``parsers`` still run. Does not own: the
targets. Explained in docs/robustness.md.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 1024
HANG_SECONDS = 20
LONGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did: executions, inputs in its corpus afterwards, edges covered, and findings (input, last words)."""

    executions: int
    inputs: list[bytes]
    coverage: str
    findings: list[tuple[bytes, str]]


def is_available() -> bool:
    """Tell whether atheris is installed for this Python."""
    return importlib.util.find_spec("atheris") is not None


def run(target: str, inputs: Iterable[bytes], seconds: float) -> Run:
    """Fuzz a target from ``inputs`` for about ``seconds``; it ends with its first finding."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        grown, artifacts = Path(folder) / "grown", Path(folder) / "artifacts"
        grown.mkdir()
        artifacts.mkdir()
        for number, data in enumerate(inputs):
            (grown / f"seed-{number:04}").write_bytes(data)
        said = _fuzz(target, f"-max_total_time={max(1, round(seconds))}", f"-artifact_prefix={artifacts}/", str(grown))
        covered = re.findall(r"cov: (\d+) ft: (\d+)", said)
        executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", said) or re.search(r"Done (\d+) runs", said)
        return Run(
            int(executions[1]) if executions else 0,
            [path.read_bytes() for path in sorted(grown.iterdir())],
            "{} edges, {} features".format(*covered[-1]) if covered else "unknown",
            [(path.read_bytes(), said[-2000:]) for path in sorted(artifacts.iterdir())],
        )


def _fuzz(target: str, *arguments: str) -> str:
    fixed = (
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={HANG_SECONDS}",
        f"-max_len={LONGEST_BYTES}",
        "-print_final_stats=1",
    )
    command = [sys.executable, "-m", "tests.campaign.coverage_guided", target, *fixed, *arguments]
    done = subprocess.run(command, capture_output=True, check=False, cwd=Path(__file__).parent.parent.parent)
    return (done.stdout + done.stderr).decode(errors="replace")


def main() -> None:
    """Be the fuzzed process; libFuzzer reads the arguments behind the target's name and never returns."""
    import atheris

    with atheris.instrument_imports(include=["tornado_backups"]):
        from tests.campaign.targets import TARGETS
    target, *arguments = sys.argv[1:]
    judge = TARGETS[target]

    def take(data: bytes) -> None:
        judge(data)

    atheris.Setup([sys.argv[0], *arguments], take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
