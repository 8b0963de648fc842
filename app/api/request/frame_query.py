"""Query parameters that every frame route has, and what they wish for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from app.pipelines.base import wishes_of
from routing.policy import Wishes

VERSION = (
    "Version of the branch, see `versions` in GET /v1/branches; unset: the default one, or that of a rollout."
)


def words_of(texts: Sequence[str]) -> list[str]:
    """The values of a list parameter, which may be repeated or separated by commas."""
    return [word.strip() for text in texts for word in text.split(",")]


class FrameQuery(BaseModel):
    """Parameters that steer routing; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    branch: str | None = Field(
        None,
        description="Overrides the routing rule: a branch's name, a tier (small, medium, large) or a size in "
        "pixels.",
        examples=["medium"],
    )
    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of the model, see GET /v1/branches; unset: the service's default.",
    )
    version: str | None = Field(None, max_length=20, description=VERSION, examples=["2"])
    fallback: bool = Field(
        False,
        description="Take the next smaller branch if the branch can't serve or runs out of memory on this frame. "
        "The answer then has `degraded`, and `branch` gives the reason and the branches that were "
        "skipped.",
    )
    analysis_width: int | None = Field(
        None,
        ge=1,
        le=1 << 16,
        description="Width of your analysis in pixels; it affects only routing.",
    )
    analysis_height: int | None = Field(
        None, ge=1, le=1 << 16, description="Height of your analysis in pixels; it affects only routing."
    )

    def wishes(self) -> Wishes:
        return wishes_of(self.branch, self.variant, fallback=self.fallback, version=self.version)

    def analysis(self) -> tuple[int | None, int | None]:
        return self.analysis_width, self.analysis_height
