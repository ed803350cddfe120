"""``python -m benchmarks``: measure everything, print one table, write it as text and JSON.

Owns: the command line and the order of measurements. Explained in docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import footprint, latency, throughput, upkeep
from benchmarks.client import Refused
from benchmarks.machine import describe
from benchmarks.plan import Plan
from benchmarks.processes import Missing
from benchmarks.results import Table

MEASUREMENTS: dict[str, Callable[[Plan], None]] = {
    "start": latency.measure_start,
    "footprint": footprint.measure_local,
    "footprint-s3": footprint.measure_s3,
    "limit-s3": footprint.measure_limit_s3,
    "limit-slow": footprint.measure_limit_slow,
    "throughput": throughput.measure_local,
    "throughput-s3": throughput.measure_s3,
    "health": latency.measure_health,
    "small": latency.measure_small,
    "listing": latency.measure_listing,
    "upkeep": upkeep.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements that were asked for; returns 1 when one of them could not be finished."""
    options = _parser().parse_args(argv)
    base = Path(tempfile.mkdtemp(prefix="tornado-backups-bench-", dir=options.dir))
    try:
        table = Table(describe(base))
        broken = _run(options, base, table)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(table.text())
    if options.output:
        Path(f"{options.output}.txt").write_text(table.text())
        table.save(Path(f"{options.output}.json"))
    return 1 if broken else 0


def _run(options: argparse.Namespace, base: Path, table: Table) -> bool:
    servers = dict(each.split("=", 1) for each in options.server)
    if options.quick:
        plan = Plan(
            base,
            table,
            file_mib=64,
            rounds=2,
            s3_rounds=1,
            slow_uploads=30,
            slow_seconds=5,
            wait_seconds=5,
            small_uploads=60,
            health_seconds=2,
            rows=50_000,
            collections=1000,
            servers=servers,
        )
    else:
        plan = Plan(base, table, file_mib=options.size, servers=servers)
    broken = False
    for name in options.only or MEASUREMENTS:
        print(f"--- {name}", file=sys.stderr, flush=True)
        try:
            MEASUREMENTS[name](plan)
        except (Missing, Refused, OSError) as error:
            broken = True
            table.missing([f"{name}|"], f"{type(error).__name__}: {error}")
    return broken


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this server beside others.")
    parser.add_argument("--quick", action="store_true", help="small files and few rounds: shows that it works")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="size of the large files")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="one measurement; may be given again")
    parser.add_argument("--dir", default=None, help="where files go, on the disk to measure (default: temporary)")
    parser.add_argument("--output", default="benchmark", help="write OUTPUT.txt and OUTPUT.json; empty for none")
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a further server that stores PUT /name in {folder} and listens on {port}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
