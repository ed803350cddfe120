"""The campaign: ``python -m tests.campaign [part …] [--minutes N]``. Exit 0: nothing found.

Without ``--minutes`` every part is as short as in the test run; with it, each of them takes about that long.
"""

from __future__ import annotations

import argparse
import sys

from tests.campaign import PARTS, run_part


def main() -> int:
    """Run the parts asked for, one after the other, and print what each tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=0.0, help="how long each part goes on")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    found = 0
    for part in arguments.parts or PARTS:
        report = run_part(part, arguments.minutes)
        report.show()
        found += len(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
