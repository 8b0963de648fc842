"""Detection and tracking together: the boxes that the tracker needs, and those that the caller sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.media.overlays import draw_boxes, picture_bytes
from app.pipelines.base import Served
from app.pipelines.detect import Detections, DetectParameters
from app.vision.bytetrack import ByteTracker
from app.vision.tracks import TrackParameters

_TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Tracked:
    """The caller's view of one frame: boxes above its `conf`, and the track of each (-1: none).

    `frame` counts the tracker's frames from 1; `time_s` is when this one was.
    """

    found: Detections
    track_ids: NDArray[np.int32]
    frame: int
    time_s: float

    @property
    def served(self) -> Served:
        """Branch and model that served the frame."""
        return self.found.served

    def labels(self) -> list[str]:
        """Return the label of each box: track, class name, score."""
        return track_labels(self.track_ids, self.found.names(), self.found.scores)

    def body(self, session_id: str | None = None) -> dict[str, Any]:
        """Return the JSON answer without its provenance; with the session that the frame belongs to, if any."""
        body = self.found.body([None if track < 0 else track for track in self.track_ids.tolist()])
        if session_id is not None:
            body["session"] = {"id": session_id, "frame": self.frame, "timestamp": self.time_s}
        return body

    def picture(self, *, jpeg: bool = False) -> bytes:
        """PNG or JPEG of the frame with boxes, track ids, class names and scores drawn."""
        drawn = draw_boxes(self.found.rgb, self.found.boxes, self.found.class_ids, self.labels())
        return picture_bytes(drawn, jpeg=jpeg)


def track_labels(
    track_ids: NDArray[np.int32], names: Sequence[str], scores: NDArray[np.float32]
) -> list[str]:
    """Return the label of each box: track, class name, score."""
    return [
        f"{'' if track < 0 else f'#{track} '}{name} {score:.2f}"
        for track, name, score in zip(track_ids, names, scores, strict=True)
    ]


class VideoTracker:
    """The tracker of one video; without `rule` no box gets an id.

    ByteTrack links boxes down to a low threshold; of those, only what is above the caller's `conf` is answered.
    """

    def __init__(self, parameters: DetectParameters, rule: Mapping[str, Any] | None) -> None:
        self._parameters = parameters
        self._frames = 0
        self._tracker = None if rule is None else ByteTracker(TrackParameters(**rule))

    @property
    def detector_parameters(self) -> DetectParameters:
        """Return the parameters that the detector runs with."""
        if self._tracker is None:
            return self._parameters
        return for_tracking(self._parameters, self._tracker.parameters)

    def __call__(self, found: Detections, time_s: float) -> Tracked:
        """The next frame: what the caller sees of it."""
        self._frames += 1
        ids = np.full(len(found.scores), -1, np.int32)
        if self._tracker is not None:
            last = self._tracker.last_time_s
            if last is not None and time_s <= last:  # some recorders give two frames one time
                time_s = last + _TICK_S
            ids = self._tracker.update(found.boxes, found.scores, found.class_ids, time_s)
        shown, ids = visible(found, ids, self._parameters.conf)
        return Tracked(shown, ids, self._frames, time_s)

    def describe(self) -> dict[str, Any] | None:
        """Name and parameters."""
        if self._tracker is None:
            return None
        return {"name": "bytetrack", **dataclasses.asdict(self._tracker.parameters)}

    def state(self) -> bytes:
        return b"" if self._tracker is None else self._tracker.state()

    def restore(self, state: bytes) -> None:
        if self._tracker is not None:
            self._tracker = ByteTracker.restore(state)


def for_tracking(parameters: DetectParameters, tracker: TrackParameters) -> DetectParameters:
    """The detector's parameters under a tracker: boxes down to the least score that it links."""
    return dataclasses.replace(parameters, conf=min(parameters.conf, tracker.low))


def visible(
    found: Detections, track_ids: NDArray[np.int32], conf: float
) -> tuple[Detections, NDArray[np.int32]]:
    """The boxes above the caller's threshold, with their ids."""
    rows = np.flatnonzero(found.scores > conf)
    shown = dataclasses.replace(
        found, boxes=found.boxes[rows], scores=found.scores[rows], class_ids=found.class_ids[rows]
    )
    return shown, track_ids[rows]
