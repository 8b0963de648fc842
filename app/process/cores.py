"""Processor cores of this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the number of cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores(workers: int) -> int:
    """Return the cores of each of `workers` processes that divide those of this process, at least 1."""
    return max(1, available_cores() // workers)
