"""Differences between two answers to one input. Each has a `difference` from 0 (the same) to 1, and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.boxes import best_pairs

SAME = 0.5  # least overlap of two boxes of one object
_TINY = 1e-12
Difference = dict[str, float | int]


def of_boxes(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Difference:
    """Compare detections, each with the one of its class that overlaps it most, the best pairs first.

    `difference` is 1 less the overlap of all boxes on average, where a box without a partner has none.
    """
    matched = _matched(first, second)
    boxes = len(first) + len(second)
    overlaps = [overlap for _, _, overlap in matched]
    scores = [abs(first[i]["score"] - second[j]["score"]) for i, j, _ in matched]
    return {
        "boxes_first": len(first),
        "boxes_second": len(second),
        "matched": len(matched),
        "mean_iou": float(np.mean(overlaps)) if overlaps else 0.0,
        "greatest_score_difference": max(scores, default=0.0),
        "difference": 1 - 2 * sum(overlaps) / boxes if boxes else 0.0,
    }


def of_maps(first: NDArray[Any], second: NDArray[Any]) -> Difference:
    """Compare depth or flow of one shape, in its own unit.

    `difference` is the mean absolute difference beside the range of the first map's values, 1 at most.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = np.abs(one - other)
    span = float(np.ptp(one))
    mean = float(apart.mean())
    return {
        "mean_absolute_difference": mean,
        "greatest_absolute_difference": float(apart.max()),
        "range": span,
        "difference": min(mean / max(span, _TINY), 1.0) if mean else 0.0,
    }


def of_embeddings(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two vectors; `difference` is 1 less their cosine, 1 where the cosine is negative."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape:
        return {"cosine": 0.0, "difference": 1.0}
    cosine = float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), _TINY))
    return {"cosine": cosine, "difference": min(max(1 - cosine, 0.0), 1.0)}


def of_scenes(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Difference:
    """Compare the best categories; `difference` is the share of them that only one of the two has."""
    one, other = ({row["category_id"]: row["probability"] for row in rows} for rows in (first, second))
    shared = one.keys() & other.keys()
    return {
        "in_both": len(shared),
        "of": len(one),
        "same_first": int(next(iter(one), None) == next(iter(other), None)),
        "greatest_probability_difference": max((abs(one[key] - other[key]) for key in shared), default=0.0),
        "difference": 1 - len(shared) / max(len(one), 1),
    }


def _matched(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int, float]]:
    """Pairs of places in the two lists, with their overlap."""
    if not first or not second:
        return []
    one, other = (np.array([row["box"] for row in rows], np.float64).T for rows in (first, second))
    classes = [np.array([row["class_id"] for row in rows]) for rows in (first, second)]
    return best_pairs(one, classes[0], other, classes[1], SAME)
