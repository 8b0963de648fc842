"""The component of motion between consecutive samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from app.deadline import Deadline
from app.pipelines.base import Served
from app.pipelines.flow import FlowField, FlowPipeline
from app.pipelines.frames import Frame, Sample
from app.videos.components.base import Arrays, Columns, Component, Row
from app.videos.profile import STRICT
from app.vision.summaries import motion_summary

_KEYS = (
    "motion_norm_per_sec_mean", "flow_mag_std_per_sec_norm", "flow_mag_p95_per_sec_norm",
    "flow_dx_mean_per_sec_norm", "flow_dy_mean_per_sec_norm", "flow_dir_sin_mean", "flow_dir_cos_mean",
    "flow_dir_dispersion",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Configuration of the component."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """A flow field's summary and the time between its frames; None for the first sample."""

    summary: Mapping[str, float]
    dt_seconds: float
    served: Served


class FlowComponent(Component):
    """Motion from the sample before, per second, relative to the frame's longer side."""

    name, artifact, family = "core_optical_flow", "flow.npz", "flow"
    Config = FlowConfig
    table_arrays = ("dt_seconds", *_KEYS)

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Motion | None:
        if previous is None or previous.rgb.shape != frame.rgb.shape or frame.time_s <= previous.time_s:
            return None  # without a pair there is no motion
        found: FlowField = self.scene.pipelines.of(FlowPipeline).on_frames(
            previous.rgb,
            frame.rgb,
            self.framed(frame, deadline),
            "branch",
            (previous.squares, frame.squares),
        )
        dt = frame.time_s - previous.time_s
        return Motion(motion_summary(found.values, found.width, found.height, dt), dt, found.served)

    def served(self, result: Motion | None) -> Served | None:
        return None if result is None else result.served

    def row(self, sample: Sample, result: Motion | None) -> Row:
        del sample
        summary = dict.fromkeys(_KEYS, math.nan) if result is None else result.summary
        row = {key: np.array([summary[key]], np.float32) for key in _KEYS}
        row["dt_seconds"] = np.array([math.nan if result is None else result.dt_seconds], np.float32)
        return row

    def assemble(self, columns: Columns) -> Arrays:
        return {key: columns.blocks(key) for key in ("dt_seconds", *_KEYS)}

    def meta(self) -> dict[str, Any]:
        return {"normalised_by": "seconds between the samples, and the longer side in pixels"}
