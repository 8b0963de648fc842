"""OpenAPI of `/v1/detect`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.openapi.examples import IMAGE, served
from app.api.openapi.operations import PHOTO, URL
from app.api.openapi.schemas import Batch, BranchChosen, FrameError, ImageSize, Provenance, Schema


class Detection(Schema):
    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in source pixels.")
    score: float
    class_id: int
    class_name: str
    track_id: int | None = Field(description="In a session: its track, from 1; null: none (yet).")


class SessionFrame(Schema):
    """Position of the frame in its session; `frame` 1 means that the session has just begun."""

    id: str
    frame: int
    timestamp: float = Field(description="Seconds: yours, or of the service's clock since 1970.")


class DetectAnswer(Provenance):
    """Boxes of one frame, best first."""

    detections: list[Detection]
    image: ImageSize
    session: SessionFrame | None = Field(None, description="Only where the request names one.")
    branch: BranchChosen
    warnings: list[str]


class DetectBatch(Batch):
    results: list[DetectAnswer | FrameError]


DETECT: dict[str, Any] = {
    "detections": [
        {"box": [28.2, 12.6, 396.1, 510.9], "score": 0.91, "class_id": 0, "class_name": "person", "track_id": None}
    ],
    **IMAGE,
    **served("core_object_detections", "yolo11n_640", "detect", 640, "n"),
}  # fmt: skip
EXAMPLES = {"detect": DETECT}
_COCO: dict[str, Any] = {
    "info": {"description": "Detections of triton-vision-gateway", "version": "1"},
    "licenses": [],
    "categories": [{"id": 1, "name": "person"}],
    "images": [{"id": 1, "file_name": "astronaut.jpg", "width": 512, "height": 512}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [28.2, 12.6, 367.9, 498.3], "area": 183324.6, "iscrowd": 0,
         "score": 0.91}
    ],
}  # fmt: skip
_CSV = (
    "image_id,file_name,width,height,x1,y1,x2,y2,score,class_id,class_name,track_id,frame,timestamp,branch,error\r\n"
    "1,astronaut.jpg,512,512,28.2,12.6,396.1,510.9,0.91,0,person,,,,yolo11n_640,\r\n"
)
FILES: dict[str, Any] = {
    "application/vnd.coco+json": {
        "schema": {
            "type": "object",
            "description": "A COCO dataset of the request's pictures, whose annotations have scores.",
            "required": ["info", "licenses", "categories", "images", "annotations"],
        },
        "example": _COCO,
    },
    "text/csv": {
        "schema": {"type": "string", "description": "RFC 4180: a header, then a row per box."},
        "example": _CSV,
    },
}
DESCRIPTION = (
    "Boxes of the frame. For several frames, `results` has the boxes of each. As image/png or image/jpeg, the answer "
    "is the frame with its boxes drawn; as application/vnd.coco+json or text/csv, it is a file that other tools read."
)
_PAIR = "-F file=@docs/astronaut.jpg -F file=@docs/astronaut.jpg"
SAMPLES = (
    f"curl {PHOTO} {URL}/detect'",
    f"curl -H 'Accept: image/png' {PHOTO} -o boxes.png {URL}/detect?branch=640&conf=0.4'",
    f"curl {_PAIR} {URL}/detect'",
    f"curl -H 'Accept: application/vnd.coco+json' {_PAIR} -o boxes.json {URL}/detect'",
    f"curl -H 'Accept: text/csv' {_PAIR} {URL}/detect'",
    f"curl {PHOTO} {URL}/detect?session=cam1'",
    f"curl {_PAIR} {URL}/detect?session=cam2&timestamp=12.44,12.48'",
)
