"""OpenAPI of `/v1/clip`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.openapi.examples import branch, provenance, served
from app.api.openapi.operations import PHOTO, URL, VIDEO, form_body, picture_json
from app.api.openapi.schemas import Batch, BranchChosen, FrameAnswer, FrameError, Provenance

_EMBEDDING = [0.0123, -0.0456, 0.0789]  # the first three of 512


class EmbeddingAnswer(FrameAnswer):
    """CLIP's projected image feature."""

    embedding: list[float] | str = Field(description="Numbers, or base64 of float32 little-endian.")
    dimension: int
    normalized: bool


class TextAnswer(FrameAnswer):
    """One embedding per prompt, in the order of the prompts."""

    embeddings: list[list[float] | str]
    dimension: int
    normalized: bool
    truncated: list[bool]
    model_calls: int = Field(description="Calls made for this answer; the rest came from the cache.")


class SimilarityAnswer(Provenance):
    """Rows are frames, columns prompts."""

    prompts: list[str]
    cosine: list[list[float]]
    softmax: list[list[float]]
    logit_scale: float
    truncated: list[bool]
    branches: list[BranchChosen]
    warnings: list[str]


class EmbeddingBatch(Batch):
    results: list[EmbeddingAnswer | FrameError]


TEXT: dict[str, Any] = {
    "embeddings": [_EMBEDDING, _EMBEDDING],
    "dimension": 512,
    "normalized": True,
    "truncated": [False, False],
    "model_calls": 2,
    **served("core_clip", "clip_text", "clip_text", None),
}

EMBEDDING: dict[str, Any] = {
    "embedding": _EMBEDDING,
    "dimension": 512,
    "normalized": True,
    **served("core_clip", "clip_image_224", "clip_image", 224),
}

SIMILARITY: dict[str, Any] = {
    "prompts": ["an astronaut", "a cat"],
    "cosine": [[0.31, 0.17]],
    "softmax": [[0.999, 0.001]],
    "logit_scale": 100.0,
    "truncated": [False, False],
    **provenance("core_clip", "clip_image_224", "clip_image"),
    "warnings": [],
    "branches": [branch("clip_image_224", "clip_image", 224), branch("clip_text", "clip_text", None)],
}
TEXT_EXAMPLES = {"clip_text": TEXT}
IMAGE_EXAMPLES = {"clip_image": EMBEDDING, "similarity": SIMILARITY}
TEXT_SAMPLES = (
    f"""curl -H 'Content-Type: application/json' -d '{{"prompts": ["a photo of a cat"]}}' {URL}/clip/text'""",
)
TEXT_BODY = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["prompts"],
            "additionalProperties": False,
            "properties": {"prompts": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
        },
        "example": {"prompts": ["a photo of a cat", "a photo of a dog"]},
    }
}
IMAGE_SAMPLES = (
    f"curl {PHOTO} {URL}/clip/image'",
    f"curl -F file=@docs/astronaut.jpg -F file=@docs/astronaut.jpg {URL}/clip/image'",
    f"curl {VIDEO} {URL}/clip/image?every=25&encoding=base64'",
)
SIMILARITY_SAMPLES = (
    f"curl -F file=@docs/astronaut.jpg -F prompt='an astronaut' -F prompt='a cat' {URL}/clip/similarity'",
)
SIMILARITY_BODY = {
    **form_body("file", text=("prompt",)),
    **picture_json("image", prompts={"type": "array", "items": {"type": "string"}}),
}
