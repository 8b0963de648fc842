"""OpenAPI of `/v1/flow`."""

from __future__ import annotations

from typing import Any

from app.api.openapi.examples import IMAGE, served
from app.api.openapi.operations import URL, VIDEO, VIDEO_BODIES, form_body, picture_json
from app.api.openapi.schemas import FrameAnswer, ImageSize, Schema


class FlowStatistics(Schema):
    """Displacements in source pixels, from the first frame to the second."""

    dx_mean: float
    dy_mean: float
    magnitude_mean: float
    magnitude_std: float
    magnitude_p95: float
    magnitude_max: float


class FlowAnswer(FrameAnswer):
    """Optical flow in numbers."""

    flow: FlowStatistics
    map: ImageSize
    image: ImageSize


FLOW: dict[str, Any] = {
    "flow": {
        "dx_mean": 3.1, "dy_mean": -0.2, "magnitude_mean": 3.4, "magnitude_std": 1.2, "magnitude_p95": 5.9,
        "magnitude_max": 8.8,
    },
    "map": {"width": 512, "height": 512},
    **IMAGE,
    **served("core_optical_flow", "raft_512", "flow", 512, "small"),
}  # fmt: skip
EXAMPLES = {"flow": FLOW}
_PAIR = "-F frame0=@docs/astronaut.jpg -F frame1=@docs/astronaut.jpg"
SAMPLES = (
    f"curl {_PAIR} {URL}/flow'",
    f"curl {_PAIR} {URL}/flow?variant=large'",
    f"curl {VIDEO} {URL}/flow?fps=5'",
)
BODY = {**form_body("frame0", "frame1"), **picture_json("frame0", "frame1"), **VIDEO_BODIES}
