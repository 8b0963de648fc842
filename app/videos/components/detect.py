"""The component of boxes and tracks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.errors import InvalidParameter
from app.hints import did_you_mean
from app.media.npz import Blocks
from app.pipelines.base import Served
from app.pipelines.detect import Detections, DetectParameters, DetectPipeline, without_pixels
from app.pipelines.frames import Frame, Sample
from app.pipelines.tracking import VideoTracker
from app.videos.components.base import Arrays, Columns, Component, Frames, Row, Scene, Texts
from app.videos.profile import STRICT, within
from app.vision.tracks import TrackParameters

_BLOCK_BOXES = 1 << 16
_LONGEST_BUFFER_S = 60.0  # as `track_buffer` of the routes
_MOST_CLASSES = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class TrackingRule(TrackParameters):
    """ByteTrack's thresholds, see `app.vision.bytetrack.TrackParameters`; `buffer_s` in seconds of the video."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    def __post_init__(self) -> None:
        TrackParameters.__post_init__(self)
        within("buffer_s", self.buffer_s, 0, _LONGEST_BUFFER_S)


@dataclasses.dataclass(frozen=True, slots=True)
class DetectConfig:
    """Configuration of the component: no tracks where `track` is false; `classes` are names or ids."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[str | int, ...] | None = None
    agnostic: bool = False
    track: TrackingRule | bool = True

    def __post_init__(self) -> None:
        within("conf", self.conf, 0, 1)
        within("iou", self.iou, 0, 1)
        within("max_det", self.max_det, 1, 3000)
        within("the number of classes", len(self.classes or ()), 0, _MOST_CLASSES)

    @property
    def tracking(self) -> TrackingRule | None:
        """The tracker's rule; None: boxes get no ids."""
        if isinstance(self.track, TrackingRule):
            return self.track
        return TrackingRule() if self.track else None


class DetectComponent(Component):
    """Boxes above `conf`; the tracker also sees the weaker ones that it links."""

    name, artifact, family = "core_object_detections", "detections.npz", "detect"
    Config = DetectConfig
    table_arrays = ("boxes", "scores", "class_ids", "track_ids", "valid_mask")
    table_texts = ("class_names",)

    @classmethod
    def table_rows(cls, frames: Frames, texts: Texts) -> tuple[NDArray[np.intp], Frames]:
        """A row per box."""
        of_frame, place = np.nonzero(frames["valid_mask"])
        box, class_ids, tracks = (
            frames[name][of_frame, place] for name in ("boxes", "class_ids", "track_ids")
        )
        return of_frame, {
            "box_index": place.astype(np.int32),
            **{side: box[:, index] for index, side in enumerate(("x1", "y1", "x2", "y2"))},
            "score": frames["scores"][of_frame, place],
            "class_id": class_ids,
            "class_name": names_of(class_ids, texts["class_names"]),
            "track_id": np.ma.masked_less(tracks, 0),
        }

    def __init__(self, scene: Scene, asked: DetectConfig) -> None:
        super().__init__(scene, asked)
        state = scene.pipelines.router.engine.serving(self.decision.branch.name)
        self.labels = state.weights.labels or self.decision.branch.labels
        classes = None if asked.classes is None else class_ids(asked.classes, self.labels)
        parameters = DetectParameters(asked.conf, asked.iou, asked.max_det, classes, asked.agnostic)
        rule = asked.tracking
        self._tracker = VideoTracker(parameters, None if rule is None else dataclasses.asdict(rule))

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Detections:
        del previous
        framed = self.framed(frame, deadline)
        pipeline = self.scene.pipelines.of(DetectPipeline)
        found = pipeline.on_frame(frame.rgb, framed, self._tracker.detector_parameters)
        return without_pixels(found)

    def served(self, result: Detections) -> Served:
        return result.served

    def row(self, sample: Sample, result: Detections) -> Row:
        tracked = self._tracker(result, sample.time_s)
        found, track_ids = tracked.found, tracked.track_ids
        height, width = result.rgb.shape[:2]
        return {
            "count": np.array([len(found.scores)], np.int32),
            "size": np.array([[width, height]], np.float32),
            "boxes": found.boxes,
            "scores": found.scores,
            "class_ids": found.class_ids,
            "track_ids": track_ids,
        }

    def assemble(self, columns: Columns) -> Arrays:
        return padded(columns, self.labels)

    def meta(self) -> dict[str, Any]:
        return {"tracker": self._tracker.describe(), "padding": "NaN, -1, false where valid_mask is false"}

    def state(self) -> bytes:
        return self._tracker.state()

    def restore(self, state: bytes) -> None:
        self._tracker.restore(state)


