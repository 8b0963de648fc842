"""Boxes of a detector in FP16 beside those in FP32, on photographs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.vision.boxes import best_pairs
from app.vision.yolo import Candidates, detect
from benchmarks.precision.models import Pixels, graph, letterboxed, placed, session
from routing.catalogue import Branch

CONF, IOU, MOST = 0.25, 0.7, 300  # the defaults of /v1/detect
_LOW = 0.001  # for average precision, which looks at every score
_SAME = 0.5  # least overlap of two boxes of one object


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the boxes of one size, in source pixels.

    `only`: scores of boxes that one of the two has alone. `ap`: COCO's average precision (IoU 0.50 to 0.95) of the FP16
    boxes, with the FP32 boxes above the threshold as the truth.
    """

    branch: str
    pictures: int
    boxes_fp32: int
    boxes_fp16: int
    matched: int
    greatest_box_px: float
    greatest_score: float
    mean_iou: float
    only: tuple[float, ...]
    ap: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(repository: Path, single: Branch, half: Branch, pictures: Mapping[str, Pixels]) -> Agreement:
    """Run both branches on each picture."""
    sessions = [session(graph(repository, branch.weights_model)) for branch in (single, half)]
    every = [
        [
            _boxes(one.run(None, {single.inputs[0].name: letterboxed(picture, single)})[0], picture, single)
            for one in sessions
        ]
        for picture in pictures.values()
    ]
    pairs = [_matched(first, second) for (first, _), (second, _) in every]
    boxes = [row for pair in pairs for row in pair.boxes]
    return Agreement(
        branch=single.name,
        pictures=len(pictures),
        boxes_fp32=sum(len(first.scores) for (first, _), _ in every),
        boxes_fp16=sum(len(second.scores) for _, (second, _) in every),
        matched=len(boxes),
        greatest_box_px=max((row.box_px for row in boxes), default=0.0),
        greatest_score=max((row.score for row in boxes), default=0.0),
        mean_iou=float(np.mean([row.iou for row in boxes])) if boxes else 0.0,
        only=tuple(score for pair in pairs for score in pair.only),
        ap=_average_precision([first for (first, _), _ in every], [low for _, (_, low) in every]),
    )


def _boxes(output0: np.ndarray, picture: Pixels, branch: Branch) -> tuple[Candidates, Candidates]:
    """Boxes above the threshold, and all that average precision looks at."""
    found = []
    for conf in (CONF, _LOW):
        kept = detect(output0, conf, IOU, MOST)
        found.append(Candidates(placed(picture, branch).undo(kept.boxes), kept.scores, kept.class_ids))
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class _Row:
    box_px: float
    score: float
    iou: float


@dataclass(frozen=True, slots=True)
class _Pair:
    boxes: list[_Row]
    only: list[float]


def _matched(first: Candidates, second: Candidates) -> _Pair:
    """Each box with the one of its class that overlaps it most, the best pairs first."""
    columns, rows = (boxes.boxes.T.astype(np.float64) for boxes in (first, second))
    pairs = best_pairs(columns, first.class_ids, rows, second.class_ids, _SAME)
    found = [
        _Row(
            float(np.abs(first.boxes[i] - second.boxes[j]).max()),
            float(np.abs(first.scores[i] - second.scores[j])),
            overlap,
        )
        for i, j, overlap in pairs
    ]
    left = set(range(len(first.scores))) - {i for i, _, _ in pairs}
    right = set(range(len(second.scores))) - {j for _, j, _ in pairs}
    alone = [float(first.scores[i]) for i in sorted(left)] + [float(second.scores[j]) for j in sorted(right)]
    return _Pair(found, alone)


def _average_precision(truth: Sequence[Candidates], found: Sequence[Candidates]) -> float:
    """COCO's AP over all pictures and classes."""
    boxes = [row for number, one in enumerate(truth, 1) for row in _coco(number, one)]
    if not boxes:
        return 0.0
    for number, row in enumerate(boxes, 1):
        row |= {"id": number, "iscrowd": 0}
    classes = [{"id": number} for number in sorted({row["category_id"] for row in boxes})]
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = {
            "images": [{"id": number} for number in range(1, len(truth) + 1)],
            "annotations": boxes,
            "categories": classes,
        }
        annotations.createIndex()
        rows = [row for number, one in enumerate(found, 1) for row in _coco(number, one)]
        evaluation = COCOeval(annotations, annotations.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _coco(picture: int, boxes: Candidates) -> list[dict[str, Any]]:
    return [
        {
            "image_id": picture,
            "category_id": int(class_id) + 1,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "area": float((x2 - x1) * (y2 - y1)),
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, class_id in zip(boxes.boxes, boxes.scores, boxes.class_ids, strict=True)
    ]
