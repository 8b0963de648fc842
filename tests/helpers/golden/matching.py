"""Pairs two answers' boxes, to say how far they are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAME_PX = 1e-3  # corners no further apart are equal, even of a box that clipping left without area


@dataclass(frozen=True)
class Pair:
    """A wanted box and the best box of its class: their IoU (0: there is none) and the scores' difference."""

    wanted: int
    iou: float
    score_difference: float


@dataclass(frozen=True)
class Answer:
    """Boxes `(n, 4)` xyxy, scores `(n,)`, class ids `(n,)`."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_ids: NDArray[np.int64]

    @classmethod
    def of(cls, boxes: ArrayLike, scores: ArrayLike, class_ids: ArrayLike) -> Answer:
        return cls(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            np.asarray(scores, dtype=np.float64).reshape(-1),
            np.asarray(class_ids, dtype=np.int64).reshape(-1),
        )


def pair(wanted: Answer, found: Answer, above: float = 0.0) -> list[Pair]:
    """One pair for every wanted box that scores above `above`; a found box answers for one wanted box at most."""
    overlap = iou_matrix(wanted.boxes, found.boxes)
    overlap[wanted.class_ids[:, None] != found.class_ids[None, :]] = 0
    pairs = []
    for row in np.argsort(-wanted.scores, kind="stable"):
        best = int(overlap[row].argmax()) if overlap.shape[1] else -1
        iou = float(overlap[row, best]) if best >= 0 else 0.0
        difference = abs(wanted.scores[row] - found.scores[best]) if iou > 0 else 1.0
        if iou > 0:
            overlap[:, best] = 0
        if wanted.scores[row] > above:
            pairs.append(Pair(int(row), iou, float(difference)))
    return pairs


def iou_matrix(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """IoU of boxes `(n, 4)` and `(m, 4)` xyxy: `(n, m)` in [0, 1]; 1 where all corners are equal."""
    a, b = ours[:, None], theirs[None]  # (n, 1, 4), (1, m, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(-1)  # (n, m)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    overlap: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    overlap[(np.abs(a - b) <= SAME_PX).all(-1)] = 1
    return overlap
