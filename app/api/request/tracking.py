"""Query parameters of tracking, and what they say of a session."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from app.api.request.frame_query import words_of
from app.errors import InvalidParameter
from app.pipelines.detect import DetectParameters
from app.sessions.session import SessionCall
from app.sessions.tracking_sessions import check_id
from app.vision.tracks import TrackParameters
from routing.policy import Wishes

# Seconds: far beyond every clock; what is greater is a mistake, and float64 keeps a tenth of a millisecond below.
_LATEST = 1e12
_TRACKER = TrackParameters()


class TrackQuery(BaseModel):
    """Sessions and their tracker; an unknown parameter is refused."""

    model_config = ConfigDict(extra="forbid")

    session: str | None = Field(
        None,
        description="Name of a tracking session: up to 128 letters, digits and the characters . _ : - The first "
        "request starts the session, and further requests continue its tracks. Each detection then has a "
        "`track_id`. The other parameters must stay the same in all requests of a session.",
        examples=["cam1"],
    )
    timestamp: list[str] = Field(
        [],
        description="Time of the frame in seconds from any origin; each must be later than the previous one. Send "
        "one per file, repeated or separated by commas. Without timestamps, the session uses the "
        "service's clock.",
        examples=[["12.48"]],
    )
    track_high: float = Field(
        _TRACKER.high,
        ge=0,
        le=1,
        description="Boxes with a higher score are matched first and can start tracks.",
    )
    track_low: float = Field(
        _TRACKER.low,
        ge=0,
        le=1,
        description="Boxes with at least this score can continue tracks, even if the answer doesn't show them.",
    )
    track_new: float = Field(
        _TRACKER.new, ge=0, le=1, description="Lowest score of a box that starts a track."
    )
    track_match: float = Field(
        _TRACKER.match,
        gt=0,
        le=1,
        description="Largest cost of a match in the first round: 1 - overlap * score.",
    )
    track_buffer: float = Field(
        _TRACKER.buffer_s, ge=0, le=60, description="Seconds for which a lost track is kept."
    )
    track_class_aware: bool = Field(
        _TRACKER.class_aware,
        description="Keep a track to one class. Otherwise a box of another class may continue it.",
    )

    def refuse_times_without_session(self) -> None:
        """Refuse timestamps without a session: only frames of a session have one, and a video has its own.

        Raises:
            InvalidParameter: there is one.
        """
        if self.timestamp and self.session is None:
            raise InvalidParameter("only with a session: timestamp")

    def refuse_without_session(self) -> None:
        """Refuse parameters of a session if there is no session.

        Raises:
            InvalidParameter: there are some.
        """
        fields = self.model_fields_set
        if self.session is not None:
            return
        given = [name for name in TrackQuery.model_fields if name in fields]
        if given:
            raise InvalidParameter(f"only with a session or a video: {', '.join(given)}")

    def session_call(
        self, parameters: DetectParameters, wishes: Wishes, variant: str | None, owner: str | None
    ) -> SessionCall:
        """Return what these parameters and those of detection say of the named session.

        `variant` is the one that serves where the wishes name none; `owner` the name of the caller's key.

        Raises:
            InvalidParameter: no session id, no timestamps, or thresholds that contradict each other.
        """
        tracking = self.tracking()
        fixed = asdict(parameters) | {
            "classes": None if parameters.classes is None else sorted(set(parameters.classes)),
            "variant": wishes.variant or variant,
            "branch": wishes.branch or wishes.tier or wishes.size,
            "fallback": wishes.fallback,
            "version": wishes.version,
            **{f"track_{name.removesuffix('_s')}": value for name, value in asdict(tracking).items()},
        }
        return SessionCall(
            check_id(self.session or ""), parameters.conf, tracking, fixed, _timestamps(self.timestamp), owner
        )

    def tracking(self) -> TrackParameters:
        """The tracker's parameters.

        Raises:
            InvalidParameter: thresholds that contradict each other.
        """
        try:
            return TrackParameters(
                self.track_high, self.track_low, self.track_new, self.track_match, self.track_buffer,
                self.track_class_aware,
            )  # fmt: skip
        except ValueError as error:
            raise InvalidParameter(f"tracking: {error}") from error


def _timestamps(texts: list[str]) -> list[float] | None:
    seconds = [_seconds(word) for word in words_of(texts)]
    for before, after in itertools.pairwise(seconds):
        if after <= before:
            raise InvalidParameter(f"timestamp: {after} comes after {before}; they must ascend")
    return seconds or None


def _seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LATEST:
        raise InvalidParameter(f"timestamp: {word[:40]!r} is no number of seconds")
    return value
