"""The pipelines of all families over one engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, TypeVar, cast

from app.media.image import ImageLimits
from app.metrics import Metrics
from app.pipelines.base import Router
from app.pipelines.embedding_cache import EmbeddingCache


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """Parts that the pipelines of one engine share."""

    router: Router
    metrics: Metrics
    limits: ImageLimits
    text_cache: EmbeddingCache


class Pipeline(Protocol):
    """One family's way from input to result; made once per engine, safe to call from many threads."""

    family: ClassVar[str]

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        """Return a pipeline over these parts."""


P = TypeVar("P", bound=Pipeline)


class PipelineSet:
    """One pipeline per family, found by its class.

    Args:
        parts: shared by all of them.
        kinds: the classes to make.
    """

    def __init__(self, parts: PipelineParts, kinds: Iterable[type[Pipeline]]) -> None:
        self.router = parts.router
        self.metrics = parts.metrics
        self._made = {kind: kind.made_from(parts) for kind in kinds}

    def of(self, kind: type[P]) -> P:
        """Return the pipeline of this class; one dictionary lookup."""
        return cast("P", self._made[kind])
