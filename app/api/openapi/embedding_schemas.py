"""The answer of `POST /v1/embeddings`, for OpenAPI."""

from __future__ import annotations

from typing import Literal

from app.api.openapi.schemas import Schema


class EmbeddingItem(Schema):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(Schema):
    """Tokens of the texts, with the two that mark start and end; pictures have none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Schema):
    """One embedding per input, in order; `model` names the branches that served."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingsUsage
