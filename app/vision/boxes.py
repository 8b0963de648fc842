"""Overlap of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TINY = float(np.finfo(np.float64).tiny)


def areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of boxes `(4, ...)`, rows x1 y1 x2 y2: `(...)`; 0 for a box that is turned inside out."""
    sides = np.maximum(corners[2:] - corners[:2], 0)
    product: NDArray[np.float64] = sides[0] * sides[1]
    return product


def iou(
    first: NDArray[np.float64],
    first_areas: NDArray[np.float64],
    second: NDArray[np.float64],
    second_areas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Intersection over union of boxes that broadcast against each other.

    `(4, n, 1)` against `(4, 1, m)` gives all pairs `(n, m)`; `(4, 1)` against `(4, m)` one box with each of many.

    Args:
        first: rows x1 y1 x2 y2, any unit.
        first_areas: their `areas`, without the first axis.
        second: as `first`, in the same unit.
        second_areas: as `first_areas`.

    Returns:
        In `[0, 1]`; 0 where both boxes are empty.
    """
    sides = np.minimum(first[2:], second[2:])  # (2, ...): x and y
    sides -= np.maximum(first[:2], second[:2])
    np.maximum(sides, 0, out=sides)
    shared: NDArray[np.float64] = sides[0]
    shared *= sides[1]
    union = first_areas + second_areas
    union -= shared
    np.maximum(union, TINY, out=union)
    shared /= union
    return shared
