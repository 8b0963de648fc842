"""Query parameters of videos: the frames to look at, and the provenance of their lines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.errors import InvalidParameter
from app.media.video.reader import Sampling
from app.media.video.sampling import MOST_EVERY, MOST_SECONDS


class SamplingQuery(BaseModel):
    """Query parameters that only videos have; they have no meaning for pictures."""

    model_config = ConfigDict(extra="forbid")

    fps: float | None = Field(
        None, gt=0, le=1000, description="Videos: most frames per second of the video's own time."
    )
    every: int | None = Field(
        None,
        ge=1,
        description="Videos: take every n-th frame, starting with the first.",
        json_schema_extra={"maximum": MOST_EVERY},
    )
    keyframes: bool = Field(False, description="Videos: take only keyframes.")
    start: float = Field(
        0.0, ge=0, description="Videos: start at this second.", json_schema_extra={"maximum": MOST_SECONDS}
    )
    end: float | None = Field(
        None, gt=0, description="Videos: stop at this second.", json_schema_extra={"maximum": MOST_SECONDS}
    )
    provenance: Literal["every", "change"] = Field(
        "every",
        description="Videos: lines that have the provenance (`branch`, `resolved_model_mapping`, `models_used`, "
        "`model_signature`, `degraded`, `warnings`). `every`: all lines. `change`: the first line, and each line whose "
        "provenance differs from that of the line before.",
    )

    def sampling(self) -> Sampling:
        """Return the sampling that these parameters describe.

        Raises:
            InvalidParameter: they contradict each other, or one is out of bounds.
        """
        return Sampling(self.fps, self.every, self.keyframes, self.start, self.end)

    def refuse_for_pictures(self, reason: str = "the body is no video") -> None:
        """These parameters mean nothing for a picture; `reason` is how it is known to be one.

        Raises:
            InvalidParameter: there is some.
        """
        fields = self.model_fields_set
        given = [name for name in SamplingQuery.model_fields if name in fields]
        if given:
            raise InvalidParameter(f"only for videos: {', '.join(given)}; {reason}")
