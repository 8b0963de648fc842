"""The component of scene categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.pipelines.base import Served
from app.pipelines.frames import Frame, Sample
from app.pipelines.places import PlacesPipeline, Scenes
from app.videos.components.base import Arrays, Columns, Component, Frames, Row, Scene, Texts
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
    table_arrays = ("top_category_ids", "top_probabilities")
    table_texts = ("category_names",)

    @classmethod
    def table_rows(cls, frames: Frames, texts: Texts) -> tuple[NDArray[np.intp], Frames]:
        """A row per frame and rank, from 1: the most probable category is first."""
        ids = frames["top_category_ids"]
        count, ranks = ids.shape
        names = np.array([name.partition(":")[2] for name in texts["category_names"]], np.str_)
        return np.repeat(np.arange(count), ranks), {
            "rank": np.tile(np.arange(1, ranks + 1, dtype=np.int32), count),
            "category_id": ids.ravel(),
            "category_name": names[ids.ravel()],
            "probability": frames["top_probabilities"].ravel(),
        }

    def __init__(self, scene: Scene, asked: PlacesConfig) -> None:
        super().__init__(scene, asked)
        self._asked = asked
        state = scene.pipelines.router.engine.serving(self.decision.branch.name)
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
