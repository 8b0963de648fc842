"""Adapters that call each tracker: high 0.5, low 0.1, new 0.6, match 0.8, a buffer of one second.

`prepare` is not timed, `update` is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import supervision
from boxmot.trackers.box.bytetrack.tracker import ByteTrack as BoxmotByteTrack
from numpy.typing import NDArray
from trackers import ByteTrackTracker
from ultralytics.trackers.byte_tracker import BYTETracker

from app.vision.bytetrack import ByteTracker
from app.vision.tracks import TrackParameters

Array = NDArray[np.float32]
Shown = list[tuple[int, Array, int]]  # id, box xyxy, row of the input (-1: the package doesn't say)


@dataclass(frozen=True)
class Peer:
    """One tracker: its distribution (None: ours), how it is set, and a new one for a frame rate."""

    package: str | None
    how: str
    new: Callable[[float], Any]
    prepare: Callable[[Array, Array, float], tuple[Any, ...]]  # boxes, scores, time -> arguments of `update`
    update: Callable[..., Any]  # the tracker and those arguments -> the package's answer
    shown: Callable[[Any, Array], Iterable[tuple[int, Array, int]]]  # answer, boxes -> tracks


def _ours(_: float) -> Any:
    return ByteTracker(TrackParameters(high=0.5, low=0.1, new=0.6, match=0.8, buffer_s=1.0))


def _supervision(fps: float) -> Any:
    warnings.simplefilter("ignore")  # says that it is deprecated
    return supervision.ByteTrack(
        track_activation_threshold=0.5,
        lost_track_buffer=30,
        minimum_matching_threshold=0.8,
        frame_rate=fps,
    )


def _trackers(fps: float) -> Any:
    return ByteTrackTracker(
        lost_track_buffer=30,
        frame_rate=fps,
        track_activation_threshold=0.6,
        minimum_consecutive_frames=2,
        minimum_iou_threshold=0.2,
        high_conf_det_threshold=0.5,
    )


def _boxmot(fps: float) -> Any:
    logging.disable(logging.INFO)  # it writes its settings
    tracker = BoxmotByteTrack(
        min_conf=0.1, track_thresh=0.5, match_thresh=0.8, track_buffer=30, frame_rate=fps
    )
    tracker.det_thresh = 0.6
    return tracker


def _ultralytics(fps: float) -> Any:
    return BYTETracker(
        SimpleNamespace(
            track_high_thresh=0.5,
            track_low_thresh=0.1,
            new_track_thresh=0.6,
            track_buffer=round(fps),
            match_thresh=0.8,
            fuse_score=True,
        )
    )


def _detections(boxes: Array, scores: Array) -> Any:
    return supervision.Detections(xyxy=boxes, confidence=scores)


class _Results:
    """The fields that Ultralytics' tracker reads of its own results."""

    def __init__(self, boxes: Array, scores: Array) -> None:
        self.xyxy, self.conf, self.cls = boxes, scores, np.zeros(len(scores), dtype=np.float32)
        self.xywh = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), axis=1)

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, rows: Any) -> _Results:
        return _Results(self.xyxy[rows], self.conf[rows])


def _of_rows(ids: NDArray[np.int32], boxes: Array) -> Shown:
    return [(int(ids[row]), boxes[row], int(row)) for row in np.flatnonzero(ids > 0)]


def _of_detections(answer: Any, _: Array) -> Shown:
    return [(int(i), box, -1) for i, box in zip(answer.tracker_id, answer.xyxy, strict=True) if i >= 0]


def _of_table(answer: Any, _: Array) -> Shown:
    """Columns x1 y1 x2 y2 id score class row."""
    return [(int(row[4]), row[:4], int(row[7])) for row in answer]


def _above(low: float, boxes: Array, scores: Array) -> Any:
    kept = scores > np.float32(low)
    return _detections(boxes[kept], scores[kept])


PEERS = {
    "ours": Peer(
        None,
        "ByteTracker(TrackParameters(0.5, 0.1, 0.6, 0.8, buffer_s=1.0)).update(boxes, scores, None, frame / fps); "
        "the input's box of each row with an id",
        _ours,
        lambda boxes, scores, time_s: (boxes, scores, None, time_s),
        lambda tracker, *arguments: tracker.update(*arguments),
        _of_rows,
    ),
    "supervision": Peer(
        "supervision",
        "ByteTrack(0.5, 30, 0.8, fps).update_with_detections(...); low is 0.1 and new is 0.6 by its code; the "
        "detections that it returns",
        _supervision,
        lambda boxes, scores, _: (_detections(boxes, scores),),
        lambda tracker, detections: tracker.update_with_detections(detections),
        _of_detections,
    ),
    "trackers": Peer(
        "trackers",
        "ByteTrackTracker(30, fps, 0.6, 2, 0.2, 0.5).update(...); it has no low, so it is given what is above 0.1, and "
        "its IoU of at least 0.2 is a cost of at most 0.8 (the score is not fused in); the detections that it returns",
        _trackers,
        lambda boxes, scores, _: (_above(0.1, boxes, scores),),
        lambda tracker, detections: tracker.update(detections),
        _of_detections,
    ),
    "boxmot": Peer(
        "boxmot",
        "ByteTrack(min_conf=0.1, track_thresh=0.5, match_thresh=0.8, track_buffer=30, frame_rate=fps) with its "
        "det_thresh at 0.6 .update(...); its smoothed boxes",
        _boxmot,
        lambda boxes, scores, _: (
            np.column_stack((boxes, scores, np.zeros(len(scores)))).astype(np.float32),
        ),
        lambda tracker, table: tracker.update(table, None),
        _of_table,
    ),
    "ultralytics": Peer(
        "ultralytics",
        "BYTETracker(track_high_thresh=0.5, track_low_thresh=0.1, new_track_thresh=0.6, track_buffer=fps, "
        "match_thresh=0.8, fuse_score=True).update(...); its smoothed boxes",
        _ultralytics,
        lambda boxes, scores, _: (_Results(boxes, scores),),
        lambda tracker, results: tracker.update(results),
        _of_table,
    ),
}
