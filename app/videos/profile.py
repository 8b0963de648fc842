"""A profile: components, sampling, branches, thresholds and prompts. Frozen, validated when it is made.

Files and forms are read by `app.videos.profile_documents`; unknown keys are refused there by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from app.errors import InvalidParameter
from app.media.video.sampling import Sampling
from app.vision.tracks import TrackParameters

SCHEMA_VERSION = 1
LONGEST_PROMPT = 4096  # characters; the tokenizer reads no more of one
LONGEST_BUFFER_S = 60.0  # as `track_buffer` of the routes
MOST_CLASSES = 1000
# How the reader of files treats these classes: no key that isn't here, no NaN, nothing changed afterwards.
_STRICT = MappingProxyType({"extra": "forbid", "allow_inf_nan": False})
_SET_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _within(name: str, value: float, least: float, greatest: float = math.inf) -> None:
    if not least <= value <= greatest:
        bound = f"at least {least}" if greatest == math.inf else f"from {least} to {greatest}"
        raise ValueError(f"{name} is {bound}")


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """Sampling of a profile; see `app.media.video.reader.Sampling`. Nothing given: every frame."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    fps: float | None = None
    every: int | None = None
    keyframes: bool = False
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        try:
            self.sampling()
        except InvalidParameter as error:
            raise ValueError(error.detail) from error

    def sampling(self) -> Sampling:
        """The same for the decoder, which has the bounds."""
        return Sampling(self.fps, self.every, self.keyframes, self.start_s, self.end_s)


@dataclass(frozen=True, slots=True)
class AnalysisSize:
    """The size that the analysis runs at, in pixels: steers routing, changes no pixel."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 1, 1 << 16)


@dataclass(frozen=True, slots=True)
class ClipComponent:
    """Embeddings of frames, and their cosine with sets of prompts of up to 4,096 characters each."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    branch: str | None = None
    variant: str | None = None
    fit: Literal["crop", "stretch"] | None = None
    tokens: Literal["strict", "truncate"] = "truncate"
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, prompts in self.prompts.items():
            if not _SET_NAME.fullmatch(name):
                raise ValueError(
                    f"{name[:64]!r} is no name of a prompt set: a letter, then letters, digits, _"
                )
            if not prompts:
                raise ValueError(f"the prompt set {name} is empty")
            longest = max(map(len, prompts))
            if longest > LONGEST_PROMPT:
                raise ValueError(f"a prompt has {longest} characters; the limit is {LONGEST_PROMPT}")


@dataclass(frozen=True, slots=True)
class DepthComponent:
    """Depth statistics; `previews`: most maps that are kept to look at; `maps`: keep the map of every frame."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    branch: str | None = None
    variant: str | None = None
    previews: int = 8
    maps: bool = False

    def __post_init__(self) -> None:
        _within("previews", self.previews, 0, 256)


@dataclass(frozen=True, slots=True)
class FlowComponent:
    """Motion between consecutive samples."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    branch: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class TrackingRule:
    """ByteTrack's thresholds, see `app.vision.bytetrack.TrackParameters`; `buffer_s` in seconds of the video."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    high: float = 0.5
    low: float = 0.1
    new: float = 0.6
    match: float = 0.8
    buffer_s: float = 1.0
    class_aware: bool = False

    def __post_init__(self) -> None:
        TrackParameters(**dataclasses.asdict(self))
        _within("buffer_s", self.buffer_s, 0, LONGEST_BUFFER_S)


@dataclass(frozen=True, slots=True)
class DetectComponent:
    """Boxes, and tracks unless `track` is false. `classes` are names or ids."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    branch: str | None = None
    variant: str | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[str | int, ...] | None = None
    agnostic: bool = False
    track: TrackingRule | bool = True

    def __post_init__(self) -> None:
        _within("conf", self.conf, 0, 1)
        _within("iou", self.iou, 0, 1)
        _within("max_det", self.max_det, 1, 3000)
        _within("the number of classes", len(self.classes or ()), 0, MOST_CLASSES)

    @property
    def tracking(self) -> TrackingRule | None:
        """The tracker's rule; None: boxes get no ids."""
        if isinstance(self.track, TrackingRule):
            return self.track
        return TrackingRule() if self.track else None


@dataclass(frozen=True, slots=True)
class PlacesComponent:
    """The `k` most probable scene categories of every frame."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    branch: str | None = None
    variant: str | None = None
    fit: Literal["crop", "stretch"] | None = None
    k: int = 5

    def __post_init__(self) -> None:
        _within("k", self.k, 1, 365)


@dataclass(frozen=True, slots=True)
class Components:
    """The components that run: those that are given."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    core_clip: ClipComponent | None = None
    core_depth_midas: DepthComponent | None = None
    core_optical_flow: FlowComponent | None = None
    core_object_detections: DetectComponent | None = None
    places365: PlacesComponent | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, entry.name) is None for entry in dataclasses.fields(self)):
            raise ValueError("no component is named")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Engine of `gateway analyze`; a service uses its own engine and ignores this."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    kind: Literal["embedded", "triton"] = "embedded"
    triton_url: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole profile. `on_missing`: what happens when the branch that is meant can't serve."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    name: str
    components: Components
    schema_version: Literal[1] = 1
    sampling: SamplingRule = field(default_factory=SamplingRule)
    analysis: AnalysisSize = field(default_factory=AnalysisSize)
    on_missing: Literal["error", "fallback"] = "error"
    engine: EngineChoice | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                "name is a plain word of at most 100 letters, digits, dots, dashes and underscores"
            )

    @property
    def fallback(self) -> bool:
        return self.on_missing == "fallback"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that shape the numbers, prompts included; the engine stands in the model signature."""
        document = dataclasses.asdict(self)
        del document["engine"]
        for name in ("core_clip", "core_depth_midas", "places365"):
            component = document["components"][name]
            if component is not None and component["variant"] is None:
                del component["variant"]  # as it was before these had variants, so that hashes stay equal
        return document

    @property
    def config_hash(self) -> str:
        """`sha256:<hex>` of the canonical JSON (sorted keys, no spaces, ASCII) of `to_dict`, without the name."""
        document = {key: value for key, value in self.to_dict().items() if key != "name"}
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(canonical.encode('ascii')).hexdigest()}"
