"""OpenAPI of `/v1/depth`."""

from __future__ import annotations

from typing import Any

from app.api.openapi.examples import IMAGE, served
from app.api.openapi.operations import PHOTO, URL, VIDEO
from app.api.openapi.schemas import Batch, FrameAnswer, FrameError, ImageSize, Schema


class Statistics(Schema):
    min: float
    max: float
    mean: float
    std: float
    p05: float
    p95: float


class DepthAnswer(FrameAnswer):
    """Relative inverse depth in numbers; greater is nearer."""

    depth: Statistics
    map: ImageSize
    image: ImageSize


class DepthBatch(Batch):
    results: list[DepthAnswer | FrameError]


DEPTH: dict[str, Any] = {
    "depth": {"min": 102.4, "max": 1874.2, "mean": 803.7, "std": 391.2, "p05": 201.9, "p95": 1502.5},
    "map": {"width": 512, "height": 512},
    **IMAGE,
    **served("core_depth_midas", "midas_512", "depth", 512),
}
EXAMPLES = {"depth": DEPTH}
SAMPLES = (
    f"curl {PHOTO} {URL}/depth'",
    f"curl -H 'Accept: image/png' {PHOTO} -o depth.png {URL}/depth?render=color'",
    f"curl {VIDEO} {URL}/depth?fps=2'",
)
HEADERS = {
    f"X-Depth-{end}": {
        "description": f"Of 16-bit image/png: the depth of level {level}.",
        "schema": {"type": "string"},
    }
    for end, level in (("Min", 0), ("Max", 65535))
}
