"""Greedy non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.vision.boxes import areas
from app.vision.boxes import iou as box_iou

# Boxes that are compared with each other at a time: all pairs of a block fit the processor's cache.
_BLOCK = 64


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None,
    iou: float,
    max_det: int,
) -> NDArray[np.intp]:
    """Keep the best box of each group of overlapping ones.

    In descending order of score (equal scores: the earlier row first) a box is kept and suppresses every
    later box of its class whose IoU with it is greater than `iou`.

    Args:
        boxes: `(n, 4)` float32 xyxy, any unit.
        scores: `(n,)` float32.
        class_ids: `(n,)`; boxes of different classes never suppress each other. None: all are one class.
        iou: threshold in `[0, 1]`; an IoU equal to it is kept.
        max_det: stop after so many kept boxes.

    Returns:
        Indices of the kept rows, in descending order of score.
    """
    order = np.argsort(-scores, kind="stable")
    corners = np.ascontiguousarray(boxes[order].T, dtype=np.float64)  # (4, n): one row a coordinate
    pairs = _Pairs(corners, areas(corners), None if class_ids is None else class_ids[order], iou)
    kept = np.empty(0, dtype=np.intp)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(kept):
            block = block[~pairs.overlapping(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_greedy(pairs.overlapping(block, block))]))
        if len(kept) >= max_det:
            break
    return order[kept[:max_det]]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Which boxes overlap which: `corners` `(4, n)`, in descending order of score."""

    corners: NDArray[np.float64]
    areas: NDArray[np.float64]
    class_ids: NDArray[np.int32] | None
    iou: float

    def overlapping(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
        """`(n, m)`: whether a box of `first` suppresses one of `second`, which stands after it."""
        over: NDArray[np.bool_] = first[:, None] < second
        if self.class_ids is not None:
            over &= self.class_ids[first, None] == self.class_ids[second]
        rows, columns = np.nonzero(over)
        one, other = first[rows], second[columns]
        shares = box_iou(self.corners[:, one], self.areas[one], self.corners[:, other], self.areas[other])
        over[rows, columns] = shares > self.iou
        return over


def _greedy(over: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which boxes stay; `over` `(n, n)`: who would suppress whom, each only later ones."""
    stay = np.ones(len(over), dtype=np.bool_)
    for row in np.flatnonzero(over.any(axis=1)):
        if stay[row]:
            stay[over[row]] = False
    return stay
