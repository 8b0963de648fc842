"""Reads the golden data of detection that `make_detect.py` wrote; numpy and the standard library only."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
CLASSES = 80


@dataclass(frozen=True)
class Case:
    """One picture at one size: what the reference saw, what its network put out, what it answered.

    Candidates, k of them: `anchors` `(k,)`, `columns` `(84, k)` float32 (centre x, centre y, width, height in
    letterbox pixels, then 80 class scores, 0 where the reference's is under `facts()["class_score"]`).
    Detections, n of them in descending order of score: `boxes` `(n, 4)` float32 xyxy in source pixels, `scores`
    `(n,)`, `class_ids` `(n,)`, `kept` `(n,)` the anchor of each.
    """

    picture: str
    size: int
    width: int
    height: int
    source_sha256: str
    letterbox_sha256: str
    anchors: NDArray[np.int64]
    columns: NDArray[np.float32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    kept: NDArray[np.int64]

    def __str__(self) -> str:
        return f"{self.picture}-{self.size}"

    def output0(self) -> NDArray[np.float32]:
        """The network's output `[1, 84, A]` with everything but the candidates 0."""
        output = np.zeros((1, 4 + CLASSES, 21 * (self.size // 32) ** 2), dtype=np.float32)
        output[0][:, self.anchors] = self.columns
        return output

    def kept_boxes(self) -> NDArray[np.float32]:
        """The detections' boxes `(n, 4)` xyxy in letterbox pixels."""
        x, y, width, height = self.columns[:4, np.searchsorted(self.anchors, self.kept)]
        return np.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), axis=1)


@functools.cache
def facts() -> dict[str, Any]:
    """The JSON half: thresholds, versions, pictures and cases."""
    loaded: dict[str, Any] = json.loads((HERE / "detect.json").read_text())
    return loaded


@functools.cache
def cases() -> tuple[Case, ...]:
    """All cases, in the order of the pictures and of the sizes."""
    with np.load(HERE / "detect.npz", allow_pickle=False) as arrays:
        flat = dict(arrays)
    flat["candidate_class_end"] = np.cumsum(flat["candidate_class_count"], dtype=np.int64)
    return tuple(_case(record, facts()["pictures"][record["picture"]], flat) for record in facts()["cases"])


def _case(record: dict[str, Any], source: dict[str, Any], flat: dict[str, NDArray[Any]]) -> Case:
    candidates, detections = slice(*record["candidates"]), slice(*record["detections"])
    return Case(
        picture=record["picture"],
        size=record["size"],
        width=source["width"],
        height=source["height"],
        source_sha256=source["sha256"],
        letterbox_sha256=record["letterbox_sha256"],
        anchors=flat["candidate_anchor"][candidates].astype(np.int64),
        columns=_columns(flat, candidates),
        boxes=flat["detection_xyxy"][detections],
        scores=flat["detection_score"][detections],
        class_ids=flat["detection_class_id"][detections].astype(np.int64),
        kept=flat["detection_anchor"][detections].astype(np.int64),
    )


def _columns(flat: dict[str, NDArray[Any]], candidates: slice) -> NDArray[np.float32]:
    """Candidates' columns `(84, k)` from the flat arrays, where class scores are sparse."""
    counts = flat["candidate_class_count"][candidates].astype(np.int64)
    ends = flat["candidate_class_end"][candidates]
    columns = np.zeros((4 + CLASSES, len(counts)), dtype=np.float32)
    columns[:4] = flat["candidate_xywh"][candidates].T
    if len(counts):
        entries = slice(ends[0] - counts[0], ends[-1])
        of_candidate = np.repeat(np.arange(len(counts)), counts)
        columns[4 + flat["class_id"][entries].astype(np.int64), of_candidate] = flat["class_score"][entries]
    return columns
