"""What this process counts, in Prometheus' text format (exposition format 0.0.4).

Owns: the process's own counters, gauges and histograms and how they are written down; docs/monitoring.md lists them.
Does not own: figures about collections (``services/health`` adds them at each scrape).

Our own hundred lines instead of a client library: the library costs more resident memory than the whole web layer.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping

PREFIX = "tornado_backups_"
SECONDS_BUCKETS = (0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts observations per bucket; bounds are upper and inclusive."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total += seconds

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """Yield name suffix, labels and value of each line, cumulative as the format wants it."""
        running = 0
        for bound, count in zip((*SECONDS_BUCKETS, float("inf")), self.counts, strict=True):
            running += count
            yield "_bucket", (("le", "+Inf" if bound == float("inf") else f"{bound:g}"),), running
        yield "_sum", (), self.total
        yield "_count", (), running


class Metrics:
    """Every figure of this process; used from the event loop only."""

    def __init__(self) -> None:
        # A series that is there from the start lets `increase()` see its first event.
        self._values: dict[str, dict[Labels, float]] = {
            name: {(("result", "ok"),): 0} for name in ("uploads_total", "downloads_total", "logins_total")
        }
        self._histograms = {"upload_seconds": Histogram(), "download_seconds": Histogram()}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter or gauge (names without the common prefix)."""
        series = self._values.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        series[key] = series.get(key, 0) + amount

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._values.setdefault(name, {})[tuple(sorted(labels.items()))] = value

    def value(self, name: str, **labels: str) -> float:
        """Return a figure, 0 when it was never touched."""
        return self._values.get(name, {}).get(tuple(sorted(labels.items())), 0)

    def observe(self, name: str, seconds: float) -> None:
        """Add one observation to ``upload_seconds`` or ``download_seconds``."""
        self._histograms[name].observe(seconds)

    def text(self, extra: Mapping[str, Mapping[Labels, float]]) -> str:
        """Return the whole exposition; ``extra`` holds the series of collections, by name without the prefix."""
        lines: list[str] = []
        for name, (kind, meaning) in DESCRIPTIONS.items():
            samples = self._samples_of(name, extra)
            full = name if name.startswith("process_") else PREFIX + name
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}"]
            lines += [f"{full}{suffix}{label_text(labels)} {value:.17g}" for suffix, labels, value in samples]
        return "\n".join(lines) + "\n"

    def _samples_of(
        self, name: str, extra: Mapping[str, Mapping[Labels, float]]
    ) -> Iterable[tuple[str, Labels, float]]:
        if name in self._histograms:
            return self._histograms[name].samples()
        series = {**self._values.get(name, {}), **extra.get(name, {})}
        if not series and name in STARTS_AT_ZERO:
            series = {(): 0.0}
        return [("", labels, value) for labels, value in series.items()]


def label_text(labels: Labels) -> str:
    """Return ``{name="value",…}`` with the escapes of the format, or nothing for no labels."""
    if not labels:
        return ""
    escaped = (
        f'{name}="{value.translate({92: chr(92) * 2, 10: chr(92) + "n", 34: chr(92) + chr(34)})}"'
        for name, value in labels
    )
    return "{" + ",".join(escaped) + "}"


def process_series() -> dict[str, dict[Labels, float]]:
    """Return the usual ``process_*`` figures, read from /proc (empty where there is none)."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat, open("/proc/stat", encoding="ascii") as system:
            fields = stat.read().rpartition(")")[2].split()
            booted_at = next(float(line.split()[1]) for line in system if line.startswith("btime "))
        open_files = len(os.listdir("/proc/self/fd"))
    except (OSError, StopIteration):
        return {}
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "process_cpu_seconds_total": {(): (int(fields[11]) + int(fields[12])) / ticks},
        "process_resident_memory_bytes": {(): int(fields[21]) * float(os.sysconf("SC_PAGE_SIZE"))},
        "process_virtual_memory_bytes": {(): float(fields[20])},
        "process_start_time_seconds": {(): booted_at + int(fields[19]) / ticks},
        "process_open_fds": {(): float(open_files)},
    }


DESCRIPTIONS = {
    "collection_last_success_timestamp_seconds": ("gauge", "When the newest version was stored, Unix time."),
    "collection_versions": ("gauge", "Live versions."),
    "collection_used_bytes": ("gauge", "Sum of the sizes of the live versions."),
    "collection_max_bytes": ("gauge", "The collection's hard limit; 0 means none."),
    "collection_last_size_bytes": ("gauge", "Size of the newest version."),
    "collection_healthy": ("gauge", "1 when the named check held at the last evaluation, else 0."),
    "uploads_running": ("gauge", "Uploads that run now."),
    "uploads_total": ("counter", "Uploads ended, by result (ok or the reason of the refusal)."),
    "upload_bytes_total": ("counter", "Bytes of files received."),
    "upload_seconds": ("histogram", "Seconds from the headers to the answer of a stored upload."),
    "downloads_running": ("gauge", "Downloads that run now."),
    "downloads_total": ("counter", "Downloads ended, by result."),
    "download_bytes_total": ("counter", "Bytes of files sent."),
    "download_seconds": ("histogram", "Seconds a download took that was sent whole."),
    "logins_total": ("counter", "Logins, by result (ok or the reason of the refusal)."),
    "rate_limited_total": ("counter", "Requests answered with 429, by limit."),
    "maintenance_passes_total": ("counter", "Maintenance passes, by result (ok, failed)."),
    "maintenance_last_success_timestamp_seconds": ("gauge", "When a maintenance pass last ended well, Unix time."),
    "storage_unknown_objects": ("gauge", "Stored objects that no row of the registry names."),
    "process_cpu_seconds_total": ("counter", "User and system CPU time."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
    "process_virtual_memory_bytes": ("gauge", "Virtual memory."),
    "process_start_time_seconds": ("gauge", "When the process started, Unix time."),
    "process_open_fds": ("gauge", "Open file descriptors."),
}
"""Name (without the prefix) → type and meaning: the one list that ``/metrics`` and docs/monitoring.md follow."""

STARTS_AT_ZERO = frozenset(
    {"uploads_running", "upload_bytes_total", "downloads_running", "download_bytes_total", "storage_unknown_objects"}
)
