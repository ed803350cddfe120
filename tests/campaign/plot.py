"""Samples of a run as CSV, and as an SVG that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

WIDTH, HEIGHT, LEFT = 900, 180, 70
FOLDER = Path(__file__).parent.parent.parent / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the server: ``life`` counts its processes, ``uploads`` is acknowledged ones so far."""

    seconds: float
    life: int
    memory_kib: int
    descriptors: int
    uploads: int


def write(name: str, samples: Sequence[Sample]) -> Path:
    """Write ``name.csv`` and ``name.svg`` and return the latter."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [",".join(Sample.__slots__), *(",".join(map(str, astuple(sample))) for sample in samples)]
    (FOLDER / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    seconds = [sample.seconds for sample in samples]
    graphs = (
        ("memory, MiB", [sample.memory_kib / 1024 for sample in samples]),
        ("descriptors", [float(sample.descriptors) for sample in samples]),
        ("uploads", [float(sample.uploads) for sample in samples]),
    )
    body = "".join(_graph(seconds, title, values, number) for number, (title, values) in enumerate(graphs))
    height = len(graphs) * (HEIGHT + 50)
    size = f'width="{WIDTH + LEFT + 20}" height="{height}" font-family="sans-serif"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    path = FOLDER / f"{name}.svg"
    path.write_text(f'{svg}<rect width="100%" height="100%" fill="white"/>{body}</svg>\n', "utf-8")
    return path


def _graph(seconds: Sequence[float], title: str, values: Sequence[float], number: int) -> str:
    top = number * (HEIGHT + 50) + 30
    most, end = max(values, default=1) or 1, max(seconds, default=1) or 1
    points = " ".join(
        f"{LEFT + WIDTH * at / end:.1f},{top + HEIGHT - HEIGHT * value / most:.1f}"
        for at, value in zip(seconds, values, strict=True)
    )
    return (
        f'<text x="{LEFT}" y="{top - 8}" font-size="14">{title}</text>'
        f'<text x="5" y="{top + 10}" font-size="12">{most:.0f}</text>'
        f'<text x="5" y="{top + HEIGHT}" font-size="12">0</text>'
        f'<text x="{LEFT + WIDTH - 40}" y="{top + HEIGHT + 15}" font-size="12">{end:.0f} s</text>'
        f'<path d="M{LEFT} {top}V{top + HEIGHT}H{LEFT + WIDTH}" stroke="#888" fill="none"/>'
        f'<polyline points="{points}" stroke="#06c" fill="none"/>'
    )
