"""Answers to videos, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from triton_vision_gateway_client.answers.provenance import Answer, Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Frame(Outcome[T]):
    """The answer to one frame, or its error. `index` counts all frames of the video; `time_s` is the video's time."""

    index: int = -1
    time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """Facts about the video; None where its container doesn't say."""

    width: int
    height: int
    rotation: int
    codec: str
    container: str
    duration_s: float | None = None
    fps: float | None = None
    frames: int | None = None
    pixel_aspect: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSummary(Answer):
    """The end of a video's answer. `frames` were answered, `errors` of them with an error."""

    frames: int
    errors: int
    decoded: int
    complete: bool
    video: VideoFacts
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stage_timings_ms: Mapping[str, float] = field(default_factory=dict)
