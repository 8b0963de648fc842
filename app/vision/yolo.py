"""From YOLO11's raw output to boxes: decoding, and greedy non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.vision.boxes import TINY, areas
from app.vision.boxes import iou as box_iou

# More candidates than this never reach the suppression; the best are taken (Ultralytics' max_nms).
MAX_CANDIDATES = 30_000
# Boxes that are compared with each other at a time: all pairs of a block fit the processor's cache.
_BLOCK = 64
# As many are looked at one by one: each step on an array gives the interpreter's lock away, and between threads that
# wait for it, that takes longer than the step.
_FEW = 32


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes `(k, 4)` float32 xyxy in letterbox pixels; scores (above `conf`) and class ids `(k,)`."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def take(self, rows: NDArray[np.intp]) -> Candidates:
        return Candidates(self.boxes[rows], self.scores[rows], self.class_ids[rows])


def decode(output0: NDArray[np.float32], conf: float, classes: Sequence[int] | None = None) -> Candidates:
    """The anchors whose best class scores above `conf`; each has that one class.

    Args:
        output0: `[1, 4 + C, A]` float32: rows centre x, centre y, width, height in letterbox pixels, then the
            scores of C classes in `[0, 1]`.
        conf: a score must be greater.
        classes: class ids to keep; None: all.

    Returns:
        Candidates in the anchors' order. Rows with a box that is not finite are dropped.
    """
    rows = output0[0]
    best = rows[4:].max(axis=0)  # NaN compares false below
    anchors = (best > conf).nonzero()[0]
    found = rows[:, anchors]
    class_ids = found[4:].argmax(axis=0).astype(np.int32)
    with np.errstate(invalid="ignore", over="ignore"):  # what isn't finite is dropped below
        boxes = _xyxy(found[:4])
    scores = best[anchors]
    keep = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if classes is not None:
        keep &= np.isin(class_ids, np.asarray(classes, dtype=np.int32))
    candidates = Candidates(boxes, scores, class_ids)
    return candidates if keep.all() else candidates.take(np.flatnonzero(keep))


def _xyxy(xywh: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(4, k)` centre, size -> `(k, 4)` corners."""
    centre, half = xywh[:2], xywh[2:] / np.float32(2)
    return np.ascontiguousarray(np.concatenate((centre - half, centre + half)).T)


def detect(
    output0: NDArray[np.float32],
    conf: float,
    iou: float,
    max_det: int,
    classes: Sequence[int] | None = None,
    *,
    agnostic: bool = False,
) -> Candidates:
    """`decode`, then `nms`: at most `max_det` boxes in letterbox pixels, in descending order of score.

    Args:
        output0: see `decode`.
        conf: see `decode`.
        iou: boxes of one class that overlap more are one object.
        max_det: the most boxes of an answer.
        classes: see `decode`.
        agnostic: boxes suppress each other whatever their class.
    """
    found = decode(output0, conf, classes)
    if len(found.scores) > MAX_CANDIDATES:
        found = found.take(np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES])
    return found.take(nms(found.boxes, found.scores, None if agnostic else found.class_ids, iou, max_det))


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
    if len(scores) <= _FEW:
        return np.array(_few(boxes, scores, class_ids, iou)[:max_det], dtype=np.intp)
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


def _few(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32] | None, iou: float
) -> list[int]:
    """`nms` without arrays, to the bit."""
    rated, corners = scores.tolist(), boxes.tolist()
    classes = [0] * len(rated) if class_ids is None else class_ids.tolist()
    kept: list[int] = []
    stay: dict[int, list[tuple[float, float, float, float, float]]] = {}
    order = sorted(range(len(rated)), key=rated.__getitem__, reverse=True)  # equal scores keep their order
    for row in order:
        x1, y1, x2, y2 = corners[row]
        area = (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0
        of_class = stay.setdefault(classes[row], [])
        for left, top, right, bottom, other in of_class:
            width = (x2 if x2 < right else right) - (x1 if x1 > left else left)  # noqa: FURB136  # min takes thrice as long
            height = (y2 if y2 < bottom else bottom) - (y1 if y1 > top else top)  # noqa: FURB136  # ditto
            if width > 0 and height > 0:
                shared = width * height
                if shared / max(area + other - shared, TINY) > iou:
                    break
        else:
            kept.append(row)
            of_class.append((x1, y1, x2, y2, area))
    return kept


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Overlaps between boxes: `corners` `(4, n)`, in descending order of score."""

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
    """Return the boxes that stay; `over` `(n, n)` says which later boxes each box would suppress."""
    stay = np.ones(len(over), dtype=np.bool_)
    for row in np.flatnonzero(over.any(axis=1)):
        if stay[row]:
            stay[over[row]] = False
    return stay
