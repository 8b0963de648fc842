"""Depth, flow, embeddings, similarity, scenes, and pictures that are drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client.answers.provenance import Answer, Branch, FrameAnswer, ImageSize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthMap(FrameAnswer):
    """Relative inverse depth: greater is nearer, without unit. `values` is float32 `(height, width)`."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthStatistics:
    """Numbers about one depth map."""

    min: float
    max: float
    mean: float
    std: float
    p05: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthSummary(FrameAnswer):
    """Depth in numbers; `map` is the size of the map that they are of."""

    depth: DepthStatistics
    map: ImageSize
    image: ImageSize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowField(FrameAnswer):
    """Movement of each pixel of the first picture, in its pixels. `values` is float32 `(2, height, width)`: x, y."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStatistics:
    """Displacements in pixels of the source."""

    dx_mean: float
    dy_mean: float
    magnitude_mean: float
    magnitude_std: float
    magnitude_p95: float
    magnitude_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePlace:
    """A frame's number in its video, and its time in seconds."""

    index: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSummary(FrameAnswer):
    """Flow in numbers; `previous` is the frame that it leads from, in a video."""

    flow: FlowStatistics
    map: ImageSize
    image: ImageSize
    previous: FramePlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(FrameAnswer):
    """A picture's embedding: float32 `(dimension,)`."""

    vector: NDArray[np.float32]
    normalized: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEmbeddings(FrameAnswer):
    """Embeddings of prompts: float32 `(prompts, dimension)`.

    `truncated`: which prompts were cut to 75 tokens. `model_calls`: the rest came from the service's cache.
    """

    vectors: NDArray[np.float32]
    normalized: bool
    truncated: tuple[bool, ...]
    model_calls: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Similarity(Answer):
    """Pictures (rows) against prompts (columns), float32: `cosine`, and `softmax` over the prompts."""

    prompts: tuple[str, ...]
    cosine: NDArray[np.float32]
    softmax: NDArray[np.float32]
    logit_scale: float
    truncated: tuple[bool, ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedEmbeddings(Answer):
    """Embeddings of texts and pictures in one space: float32 `(inputs, dimension)`, each of length 1."""

    vectors: NDArray[np.float32]
    model: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A scene category with its probability."""

    category_id: int
    category: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Places(FrameAnswer):
    """Scene categories, the most probable first."""

    places: tuple[Place, ...]
    image: ImageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing(FrameAnswer):
    """A picture to look at, as a file."""

    content: bytes
    media_type: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file and return its path."""
        target = Path(path)
        target.write_bytes(self.content)
        return target