def names_of(class_ids: NDArray[np.int32], class_names: Sequence[str]) -> NDArray[np.str_]:
    """Return the name of each class id; `class_names` as in the artefact: `id:name`."""
    names = [name.partition(":")[2] for name in class_names]
    known = len(names)
    return np.array([names[one] if one < known else f"class {one}" for one in class_ids.tolist()], np.str_)


def padded(columns: Columns, labels: Sequence[str]) -> Arrays:
    """Lists of boxes as arrays: N frames, M boxes in the fullest of them; made block by block, as most is padding.

    Args:
        columns: `count` `(N,)` boxes of each frame; `size` `(N, 2)` float32, its width and height in pixels; and in the
            order of the frames `boxes` `(sum, 4)` float32 xyxy in pixels, `scores` `(sum,)` float32, `class_ids` and
            `track_ids` `(sum,)` int32, -1 for none.
        labels: class names by id.

    Returns:
        `boxes`, `boxes_norm` `(N, M, 4)`, `centers_norm` `(N, M, 2)`, `areas_frac`, `scores` `(N, M)` float32 (NaN in
        the padding), `class_ids`, `track_ids` `(N, M)` int32 (-1), `valid_mask` `(N, M)` bool, `det_count` and
        `person_count` `(N,)` int32, `class_names` `id:name`.
    """
    most = max(int(count.max(initial=0)) for (count,) in columns.chunks("count"))
    people = np.array([index for index, name in enumerate(labels) if name == "person"], np.int32)

    def table(kind: type[Any], column: str, make: Callable[[_Boxes], NDArray[Any]], *tail: int) -> Blocks:
        blocks = (make(boxes) for boxes in _frames(columns, most, column))
        return Blocks((columns.frames, most, *tail), np.dtype(kind), blocks)

    people_counts = (boxes.members(people) for boxes in _frames(columns, most, "class_ids"))
    return {
        "boxes": table(np.float32, "boxes", lambda found: found.spread(np.nan), 4),
        "boxes_norm": table(np.float32, "boxes", _Boxes.norm, 4),
        "centers_norm": table(np.float32, "boxes", _Boxes.centers, 2),
        "areas_frac": table(np.float32, "boxes", _Boxes.areas),
        "scores": table(np.float32, "scores", lambda found: found.spread(np.nan)),
        "class_ids": table(np.int32, "class_ids", lambda found: found.spread(-1)),
        "track_ids": table(np.int32, "track_ids", lambda found: found.spread(-1)),
        "valid_mask": table(np.bool_, "scores", _Boxes.valid),
        "det_count": columns.blocks("count", np.int32),
        "person_count": Blocks((columns.frames,), np.dtype(np.int32), people_counts),
        "class_names": np.array([f"{index}:{name}" for index, name in enumerate(labels)]),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Boxes:
    """One column of some frames: `values` of all their boxes, `count` `(n,)` of each frame, its `size` `(n, 2)`."""

    most: int
    count: NDArray[np.int32]
    size: NDArray[np.float32]
    values: NDArray[Any]

    def valid(self) -> NDArray[np.bool_]:
        """`(n, most)`: where there is a box."""
        mask: NDArray[np.bool_] = np.arange(self.most)[None, :] < self.count[:, None]
        return mask

    def spread(self, padding: float) -> NDArray[Any]:
        """`(n, most, …)`: the values where there is a box."""
        array = np.full((len(self.count), self.most, *self.values.shape[1:]), padding, self.values.dtype)
        array[self.valid()] = self.values
        return array

    def norm(self) -> NDArray[Any]:
        """Boxes in parts of the frame."""
        return self.spread(np.nan) / np.tile(self.size, 2)[:, None, :]

    def centers(self) -> NDArray[Any]:
        norm = self.norm()
        return np.asarray((norm[..., :2] + norm[..., 2:]) / 2)

    def areas(self) -> NDArray[Any]:
        norm = self.norm()
        return np.asarray((norm[..., 2] - norm[..., 0]) * (norm[..., 3] - norm[..., 1]))

    def members(self, ids: NDArray[np.int32]) -> NDArray[Any]:
        """`(n,)`: values of each frame that are among the ids."""
        return np.asarray((np.isin(self.spread(-1), ids) & self.valid()).sum(axis=1))


def _frames(columns: Columns, most: int, column: str) -> Iterator[_Boxes]:
    """A column, as many frames at a time as make a block of about a MB."""
    step = max(1, _BLOCK_BOXES // max(1, most))
    for count, size, values in columns.chunks("count", "size", column):
        ends = np.concatenate(([0], np.cumsum(count)))
        for first in range(0, len(count), step):
            last = min(first + step, len(count))
            yield _Boxes(most, count[first:last], size[first:last], values[ends[first] : ends[last]])


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
            ids += [index for index, name in enumerate(labels) if name == text]
        else:
            raise InvalidParameter(
                f"classes: {word!r} is neither a class name nor an id below {len(labels)}"
                + did_you_mean(text, labels)
            )
    return ids
