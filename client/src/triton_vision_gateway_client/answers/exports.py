"""Boxes in the forms of supervision, COCO and pandas."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

    from triton_vision_gateway_client.answers.detections import Detection, Detections

# The dataset numbers its 80 categories from 1 to 90 and leaves ten numbers out: https://cocodataset.org/#format-data.
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


def optional(module: str, extra: str) -> Any:
    """Return a module of an extra.

    Raises:
        ImportError: it isn't installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs {module}: pip install 'triton-vision-gateway-client[{extra}]' ({error})"
        ) from error


def to_supervision(found: Detections) -> sv.Detections:
    """See `Detections.to_supervision`."""
    supervision = optional("supervision", "supervision")
    tracked = any(one.track_id is not None for one in found.detections)
    made: sv.Detections = supervision.Detections(
        xyxy=found.boxes,
        confidence=found.scores,
        class_id=found.class_ids.astype(int),
        tracker_id=found.track_ids.astype(int) if tracked else None,
        data={"class_name": np.array(found.class_names, dtype=str)},
    )
    return made


def to_dataframe(found: Detections) -> pd.DataFrame:
    """See `Detections.to_dataframe`."""
    pandas = optional("pandas", "pandas")
    columns: dict[str, Any] = dict(zip(("x1", "y1", "x2", "y2"), found.boxes.T, strict=True))
    tracks = [one.track_id for one in found.detections]
    columns |= {
        "score": found.scores,
        "class_id": found.class_ids,
        "class_name": pandas.array(found.class_names, dtype="string"),
        "track_id": pandas.array(tracks, dtype="Int64"),
    }
    table: pd.DataFrame = pandas.DataFrame(columns)
    return table


def to_coco(pictures: Iterable[tuple[str, Detections]]) -> dict[str, Any]:
    """Return a COCO dataset of pictures, each given as its file name and its detections.

    Annotations have a `score`, so the document is also a list of results. Ids of images and annotations begin at 1. A
    category has the dataset's own id where all classes are COCO's by number and name, and else `class_id + 1`.
    """
    named = list(pictures)
    objects = [one for _, found in named for one in found.detections]
    official = all(_is_official(one) for one in objects)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, found) in enumerate(named, 1):
        image = found.image
        images.append({"id": image_id, "file_name": name, "width": image.width, "height": image.height})
        for one in found.detections:
            annotation = _annotation(one, official=official)
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    return {
        "info": _information([found for _, found in named]),
        "licenses": [],
        "categories": _categories(objects, official=official),
        "images": images,
        "annotations": annotations,
    }


def _information(answers: list[Detections]) -> dict[str, Any]:
    signatures = sorted({one.model_signature for one in answers})
    return {
        "description": "Detections of triton-vision-gateway",
        "version": "1",
        "model_signature": signatures[0] if len(signatures) == 1 else signatures,
    }


def _is_official(one: Detection) -> bool:
    return one.class_id < len(_NAMES) and _NAMES[one.class_id] == one.class_name


def _category_id(class_id: int, *, official: bool) -> int:
    return _OFFICIAL[class_id] if official else class_id + 1


def _categories(objects: list[Detection], *, official: bool) -> list[dict[str, Any]]:
    if official:
        return [{"id": number, "name": name} for number, name in zip(_OFFICIAL, _NAMES, strict=True)]
    names = {one.class_id: one.class_name for one in objects}
    return [{"id": class_id + 1, "name": names[class_id]} for class_id in sorted(names)]


def _annotation(one: Detection, *, official: bool) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    row: dict[str, Any] = {
        "category_id": _category_id(one.class_id, official=official),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "score": one.score,
    }
    return row if one.track_id is None else {**row, "track_id": one.track_id}
