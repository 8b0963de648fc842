"""From YOLO11's raw output to boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.vision.nms import nms

# More candidates than this never reach the suppression; the best are taken (Ultralytics' max_nms).
MAX_CANDIDATES = 30_000


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
