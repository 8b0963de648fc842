"""The component of boxes and tracks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidParameter
from app.pipelines.base import Deadline, Served
from app.pipelines.components import Arrays, Columns, Component, Row, Scene
from app.pipelines.detect import Detections, DetectParameters, without_pixels
from app.pipelines.frames import Frame, Sample
from app.pipelines.profile import DetectComponent
from app.pipelines.tracking import Tracked, VideoTracker


class DetectFrames(Component):
    """Boxes above `conf`; the tracker also sees the weaker ones that it links."""

    name, artifact, family = "core_object_detections", "detections.npz", "detect"

    def __init__(self, scene: Scene, asked: DetectComponent) -> None:
        super().__init__(scene, scene.wishes(asked.branch, asked.variant))
        state = scene.suite.router.engine.ready()[self.decision.branch.name]
        self.labels = scene.suite.detect.labels(state.weights.labels)
        classes = None if asked.classes is None else class_ids(asked.classes, self.labels)
        parameters = DetectParameters(asked.conf, asked.iou, asked.max_det, classes, asked.agnostic)
        rule = asked.tracking
        self._tracker = VideoTracker(parameters, None if rule is None else dataclasses.asdict(rule))
        self._latest: Tracked | None = None

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Detections:
        del previous
        framed = self.framed(frame, deadline)
        found = self.scene.suite.detect.on_frame(frame.rgb, framed, self._tracker.detector_parameters)
        return without_pixels(found)

    def served(self, result: Detections) -> Served:
        return result.served

    def row(self, sample: Sample, result: Detections) -> Row:
        self._latest = self._tracker(result, sample.time_s)
        found, track_ids = self._latest.found, self._latest.track_ids
        height, width = result.rgb.shape[:2]
        return {
            "count": np.array([len(found.scores)], np.int32),
            "size": np.array([[width, height]], np.float32),
            "boxes": found.boxes,
            "scores": found.scores,
            "class_ids": found.class_ids,
            "track_ids": track_ids,
        }

    def seen(self, result: Detections) -> Tracked | None:
        del result
        return self._latest

    def assemble(self, columns: Columns) -> Arrays:
        return padded(
            columns["count"], columns["size"], columns["boxes"], columns["scores"], columns["class_ids"],
            columns["track_ids"], self.labels,
        )  # fmt: skip

    def meta(self) -> dict[str, Any]:
        return {"tracker": self._tracker.describe(), "padding": "NaN, -1, false where valid_mask is false"}

    def state(self) -> bytes:
        return self._tracker.state()

    def restore(self, state: bytes) -> None:
        self._tracker.restore(state)


def padded(
    count: NDArray[np.int32],
    size: NDArray[np.float32],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    track_ids: NDArray[np.int32],
    labels: Sequence[str],
) -> Arrays:
    """Lists of boxes as arrays: N frames, M boxes in the fullest of them.

    Args:
        count: `(N,)` boxes of each frame; the other lists follow one another in this order.
        size: `(N, 2)` float32, width and height of each frame in pixels.
        boxes: `(sum, 4)` float32 xyxy in pixels.
        scores: `(sum,)` float32.
        class_ids: `(sum,)` int32.
        track_ids: `(sum,)` int32, -1 for none.
        labels: class names by id.

    Returns:
        `boxes`, `boxes_norm` `(N, M, 4)`, `centers_norm` `(N, M, 2)`, `areas_frac`, `scores` `(N, M)` float32 (NaN in
        the padding), `class_ids`, `track_ids` `(N, M)` int32 (-1), `valid_mask` `(N, M)` bool, `det_count` and
        `person_count` `(N,)` int32, `class_names` `id:name`.
    """
    frames, most = len(count), int(count.max(initial=0))
    valid = np.arange(most)[None, :] < count[:, None]

    def spread(values: NDArray[Any], padding: float) -> NDArray[Any]:
        array = np.full((frames, most, *values.shape[1:]), padding, values.dtype)
        array[valid] = values
        return array

    pixels = spread(boxes.astype(np.float32), np.nan)
    norm = pixels / np.tile(size, 2)[:, None, :]
    ids = spread(class_ids.astype(np.int32), -1)
    people = np.array([index for index, name in enumerate(labels) if name == "person"], np.int32)
    return {
        "boxes": pixels,
        "boxes_norm": norm,
        "centers_norm": (norm[..., :2] + norm[..., 2:]) / 2,
        "areas_frac": (norm[..., 2] - norm[..., 0]) * (norm[..., 3] - norm[..., 1]),
        "scores": spread(scores.astype(np.float32), np.nan),
        "class_ids": ids,
        "track_ids": spread(track_ids.astype(np.int32), -1),
        "valid_mask": valid,
        "det_count": count.astype(np.int32),
        "person_count": (np.isin(ids, people) & valid).sum(axis=1).astype(np.int32),
        "class_names": np.array([f"{index}:{name}" for index, name in enumerate(labels)]),
    }


def class_ids(classes: Sequence[str | int], labels: Sequence[str]) -> list[int]:
    """Class ids of names or ids.

    Raises:
        InvalidParameter: one is neither.
    """
    ids = []
    for word in classes:
        text = str(word)
        if text.isdecimal() and len(text) < 6 and int(text) < len(labels):
            ids.append(int(text))
        elif text in labels:
            ids.append(labels.index(text))
        else:
            raise InvalidParameter(f"classes: {word!r} is neither a class name nor an id below {len(labels)}")
    return ids
