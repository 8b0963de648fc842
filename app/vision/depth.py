"""Relative inverse depth in numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def statistics(values: NDArray[np.float32]) -> dict[str, float]:
    """Least, greatest, mean, deviation and two percentiles of a map `[H, W]`, in its own unit."""
    p05, p95 = np.percentile(values, (5, 95))
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p05": float(p05),
        "p95": float(p95),
    }
