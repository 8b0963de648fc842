"""THE table of families: a row per family says which modules serve it.

Imported by `app.main` and `app.commands` alone, and passed down as data. What a family is (sizes, thresholds, tensors)
stands in the catalogue, `routing/branches.toml`. `docs/architecture.md` says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.api.routes import clip, depth, flow, places
from app.api.routes.detect import route as detect
from app.api.routes.family_routes import FamilyRoutes
from app.pipelines.clip import ImagePipeline, TextPipeline
from app.pipelines.depth import DepthPipeline
from app.pipelines.detect import DetectPipeline
from app.pipelines.flow import FlowPipeline
from app.pipelines.pipeline_set import Pipeline
from app.pipelines.places import PlacesPipeline
from app.probes import BOXES, CATEGORIES, Probe
from app.videos.components.base import Component
from app.videos.components.clip import ClipComponent
from app.videos.components.depth import DepthComponent
from app.videos.components.detect import DetectComponent
from app.videos.components.flow import FlowComponent
from app.videos.components.places import PlacesComponent

_OBJECTIVE_S = 1.0


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One family: its pipeline, its routes, the component that runs it over whole videos, and how clients probe it.

    `default_routes(pipeline)` makes the routes of a family that needs no route module of its own. `objectives_s` are
    the latency objectives of its paths (99 in 100 requests), in seconds on a GPU host, where they aren't 1 s.
    """

    pipeline: type[Pipeline]
    routes: FamilyRoutes
    component: type[Component] | None = None
    probe: Probe = field(default_factory=Probe)
    objectives_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        return self.pipeline.family

    @property
    def route(self) -> str:
        """The path that its probe calls: its first."""
        return self.routes.paths[0]


@dataclass(frozen=True, slots=True)
class Families:
    """All rows, in the order in which routes, components and tables list them."""

    rows: tuple[FamilyRow, ...]

    def __iter__(self) -> Iterator[FamilyRow]:
        return iter(self.rows)

    @property
    def by_name(self) -> dict[str, FamilyRow]:
        return {row.name: row for row in self.rows}

    @property
    def pipelines(self) -> tuple[type[Pipeline], ...]:
        return tuple(row.pipeline for row in self.rows)

    @property
    def paths(self) -> tuple[str, ...]:
        """Templates of the routes that run models."""
        return tuple(path for row in self.rows for path in row.routes.paths)

    @property
    def objectives_s(self) -> dict[str, float]:
        """The latency objective of each of these routes, in seconds."""
        return {
            path: row.objectives_s.get(path, _OBJECTIVE_S) for row in self.rows for path in row.routes.paths
        }

    @property
    def examples(self) -> dict[str, dict[str, Any]]:
        """JSON answers by operation id, for OpenAPI."""
        return {name: answer for row in self.rows for name, answer in row.routes.examples.items()}

    @property
    def components(self) -> tuple[type[Component], ...]:
        return tuple(row.component for row in self.rows if row.component is not None)


FAMILIES = Families(
    (
        FamilyRow(TextPipeline, clip.TEXT_ROUTES, probe=Probe(prompts=True)),
        FamilyRow(
            ImagePipeline,
            clip.IMAGE_ROUTES,
            ClipComponent,
            objectives_s={"/v1/clip/image": 0.5, "/v1/clip/similarity": 2},
        ),
        FamilyRow(DepthPipeline, depth.ROUTES, DepthComponent, Probe("size=branch")),
        FamilyRow(
            FlowPipeline,
            flow.ROUTES,
            FlowComponent,
            Probe("size=branch", parts=("frame0", "frame1")),
            {"/v1/flow": 2},
        ),
        FamilyRow(
            DetectPipeline,
            detect.ROUTES,
            DetectComponent,
            Probe(every_number="conf=0.01", numbers=BOXES),
        ),
        FamilyRow(
            PlacesPipeline,
            places.ROUTES,
            PlacesComponent,
            Probe(every_number="k=365", numbers=CATEGORIES),
            {"/v1/places": 0.5},
        ),
    )
)
