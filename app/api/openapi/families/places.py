"""OpenAPI of `/v1/places`."""

from __future__ import annotations

from typing import Any

from app.api.openapi.examples import IMAGE, served
from app.api.openapi.operations import PHOTO, URL, VIDEO
from app.api.openapi.schemas import Batch, FrameAnswer, FrameError, ImageSize, Schema


class Place(Schema):
    category_id: int
    category: str
    probability: float


class PlacesAnswer(FrameAnswer):
    """Most probable first."""

    places: list[Place]
    image: ImageSize


class PlacesBatch(Batch):
    results: list[PlacesAnswer | FrameError]


PLACES: dict[str, Any] = {
    "places": [{"category_id": 203, "category": "laboratory", "probability": 0.62}],
    **IMAGE,
    **served("places365", "places365_resnet50_224", "places", 224),
}
EXAMPLES = {"places": PLACES}
SAMPLES = (f"curl {PHOTO} {URL}/places?k=3'", f"curl {VIDEO} {URL}/places?keyframes=true'")
