"""The component of depth statistics, previews and maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.npz import Blocks
from app.pipelines.base import Served
from app.pipelines.depth import DepthMap, DepthPipeline
from app.pipelines.frames import Frame, Sample
from app.videos.components.base import Arrays, Columns, Component, Row, Scene
from app.videos.profile import STRICT, added_later, within
from app.vision.summaries import depth_normalized, depth_summary

_KEYS = (
    "depth_mean", "depth_std", "depth_p05", "depth_p95", "depth_range_robust", "depth_complexity_score",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DepthConfig:
    """Configuration of the component: `previews`, most maps kept to look at; `maps`, keep the map of every frame."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = added_later(None)
    previews: int = 8
    maps: bool = False

    def __post_init__(self) -> None:
        within("previews", self.previews, 0, 256)


class DepthComponent(Component):
    """Statistics of depth, maps to look at, and on request every map; all at the branch's size."""

    name, artifact, family = "core_depth_midas", "depth.npz", "depth"
    Config = DepthConfig
    table_arrays = _KEYS  # maps stay in the npz

    def __init__(self, scene: Scene, asked: DepthConfig) -> None:
        super().__init__(scene, asked)
        self._asked = asked

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> DepthMap:
        del previous
        return self.scene.pipelines.of(DepthPipeline).on_frame(
            frame.rgb, self.framed(frame, deadline), "branch"
        )

    def served(self, result: DepthMap) -> Served:
        return result.served

    def row(self, sample: Sample, result: DepthMap) -> Row:
        found = depth_summary(result.values)
        row: dict[str, NDArray[Any]] = {key: np.array([found[key]], np.float32) for key in _KEYS}
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
        arrays: Arrays = {key: columns.blocks(key) for key in _KEYS}
        stride = preview_stride(columns.frames, self._asked.previews or 1)  # 0: no maps were kept
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
