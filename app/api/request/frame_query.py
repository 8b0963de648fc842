"""Query parameters that every frame route has, and what they wish for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from app.pipelines.base import wishes_of
from routing.policy import Wishes


def words_of(texts: Sequence[str]) -> list[str]:
    """The values of a list parameter, which may be repeated or separated by commas."""
    return [word.strip() for text in texts for word in text.split(",")]


class FrameQuery(BaseModel):
    """Parameters that steer routing; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    branch: str | None = Field(
        None,
        description="Override the rule: a branch's name, a tier (small, medium, large) or a size in pixels.",
        examples=["medium"],
    )
    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of the model, see GET /v1/branches; none: the service's default.",
    )
    fallback: bool = Field(
        False,
        description="If that branch can't serve, or runs out of memory on this very frame, take the next smaller one "
        "and say so (`degraded`, and under `branch` why and what was passed over).",
    )
    analysis_width: int | None = Field(
        None,
        ge=1,
        le=1 << 16,
        description="Width that your analysis runs at, in pixels: steers routing only.",
    )
    analysis_height: int | None = Field(None, ge=1, le=1 << 16, description="Height, likewise.")

    def wishes(self) -> Wishes:
        return wishes_of(self.branch, self.variant, fallback=self.fallback)

    def analysis(self) -> tuple[int | None, int | None]:
        return self.analysis_width, self.analysis_height
