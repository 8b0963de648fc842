"""The components of a profile: what each does with a frame, and which arrays its artefact holds in the end.

A row is a dictionary of arrays whose first axis is 1 (or, for lists that differ in length from frame to frame, as long
as the list); rows are joined along it, kept in chunks on disk, and assembled block by block when the video is over. So
memory holds some frames of a video, however long it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.npz import Blocks, text_blocks
from app.pipelines.base import Framed, Served, Timings, wishes_of
from app.pipelines.clip import LOGIT_SCALE, Embedding, normalized
from app.pipelines.depth import DepthMap
from app.pipelines.families import Suite
from app.pipelines.flow import FlowField
from app.pipelines.frames import Frame, Sample
from app.pipelines.places import Scenes
from app.videos.profile import ClipComponent, DepthComponent, FlowComponent, PlacesComponent, Profile
from app.vision.summaries import depth_normalized, depth_summary, motion_summary
from routing.policy import Decision, FrameFacts, Wishes

Row = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any] | Blocks]
_DEPTH_KEYS = (
    "depth_mean", "depth_std", "depth_p05", "depth_p95", "depth_range_robust", "depth_complexity_score",
)  # fmt: skip
_MOTION_KEYS = (
    "motion_norm_per_sec_mean", "flow_mag_std_per_sec_norm", "flow_mag_p95_per_sec_norm",
    "flow_dx_mean_per_sec_norm", "flow_dy_mean_per_sec_norm", "flow_dir_sin_mean", "flow_dir_cos_mean",
    "flow_dir_dispersion",
)  # fmt: skip


_BLOCK_FRAMES = 1024


class Columns(Protocol):
    """All rows of one component, joined; `frames` samples in all."""

    @property
    def frames(self) -> int: ...

    def chunks(self, *names: str) -> Iterator[tuple[NDArray[Any], ...]]:
        """The columns of these names, some frames at a time."""

    def blocks(self, name: str, dtype: type[Any] | None = None) -> Blocks:
        """A column that has a row per frame, as one of another type where one is given."""


def by_frames(columns: Columns, name: str, most: int = _BLOCK_FRAMES) -> Iterator[NDArray[Any]]:
    """A column that has a row per frame, `most` frames at a time: the same blocks, wherever the chunks end."""
    pending: list[NDArray[Any]] = []
    for (chunk,) in columns.chunks(name):
        pending.append(chunk)
        while sum(map(len, pending)) >= most:
            joined = np.concatenate(pending)
            yield joined[:most]
            pending = [joined[most:]]
    rest = np.concatenate(pending)
    if len(rest):
        yield rest


@dataclass(frozen=True, slots=True)
class Scene:
    """Context that a component is made from: the pipelines, the profile, and the size of the video's frames."""

    suite: Suite
    profile: Profile
    facts: FrameFacts

    def decide(self, family: str, wishes: Wishes) -> Decision:
        """The one decision of the video, see `Router.decide`."""
        return self.suite.router.decide(family, self.facts, wishes)

    def wishes(self, branch: str | None, variant: str | None = None) -> Wishes:
        return wishes_of(branch, variant, fallback=self.profile.fallback)


class Component(ABC):
    """One component at work on one video."""

    name: str
    artifact: str
    family: str

    def __init__(self, scene: Scene, wishes: Wishes) -> None:
        self.scene = scene
        self.first = (
            False  # of the video's components: decoding, done once for all of them, counts as its own
        )
        self.decision = scene.decide(self.family, wishes)
        # One branch serves a whole video, or its arrays would mix two models' numbers: what runs out of memory on the
        # way is waited for, and a job that comes back later decides anew.
        self._wishes = replace(wishes, fallback=False)

    def framed(self, frame: Frame, deadline: Deadline) -> Framed:
        """The surroundings of a frame of this video."""
        height, width = frame.rgb.shape[:2]
        facts = FrameFacts(width, height, self.scene.facts.analysis_width, self.scene.facts.analysis_height)
        timings = Timings(frame.decode_s if self.first else 0.0)
        return Framed(facts, self._wishes, deadline, timings, self.decision)

    def begin(self, deadline: Deadline) -> Sequence[Served]:
        """Work done once per video, before its frames."""
        del deadline
        return ()

    @abstractmethod
    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Any:
        """On a worker thread: the result of one frame."""

    @abstractmethod
    def served(self, result: Any) -> Served | None:
        """Branch and model that served it."""

    @abstractmethod
    def row(self, sample: Sample, result: Any) -> Row:
        """In the order of the frames."""

    def seen(self, result: Any) -> Any:
        """Return the part of a result that observers see, after `row` has used it."""
        return result

    @abstractmethod
    def assemble(self, columns: Columns) -> Arrays:
        """The artefact's arrays, beside the common ones."""

    def meta(self) -> dict[str, Any]:
        """Return the fields of the artefact's `meta_json` beside the common ones."""
        return {}

    def state(self) -> bytes:
        """Return the state that later rows depend on, beside the frames."""
        return b""

    def restore(self, state: bytes) -> None:
        """Go on from a `state`."""
        del state


