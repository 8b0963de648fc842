"""The pipelines of all families over one engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media import fit
from app.media.image import ImageLimits
from app.media.pictures.jpeg import SCALED_DECODE
from app.media.resizers.base import FILTERS, Resizer
from app.media.resizers.choice import resizer_named
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served
from app.pipelines.embedding_cache import EmbeddingCache
from routing.catalogue import Branch
from routing.policy import Wishes
from routing.provenance import ResizedBy

# Of detection's letterbox, see `app.media.fit`.
LETTERBOX = ResizedBy(fit.LIBRARY, fit.VERSION, fit.FILTER)


@dataclass(frozen=True, slots=True)
class Resizing:
    """The way of frames to a branch's size.

    `scaled_jpeg`: decode a JPEG whose sides are at least twice as long as the branch needs at a fraction of its size.
    """

    resizer: Resizer = field(default_factory=lambda: resizer_named("auto"))
    scaled_jpeg: bool = False

    def of(self, branch: Branch, *, picture: bool = False) -> ResizedBy | None:
        """Return what resizes the frames of a branch, as it stands in provenance; None: it takes none.

        Args:
            branch: to be run.
            picture: the frame is an encoded picture, so that `scaled_jpeg` counts.
        """
        if branch.prepare is None:
            return None
        if branch.prepare.fit == "letterbox":
            return LETTERBOX
        scaled = SCALED_DECODE if picture and self.scaled_jpeg else None
        filter_ = FILTERS[branch.prepare.interpolation]
        return ResizedBy(self.resizer.library, self.resizer.version, filter_, scaled)


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """Parts that the pipelines of one engine share."""

    router: Router
    metrics: Metrics
    limits: ImageLimits
    text_cache: EmbeddingCache
    resizing: Resizing = field(default_factory=Resizing)


class Pipeline(Protocol):
    """One family's way from input to result; made once per engine, safe to call from many threads."""

    family: ClassVar[str]

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        """Return a pipeline over these parts."""


class FrameResult(Protocol):
    """Result of one frame."""

    @property
    def served(self) -> Served: ...

    @property
    def values(self) -> NDArray[Any]:
        """The model's output without its batch axis: what `application/x-npy` answers."""

    def body(self) -> dict[str, Any]:
        """Return the JSON answer without its provenance, as `FramePipeline.Answer` describes it."""


class FramePipeline(Pipeline, Protocol):
    """A family that makes one result of one frame, and can be served without a route module of its own.

    `title` stands in OpenAPI. `Parameters` is a frozen dataclass whose fields callers may set in the query; a field's
    metadata (`description`, `ge`, `le` …) are those of pydantic's `Field`. `Answer` is a TypedDict of the JSON answer,
    and `EXAMPLE` is one.
    """

    title: ClassVar[str]
    Parameters: ClassVar[type[Any]]
    Answer: ClassVar[type[Any]]
    EXAMPLE: ClassVar[Mapping[str, Any]]

    def __call__(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        parameters: Any,
        analysis: tuple[int | None, int | None],
    ) -> FrameResult:
        """Run one encoded picture."""

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, parameters: Any) -> FrameResult:
        """Run one decoded frame `[height, width, 3]` uint8 RGB."""


P = TypeVar("P", bound=Pipeline)


class PipelineOf(Protocol):
    """Returns the pipeline of a class."""

    def __call__(self, kind: type[P], /) -> P: ...


class PipelineSet:
    """One pipeline per family, found by its class.

    Args:
        parts: shared by all of them.
        kinds: the classes to make.
    """

    def __init__(self, parts: PipelineParts, kinds: Iterable[type[Pipeline]]) -> None:
        self.router = parts.router
        self.metrics = parts.metrics
        self.resizing = parts.resizing
        made = {kind: kind.made_from(parts) for kind in kinds}
        self.of: PipelineOf = cast(
            "PipelineOf", made.__getitem__
        )  # the dictionary's own lookup: no call of Python
