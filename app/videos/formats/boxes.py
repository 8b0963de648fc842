"""The boxes of a finished video, frame by frame, from its artefact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.videos.components.detect import names_of
from app.videos.formats.base import Finished, frames_per_block

_ARRAYS = ("frame_indices", "times_s", "boxes", "scores", "class_ids", "track_ids", "valid_mask")


@dataclass(frozen=True, slots=True)
class FrameBoxes:
    """Boxes of one frame: `boxes` `(n, 4)` xyxy in pixels, and `(n,)` of the others; a track is -1 for none."""

    index: int
    time_s: float
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]
    names: list[str]


def class_names(finished: Finished, name: str) -> list[str]:
    """Return the class names by id."""
    with finished.opened(name) as archive:
        return [text.partition(":")[2] for text in archive.whole("class_names").tolist()]


def read_boxes(finished: Finished, name: str) -> Iterator[FrameBoxes]:
    """Yield the boxes of each frame of `detections.npz`; some frames are in memory at a time."""
    with finished.opened(name) as archive:
        names = archive.whole("class_names").tolist()
        for block in archive.blocks(_ARRAYS, frames_per_block(archive, _ARRAYS)):
            for row in range(len(block["times_s"])):
                yield _frame(block, row, names)


def _frame(block: dict[str, NDArray[Any]], row: int, class_names: list[str]) -> FrameBoxes:
    valid = block["valid_mask"][row]
    boxes, scores, class_ids, tracks = (block[name][row][valid] for name in _ARRAYS[2:6])
    names = names_of(class_ids, class_names).tolist()
    index, time_s = int(block["frame_indices"][row]), float(block["times_s"][row])
    return FrameBoxes(index, time_s, boxes, scores, class_ids, tracks, names)
