"""Boxes, and their forms for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client.answers import exports
from triton_vision_gateway_client.answers.provenance import FrameAnswer, ImageSize

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One object. `box` is x1, y1, x2, y2 in pixels of the picture. `track_id` is None without a tracker or track."""

    box: tuple[float, float, float, float]
    score: float
    class_id: int
    class_name: str
    track_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFrame:
    """The frame's place in its session; `frame` 1 means that the session has just begun."""

    id: str
    frame: int
    timestamp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections(FrameAnswer):
    """The objects of one frame, best first."""

    detections: tuple[Detection, ...]
    image: ImageSize
    session: SessionFrame | None = None

    def __len__(self) -> int:
        return len(self.detections)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """`(n, 4)` float32: x1, y1, x2, y2 in pixels."""
        return np.array([one.box for one in self.detections], np.float32).reshape(-1, 4)

    @property
    def scores(self) -> NDArray[np.float32]:
        """`(n,)` float32, 0 to 1."""
        return np.array([one.score for one in self.detections], np.float32)

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """`(n,)` int32."""
        return np.array([one.class_id for one in self.detections], np.int32)

    @property
    def class_names(self) -> list[str]:
        """Name of each object's class."""
        return [one.class_name for one in self.detections]

    @property
    def track_ids(self) -> NDArray[np.int32]:
        """`(n,)` int32, -1 for none."""
        return np.array([-1 if one.track_id is None else one.track_id for one in self.detections], np.int32)

    def to_supervision(self) -> sv.Detections:
        """Return `supervision.Detections`, with the classes' names as `data["class_name"]`.

        Raises:
            ImportError: the extra `supervision` is missing.
        """
        return exports.to_supervision(self)

    def to_coco(self, file_name: str = "image-1.jpg") -> dict[str, Any]:
        """Return a COCO dataset of this picture, whose annotations have scores; see `to_coco` for several pictures."""
        return exports.to_coco([(file_name, self)])

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with a row per box: x1, y1, x2, y2, score, class_id, class_name, track_id.

        Raises:
            ImportError: the extra `pandas` is missing.
        """
        return exports.to_dataframe(self)
