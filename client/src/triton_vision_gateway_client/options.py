"""Keyword arguments of the calls: the service's query parameters under their own names, and `timeout`.

What isn't given isn't sent, so the service's defaults hold. `/docs` of a running gateway describes each parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

Fit = Literal["crop", "stretch"]
PictureForm = Literal["png", "jpeg"]


class CallOptions(TypedDict, total=False):
    """`timeout`: seconds for the whole call, attempts and waits included; None: no limit. Else that of the client."""

    timeout: float | None


class RoutingOptions(CallOptions, total=False):
    """Wishes about the branch.

    `branch` is a name, a tier (`small`, `medium`, `large`) or a size in pixels. `fallback` allows the next smaller one.
    `version` is the number of a version of the branch. `analysis_width` and `analysis_height` are the size of your own
    analysis; they change the choice and no pixel.
    """

    branch: str | int
    variant: str
    version: str | int
    fallback: bool
    analysis_width: int
    analysis_height: int


class DetectOptions(RoutingOptions, total=False):
    """`classes` are names or ids. `conf` and `iou` lie between 0 and 1."""

    conf: float
    iou: float
    max_det: int
    classes: Sequence[str | int]
    agnostic: bool


class TrackOptions(TypedDict, total=False):
    """Parameters of the tracker (ByteTrack); `track_buffer` is in seconds."""

    track_high: float
    track_low: float
    track_new: float
    track_match: float
    track_buffer: float
    track_class_aware: bool


class DetectTrackOptions(DetectOptions, TrackOptions, total=False):
    """Detection with a tracker."""


class SamplingOptions(TypedDict, total=False):
    """The frames of a video: `fps` a second, each n-th (`every`), or keyframes; `start` and `end` in seconds."""

    fps: float
    every: int
    keyframes: bool
    start: float
    end: float


class DetectVideoOptions(DetectTrackOptions, SamplingOptions, total=False):
    """Detection in a video."""


class DenseOptions(RoutingOptions, total=False):
    """`size`: of the map, the picture's (`source`) or the branch's."""

    size: Literal["source", "branch"]


class DenseVideoOptions(DenseOptions, SamplingOptions, total=False):
    """Depth or flow of a video."""


class ImageOptions(RoutingOptions, total=False):
    """`fit`: crop the middle of the picture, or stretch all of it. `normalize`: embeddings of length 1."""

    fit: Fit
    normalize: bool


class ImageVideoOptions(ImageOptions, SamplingOptions, total=False):
    """Embeddings of a video's frames."""


class TextOptions(CallOptions, total=False):
    """`tokens`: prompts of more than 75 tokens are cut (`truncate`) or refused (`strict`)."""

    variant: str
    version: str | int
    normalize: bool
    tokens: Literal["truncate", "strict"]


class SimilarityOptions(RoutingOptions, total=False):
    """See `ImageOptions` and `TextOptions`."""

    fit: Fit
    tokens: Literal["truncate", "strict"]


class PlacesOptions(RoutingOptions, total=False):
    """`k`: number of categories."""

    k: int
    fit: Fit


class PlacesVideoOptions(PlacesOptions, SamplingOptions, total=False):
    """Scenes of a video's frames."""


class BranchesOptions(CallOptions, total=False):
    """`width` and `height` of a frame: which branch each family would take, and why."""

    width: int
    height: int
    variant: str
    version: str | int
    fallback: bool
