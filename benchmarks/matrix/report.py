"""Two runs, compared for people; the exit code for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from app.commands.smoke.report import aligned
from benchmarks.common.environment import device_name
from benchmarks.matrix.statistics import REGRESSIONS, compare


def print_comparison(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> int:
    """Print a line a cell, the counts and the verdict; 1 where something got slower or broke, else 0."""
    rows = compare(old["rows"], new["rows"], tolerance)
    head = ("verdict", "branch", "policy", "target", "old ms", "new ms", "ratio", "99 % interval")
    print("\n".join(aligned([head, *map(_cells, rows)], right=(4, 5, 6))))
    where = [device_name(run["environment"]) for run in (old, new)]
    if where[0] != where[1]:
        print(f"NOT THE SAME MACHINE: {where[0]} / {where[1]}")
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        print(f"geometric mean of {len(ratios)} ratios new/old: {np.exp(np.mean(np.log(ratios))):.3f}")
    counts = Counter(row["verdict"] for row in rows)
    print(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to compare")
    regressions = sum(counts[name] for name in REGRESSIONS)
    print(f"REGRESSION in {regressions} cells" if regressions else "no regression")
    return 1 if regressions else 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name = (row["verdict"], row["branch"], row["policy"], row["target"])
    if "ratio" not in row:
        return (*name, "", "", "", row.get("code") or "")
    times = (f"{row['old_p50_ms']:.2f}", f"{row['new_p50_ms']:.2f}", f"{row['ratio']:.3f}")
    return (*name, *times, f"{row['low']:.3f} to {row['high']:.3f}")
