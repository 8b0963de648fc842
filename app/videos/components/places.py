"""The component of scene categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from app.deadline import Deadline
from app.pipelines.base import Served
from app.pipelines.frames import Frame, Sample
from app.pipelines.places import PlacesPipeline, Scenes
from app.videos.components.base import Arrays, Columns, Component, Row, Scene
from app.videos.profile import STRICT, added_later, within


@dataclass(frozen=True, slots=True)
class PlacesConfig:
    """Configuration of the component: `k`, how many categories of a frame are kept."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT
    branch: str | None = None
    variant: str | None = added_later(None)
    fit: Literal["crop", "stretch"] | None = None
    k: int = 5

    def __post_init__(self) -> None:
        within("k", self.k, 1, 365)


class PlacesComponent(Component):
    """The most probable scene categories."""

    name, artifact, family = "places365", "places.npz", "places"
    Config = PlacesConfig

    def __init__(self, scene: Scene, asked: PlacesConfig) -> None:
        super().__init__(scene, asked)
        self._asked = asked
        state = scene.pipelines.router.engine.ready()[self.decision.branch.name]
        self._labels = state.weights.labels or self.decision.branch.labels

    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Scenes:
        del previous
        pipeline = self.scene.pipelines.of(PlacesPipeline)
        return pipeline.on_frame(frame.rgb, self.framed(frame, deadline), self._asked.fit)

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
