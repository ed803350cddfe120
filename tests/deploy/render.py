"""Render the chart with Helm's own engine: reads a JSON list of value sets, prints a JSON list of results.

Runs as a process of its own, so that Helm's Go runtime stays out of the tests' process.
"""

from __future__ import annotations

import json
import sys

import helm_python


def main() -> None:
    chart_folder, wanted = sys.argv[1], json.load(sys.stdin)
    results = []
    with helm_python.Chart.load(chart_folder) as chart:
        for values in wanted:
            try:
                rendered = chart.render(values, name="demo", namespace="backups")
                results.append({"files": rendered, "error": ""})
            except helm_python.HelmError as error:
                results.append({"files": {}, "error": str(error)})
    lint = helm_python.lint(chart_folder, strict=True, kube_version="v1.31.0")
    json.dump({"results": results, "lint": lint}, sys.stdout)


if __name__ == "__main__":
    main()
