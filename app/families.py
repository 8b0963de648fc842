"""THE table of families: a row per family says which modules serve it.

Imported by `app.main` and `app.commands` alone, and passed down as data. What a family is (sizes, thresholds, tensors)
stands in the catalogue, `routing/branches.toml`. `docs/architecture.md` says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.pipelines.clip import ImagePipeline, TextPipeline
from app.pipelines.depth import DepthPipeline
from app.pipelines.detect import DetectPipeline
from app.pipelines.flow import FlowPipeline
from app.pipelines.pipeline_set import Pipeline
from app.pipelines.places import PlacesPipeline
from app.videos.components.base import Component
from app.videos.components.clip import ClipComponent
from app.videos.components.depth import DepthComponent
from app.videos.components.detect import DetectComponent
from app.videos.components.flow import FlowComponent
from app.videos.components.places import PlacesComponent


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One family: its pipeline, and the component that runs it over whole videos, if there is one."""

    pipeline: type[Pipeline]
    component: type[Component] | None = None

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        return self.pipeline.family


@dataclass(frozen=True, slots=True)
class Families:
    """All rows, in the order in which routes, components and tables list them."""

    rows: tuple[FamilyRow, ...]

    def __iter__(self) -> Iterator[FamilyRow]:
        return iter(self.rows)

    @property
    def pipelines(self) -> tuple[type[Pipeline], ...]:
        return tuple(row.pipeline for row in self.rows)

    @property
    def components(self) -> tuple[type[Component], ...]:
        return tuple(row.component for row in self.rows if row.component is not None)


FAMILIES = Families(
    (
        FamilyRow(TextPipeline),
        FamilyRow(ImagePipeline, ClipComponent),
        FamilyRow(DepthPipeline, DepthComponent),
        FamilyRow(FlowPipeline, FlowComponent),
        FamilyRow(DetectPipeline, DetectComponent),
        FamilyRow(PlacesPipeline, PlacesComponent),
    )
)