class ClipFrames(Component):
    """Embeddings of frames and prompts, and their cosine."""

    name, artifact, family = "core_clip", "embeddings.npz", "clip_image"

    def __init__(self, scene: Scene, asked: ClipComponent) -> None:
        super().__init__(scene, scene.wishes(asked.branch, asked.variant))
        self._asked = asked
        self._texts: dict[str, NDArray[np.float32]] = {}

    @property
    def has_prompts(self) -> bool:
        return bool(self._asked.prompts)

    def begin(self, deadline: Deadline) -> Sequence[Served]:
        pipeline, strict = self.scene.suite.clip_text, self._asked.tokens == "strict"
        variant = pipeline.variant_beside(self.decision.branch.variant) if self.has_prompts else None
        distinct = list(
            dict.fromkeys(prompt for prompts in self._asked.prompts.values() for prompt in prompts)
        )
        with ThreadPoolExecutor(4, thread_name_prefix="prompts") as workers:
            embed: Callable[[str], Embedding] = lambda prompt: pipeline(  # noqa: E731  # typed, and used once
                pipeline.tokens(prompt, strict=strict), deadline, variant
            )
            found = dict(zip(distinct, workers.map(embed, distinct), strict=True))
        for name, prompts in self._asked.prompts.items():
            self._texts[name] = normalized([found[prompt].vector for prompt in prompts], normalize=True)
        return [embedding.served for embedding in found.values()]

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Embedding:
        del previous
        return self.scene.suite.clip_image.on_frame(frame.rgb, self.framed(frame, deadline), self._asked.fit)

    def served(self, result: Embedding) -> Served:
        return result.served

    def row(self, sample: Sample, result: Embedding) -> Row:
        del sample
        return {"embedding": normalized([result.vector], normalize=True)}

    def assemble(self, columns: Columns) -> Arrays:
        frames, float32 = columns.frames, np.dtype(np.float32)
        arrays: Arrays = {
            "frame_embeddings": columns.blocks("embedding"),
            "consecutive_cosine_prev": Blocks((frames,), float32, _cosines(columns)),
        }
        for name, texts in self._texts.items():
            arrays[f"{name}_prompts"] = text_blocks(self._asked.prompts[name])
            arrays[f"{name}_text_embeddings"] = texts
            arrays[f"{name}_scores"] = Blocks((frames, len(texts)), float32, _scores(columns, texts))
        return arrays

    def meta(self) -> dict[str, Any]:
        return {"scores": "cosine", "logit_scale": LOGIT_SCALE}


def _cosines(columns: Columns) -> Iterator[NDArray[np.float32]]:
    """Cosine of each frame and the one before; NaN for the first."""
    last: NDArray[Any] | None = None
    for frames in by_frames(columns, "embedding"):
        cosines = np.full(len(frames), np.nan, np.float32)
        cosines[1:] = np.einsum("nd,nd->n", frames[1:], frames[:-1])
        if last is not None:
            cosines[:1] = np.einsum("nd,nd->n", frames[:1], last)
        last = frames[-1:]
        yield cosines


def _scores(columns: Columns, texts: NDArray[np.float32]) -> Iterator[NDArray[Any]]:
    for frames in by_frames(columns, "embedding"):
        yield frames @ texts.T


