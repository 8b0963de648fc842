"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.vision.boxes import areas
from app.vision.boxes import iou as box_iou


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
    if class_ids is None:
        return order[_suppress(boxes[order], iou, max_det)]
    kept = np.zeros(len(order), dtype=bool)
    sorted_classes = class_ids[order]
    for class_id in np.unique(sorted_classes):
        members = np.flatnonzero(sorted_classes == class_id)
        kept[members[_suppress(boxes[order[members]], iou, max_det)]] = True
    return order[np.flatnonzero(kept)[:max_det]]


def _suppress(boxes: NDArray[np.float32], iou: float, max_det: int) -> NDArray[np.intp]:
    """Positions kept of boxes `(n, 4)` that stand in descending order of score."""
    corners = np.ascontiguousarray(boxes.T.astype(np.float64))  # (4, n): one row a coordinate
    area = areas(corners)
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while remaining.size and len(kept) < max_det:
        best, rest = remaining[0], remaining[1:]
        kept.append(int(best))
        overlap = box_iou(corners[:, best, None], area[best], corners[:, rest], area[rest])
        remaining = rest[~(overlap > iou)]
    return np.array(kept, dtype=np.intp)
