"""Query parameters of `POST /v1/detect`."""

from __future__ import annotations

from pydantic import Field

from app.api.request.frame_query import FrameQuery, words_of
from app.api.request.sampling_query import SamplingQuery
from app.api.request.tracking import TrackQuery
from app.api.response.answers import JSON
from app.errors import InvalidParameter


class DetectQuery(FrameQuery, TrackQuery, SamplingQuery):
    """Query parameters of `POST /v1/detect`; an unknown one is refused."""

    conf: float = Field(0.25, ge=0, le=1, description="Keep only boxes with a higher score.")
    iou: float = Field(
        0.7, ge=0, le=1, description="Boxes of one class that overlap more than this count as one object."
    )
    max_det: int = Field(300, ge=1, le=3000, description="Most boxes per frame.")
    classes: list[str] = Field(
        [],
        description="Classes to keep: names or ids, repeated or separated by commas (default: all).",
        examples=[["person", "bus"], ["0,5"]],
    )
    agnostic: bool = Field(False, description="Boxes suppress each other regardless of their class.")
    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of the model: n s m l x or one of your own. With several, separated by commas, "
        "`results` has the boxes and provenance of each variant.",
        examples=["n"],
    )

    def variants(self) -> list[str | None]:
        """The variants that are asked for, each once; None: the service's default."""
        return [None] if self.variant is None else list(dict.fromkeys(words_of([self.variant])))

    def refuse_several(self, form: str, *, video: bool = False) -> None:
        """Refuse several variants of anything but pictures, and in other forms than JSON.

        Raises:
            InvalidParameter: something else is asked for.
        """
        if self.session is not None or video:
            what = "a video" if video else "a session"
            raise InvalidParameter(
                f"variant: {what} uses one variant, because its tracks come from one model; "
                "send one request per variant"
            )
        if form != JSON:
            raise InvalidParameter(
                f"variant: several variants are answered only as {JSON}; for other forms, send one request per variant"
            )
