"""The component of the family `toy`: the brightness of each sampled frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from app.deadline import Deadline
from app.pipelines.base import Served
from app.pipelines.frames import Frame, Sample
from app.videos.components.base import Arrays, Columns, Component, Row, Scene
from app.videos.profile import STRICT, within
from support.toy.pipeline import Brightness, ToyParameters, ToyPipeline


@dataclass(frozen=True, slots=True)
class ToyConfig:
    """Configuration of the component: `scale`, a factor of the brightness."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        within("scale", self.scale, 0, 10)


class ToyComponent(Component):
    """One number per frame."""

    name, artifact, family = "toy_brightness", "brightness.npz", "toy"
    Config = ToyConfig

    def __init__(self, scene: Scene, config: ToyConfig) -> None:
        super().__init__(scene, config)
        self._parameters = ToyParameters(config.scale)

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Brightness:
        del previous
        pipeline = self.scene.pipelines.of(ToyPipeline)
        return pipeline.on_frame(frame.rgb, self.framed(frame, deadline), self._parameters)

    def served(self, result: Brightness) -> Served:
        return result.served

    def row(self, sample: Sample, result: Brightness) -> Row:
        del sample
        return {"brightness": np.array([result.body()["brightness"]], np.float32)}

    def assemble(self, columns: Columns) -> Arrays:
        return {"brightness": columns.blocks("brightness")}
