"""The metrics as `/metrics` and `docs/metrics.md` show them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.metrics.registry import Described


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """All metrics and their media type: OpenMetrics (with exemplars) where `accept` asks for it, else text."""
    encode, media_type = choose_encoder(accept)
    shown = CollectorRegistry(auto_describe=False)
    shown.register(_Shown(collector))
    return encode(shown), media_type


class OfWorkers(Collector):
    """Every worker's numbers, from the files in `folder`; what a dead one held is forgotten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        for pid in {path.stem.rpartition("_")[2] for path in self._folder.glob("gauge_live*.db")}:
            if not _alive(int(pid)):
                mark_process_dead(int(pid), str(self._folder))  # type: ignore[no-untyped-call]  # has no types
        return self._read(_TRIES)

    def _read(self, tries: int) -> Iterable[Metric]:
        try:
            collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]  # ditto
            found: Iterable[Metric] = collector.collect()  # type: ignore[no-untyped-call]  # ditto
        except (
            struct.error,
            FileNotFoundError,
        ):  # a worker that begins has made a file, and not yet its size
            if tries == 1:
                raise
            time.sleep(0.01)
            return self._read(tries - 1)
        return found


_TRIES = 10


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Shown(Collector):
    """Leaves out what nobody asks for: `_created` (a series a counter more), and infos that hold no longer."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            gone = 0.0 if metric.name.endswith("_info") else None
            metric.samples = [
                s for s in metric.samples if s.value != gone and not s.name.endswith("_created")
            ]
            yield metric


def markdown(described: Sequence[Described]) -> str:
    """The documentation of all metrics."""
    lines = [
        "# Metrics",
        "",
        (
            "Generated from `app/metrics/` by `gateway metrics`. Durations are in seconds, with buckets from 0.1 ms to "
            "60 s."
        ),
        (
            "With several workers, any worker answers `/metrics` for all of them; the column *workers* says how values "
            "are combined. Each replica answers for itself; the column *replicas* is the function of PromQL that "
            "combines them, such as `sum by (route) (…)`."
        ),
        "With a single worker, OpenMetrics answers have trace ids as exemplars; request them with `Accept`.",
        "",
        "| metric | kind | labels | workers | replicas | description |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.name}` | {row.kind} | {' '.join(f'`{label}`' for label in row.labels)} | "
        f"{row.workers} | {row.replicas} | {row.help} |"
        for row in described
    ]
    return "\n".join(lines) + "\n"
