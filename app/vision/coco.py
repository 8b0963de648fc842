"""Detections in the format of the COCO dataset, with scores: https://cocodataset.org/#format-data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The dataset numbers its 80 categories from 1 to 90 and leaves ten numbers out.
_LEFT_OUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_OFFICIAL = tuple(number for number in range(1, 91) if number not in _LEFT_OUT)
_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_IDS = dict(zip(_NAMES, _OFFICIAL, strict=True))


@dataclass(frozen=True, slots=True)
class Categories:
    """The categories of a model's classes.

    A model with the 80 classes of COCO, in its order, has the ids of the dataset, so that `instances_val2017.json` can
    judge it. Any other model has `class_id + 1`: many tools take 0 for the background.
    """

    labels: Sequence[str]

    @property
    def official(self) -> bool:
        """True if the classes are those of COCO."""
        return tuple(self.labels) == _NAMES

    def ids(self, class_ids: NDArray[np.int32]) -> list[int]:
        """Return the category id of each class id `(n,)`; a class without a label follows those that have one."""
        if not self.official:
            return [class_id + 1 for class_id in class_ids.tolist()]
        last = len(_OFFICIAL)
        return [
            _OFFICIAL[class_id] if class_id < last else class_id - last + 91
            for class_id in class_ids.tolist()
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return the `categories` of a document."""
        ids = self.ids(np.arange(len(self.labels), dtype=np.int32))
        return [{"id": number, "name": name} for number, name in zip(ids, self.labels, strict=True)]


def boxes_of_image(
    categories: Categories,
    image_id: int,
    first: int,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    track_ids: NDArray[np.int32] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of one image.

    Args:
        categories: of the model.
        image_id: of the image.
        first: id of the first annotation; ids begin at 1, because COCOeval takes 0 for "none".
        boxes: `(n, 4)` xyxy in pixels; they become x, y, width, height.
        scores: `(n,)`, 0 to 1.
        class_ids: `(n,)`.
        track_ids: `(n,)`, -1 for none; None: there is no tracker.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    rows = np.concatenate([boxes[:, :2], sides], axis=1)
    numbers = zip(rows, sides[:, 0] * sides[:, 1], scores, categories.ids(class_ids), strict=True)
    for index, (row, area, score, category) in enumerate(numbers):
        annotation: dict[str, Any] = {
            "id": first + index, "image_id": image_id, "category_id": category, "bbox": row, "area": area,
            "iscrowd": 0, "score": score,
        }  # fmt: skip
        if track_ids is not None:
            track = int(track_ids[index])
            annotation["track_id"] = None if track < 0 else track
        yield annotation


def information(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `info` of a document: the format's version, and what made the boxes."""
    return {"description": "Detections of triton-vision-gateway", "version": "1", **made_by}
