"""Sums and tables about workers, and the commands of variants."""

from __future__ import annotations

import os

import psutil
import pytest

from benchmarks.processes.host import CORES, GPU_CORES, LOAD, page
from benchmarks.processes.variants import report
from benchmarks.processes.workers import pin


def _found(lock_ms: dict[str, float]) -> dict[str, object]:
    figures = {"rate": 200.0, "rate_least": 190.0, "rate_greatest": 210.0, "cpu_ms": 4.0, "p50_ms": 30.0}
    rows = [{"case": "detect_640x480", "cores": 1, "workers": count, **figures} for count in (1, 2)]
    return {
        "environment": {"cpu": "CPU", "cpu_count": 2, "python": "3.11", "load_average": [0.5]},
        "rows": rows,
        "memory": {"1": {"worker_mb": 150.0, "worker_private_mb": 120.0, "parent_mb": 0.0}},
        "gil_ms": lock_ms,
    }


def test_the_host_is_computed_from_cpu_and_lock() -> None:
    """Requests/s follow from the CPU per request, workers from the time that one holds the interpreter's lock."""
    text = page(_found({"detect_640x480": 2.0}))
    rate = (CORES - GPU_CORES) * LOAD * 1000 / 4
    workers = 7  # 2800 requests/s, 500 per worker used to 80 %
    assert f"| detect_640x480 | 4.00 | 2.00 | {rate:.0f} | 500 | {workers} | {workers * 150} |" in text


def test_no_number_of_workers_is_computed_without_the_lock() -> None:
    """A page without samples says so."""
    assert "not sampled" in page(_found({}))


def test_pinning_holds_for_every_thread() -> None:
    """A pinned process runs on the cores that were named."""
    own, before = psutil.Process(), os.sched_getaffinity(0)
    core = min(before)
    try:
        pin([own], [core])
        assert {frozenset(os.sched_getaffinity(thread.id)) for thread in own.threads()} == {frozenset({core})}
    finally:
        pin([own], sorted(before))


@pytest.mark.parametrize("name", ["a", "b"])
def test_variants_are_reported_by_name(name: str) -> None:
    """Every variant has its rows, and its ratios to the first."""
    row = {"rate": 100.0, "cpu_ms": 4.0, "p50_alone_ms": 5.0, "rss_mb": 150.0}
    ratio = {"median": 0.9, "least": 0.8, "greatest": 1.0}
    found = {
        "medians": {"a": {"detect_640x480": row}, "b": {"detect_640x480": row}},
        "least_cpu_ms": {"a": {"detect_640x480": 3.9}, "b": {"detect_640x480": 3.5}},
        "ratios": {"b": {"cpu_ms": {"detect_640x480": ratio}}},
    }
    assert any(line.split()[1] == name for line in report(found).splitlines()[1:])
