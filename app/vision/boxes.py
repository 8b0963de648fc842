"""Overlap of boxes, and which of two lists belong together."""

from __future__ import annotations

from typing import Any

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


def best_pairs(
    first: NDArray[np.float64],
    first_classes: NDArray[np.integer[Any]],
    second: NDArray[np.float64],
    second_classes: NDArray[np.integer[Any]],
    least: float,
) -> list[tuple[int, int, float]]:
    """Each box with the one of its class that overlaps it most, the best pairs first.

    Args:
        first: `(4, n)`, rows x1 y1 x2 y2, any unit.
        first_classes: `(n)`.
        second: `(4, m)`, in the same unit.
        second_classes: `(m)`.
        least: intersection over union of a pair, in `[0, 1]`.

    Returns:
        Indices into both, each at most once, and the overlap of the pair.
    """
    overlap = iou(first[:, :, None], areas(first)[:, None], second[:, None, :], areas(second)[None, :])
    overlap = np.where(first_classes[:, None] == second_classes[None, :], overlap, 0)
    left, right = set(range(first.shape[1])), set(range(second.shape[1]))
    found = []
    for place in np.argsort(-overlap, axis=None):
        i, j = divmod(int(place), overlap.shape[1])
        if overlap[i, j] < least:
            break
        if i in left and j in right:
            left.discard(i)
            right.discard(j)
            found.append((i, j, float(overlap[i, j])))
    return found