class DepthFrames(Component):
    """Statistics of depth, maps to look at, and on request every map; all at the branch's size."""

    name, artifact, family = "core_depth_midas", "depth.npz", "depth"

    def __init__(self, scene: Scene, asked: DepthComponent) -> None:
        super().__init__(scene, scene.wishes(asked.branch, asked.variant))
        self._asked = asked

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> DepthMap:
        del previous
        return self.scene.suite.depth.on_frame(frame.rgb, self.framed(frame, deadline), "branch")

    def served(self, result: DepthMap) -> Served:
        return result.served

    def row(self, sample: Sample, result: DepthMap) -> Row:
        found = depth_summary(result.values)
        row: dict[str, NDArray[Any]] = {key: np.array([found[key]], np.float32) for key in _DEPTH_KEYS}
        shown = (
            self._asked.previews
            and sample.ordinal % preview_stride(sample.ordinal + 1, self._asked.previews) == 0
        )
        row["preview"] = depth_normalized(result.values)[None][: 1 if shown else 0]
        ordinal: NDArray[Any] = np.array([sample.ordinal], np.int64)
        row["preview_ordinal"] = ordinal[: 1 if shown else 0]
        if self._asked.maps:
            row["map"] = result.values[None]
        return row

    def assemble(self, columns: Columns) -> Arrays:
        arrays: Arrays = {key: columns.blocks(key) for key in _DEPTH_KEYS}
        stride = preview_stride(
            columns.frames, self._asked.previews or 1
        )  # of none that were kept none is left
        indices, first = [], 0
        for ordinals, frame_index in columns.chunks("preview_ordinal", "frame_index"):
            indices.append(frame_index[ordinals[ordinals % stride == 0] - first])
            first += len(frame_index)
        kept = np.concatenate(indices).astype(np.int32)
        (sample,) = next(columns.chunks("preview"))
        arrays["preview_depth_maps_norm"] = Blocks(
            (len(kept), *sample.shape[1:]),
            sample.dtype,
            (maps[of % stride == 0] for maps, of in columns.chunks("preview", "preview_ordinal")),
        )
        arrays["preview_frame_indices"] = kept
        if self._asked.maps:
            arrays["depth_maps"] = columns.blocks("map")
        return arrays

    def meta(self) -> dict[str, Any]:
        return {"depth": "relative inverse depth, greater is nearer", "computed_at": "branch size"}


def preview_stride(frames: int, most: int) -> int:
    """The power of two so that every stride-th of `frames` frames makes at most `most` previews.

    It grows with the frames, so that what is kept on the way holds all that is kept in the end.
    """
    return 1 << max(0, math.ceil(math.log2(frames / most)))


@dataclass(frozen=True, slots=True)
class Motion:
    """A flow field's summary and the time between its frames; None for the first sample."""

    summary: Mapping[str, float]
    dt_seconds: float
    served: Served


class FlowFrames(Component):
    """Motion from the sample before, per second, relative to the frame's longer side."""

    name, artifact, family = "core_optical_flow", "flow.npz", "flow"

    def __init__(self, scene: Scene, asked: FlowComponent) -> None:
        super().__init__(scene, scene.wishes(asked.branch, asked.variant))

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Motion | None:
        if previous is None or previous.rgb.shape != frame.rgb.shape or frame.time_s <= previous.time_s:
            return None  # without a pair there is no motion
        found: FlowField = self.scene.suite.flow.on_frames(
            previous.rgb, frame.rgb, self.framed(frame, deadline), "branch"
        )
        dt = frame.time_s - previous.time_s
        return Motion(motion_summary(found.values, found.width, found.height, dt), dt, found.served)

    def served(self, result: Motion | None) -> Served | None:
        return None if result is None else result.served

    def row(self, sample: Sample, result: Motion | None) -> Row:
        del sample
        summary = dict.fromkeys(_MOTION_KEYS, math.nan) if result is None else result.summary
        row = {key: np.array([summary[key]], np.float32) for key in _MOTION_KEYS}
        row["dt_seconds"] = np.array([math.nan if result is None else result.dt_seconds], np.float32)
        return row

    def assemble(self, columns: Columns) -> Arrays:
        return {key: columns.blocks(key) for key in ("dt_seconds", *_MOTION_KEYS)}

    def meta(self) -> dict[str, Any]:
        return {"normalised_by": "seconds between the samples, and the longer side in pixels"}


class PlacesFrames(Component):
    """The most probable scene categories."""

    name, artifact, family = "places365", "places.npz", "places"

    def __init__(self, scene: Scene, asked: PlacesComponent) -> None:
        super().__init__(scene, scene.wishes(asked.branch, asked.variant))
        self._asked = asked
        state = scene.suite.router.engine.ready()[self.decision.branch.name]
        self._labels = state.weights.labels or self.decision.branch.labels

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Scenes:
        del previous
        return self.scene.suite.places.on_frame(frame.rgb, self.framed(frame, deadline), self._asked.fit)

    def served(self, result: Scenes) -> Served:
        return result.served

    def row(self, sample: Sample, result: Scenes) -> Row:
        del sample
        best = result.best(self._asked.k)
        return {
            "top_category_ids": np.array([[index for index, _, _ in best]], np.int32),
            "top_probabilities": np.array([[probability for _, _, probability in best]], np.float32),
        }

    def assemble(self, columns: Columns) -> Arrays:
        arrays: Arrays = {key: columns.blocks(key) for key in ("top_category_ids", "top_probabilities")}
        arrays["category_names"] = np.array([f"{index}:{name}" for index, name in enumerate(self._labels)])
        return arrays
