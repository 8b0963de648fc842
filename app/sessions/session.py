"""One tracking session: its parameters in a request, its stored state, and its answer to a frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import InvalidParameter
from app.pipelines.detect import Detections, DetectParameters
from app.pipelines.tracking import Tracked, for_tracking, visible
from app.vision.bytetrack import ByteTracker
from app.vision.tracks import TrackParameters
from routing.rollout import base_of

_FORMAT = 1
# Step of the time where the service's clock is behind the session's last frame (another host, NTP).
_TICK_S = 0.001


def key_of(session_id: str, owner: str | None) -> str:
    """Name of a session among those of all keys; neither ids nor names of keys have a slash."""
    return session_id if owner is None else f"{owner}/{session_id}"


@dataclass(frozen=True, slots=True)
class SessionCall:
    """The parameters of a request about its session.

    `conf`: the answer has boxes with a greater score. `fixed`: parameters by their name in the API, in values that
    JSON knows; they stay as they were in the session's first request. `timestamps`: one per frame, in seconds,
    ascending; None: the service's clock says when. `owner`: name of the API key whose session it is; None: nobody's.
    """

    session_id: str
    conf: float
    tracking: TrackParameters
    fixed: Mapping[str, Any]
    timestamps: Sequence[float] | None = None
    owner: str | None = None

    @property
    def key(self) -> str:
        """Name of the session in the store and in the order of requests."""
        return key_of(self.session_id, self.owner)

    @property
    def first_timestamp(self) -> float | None:
        """When the first frame was taken, if the caller says it."""
        return self.timestamps[0] if self.timestamps else None

    def detector(self, parameters: DetectParameters) -> DetectParameters:
        """Parameters of the detector: the tracker needs boxes down to `low`, whatever the caller sees of them."""
        return for_tracking(parameters, self.tracking)

    def check_count(self, frames: int) -> None:
        """Check that there are as many timestamps as frames; a single frame may have none.

        Raises:
            InvalidParameter: too few or too many.
        """
        given = len(self.timestamps or ())
        if given != frames and not (given == 0 and frames == 1):
            raise InvalidParameter(f"timestamp: {given} for {frames} files; a session needs one per file")


def head_of(value: bytes) -> dict[str, Any]:
    """Read a stored session without its tracker.

    Raises:
        ValueError: another version of the service wrote it.
    """
    document = json.loads(value.partition(b"\n")[0])
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"it is not of format {_FORMAT}")
    return document


class Session:
    """One session out of the store, or a new one."""

    def __init__(self, head: dict[str, Any], tracker: ByteTracker) -> None:
        self.head = head
        self.tracker = tracker

    @classmethod
    def begin(cls, call: SessionCall, fixed: Mapping[str, Any], now: float) -> Session:
        clock = "service" if call.timestamps is None else "timestamp"
        head = {"format": _FORMAT, "clock": clock, "created": now, "updated": now, "parameters": dict(fixed)}
        return cls(head, ByteTracker(call.tracking))

    @classmethod
    def decode(cls, value: bytes) -> Session:
        """Raises ValueError where another version of the service wrote it."""
        head, _, state = value.partition(b"\n")
        return cls(head_of(head), ByteTracker.restore(state))

    def encode(self) -> bytes:
        return json.dumps(self.head, separators=(",", ":")).encode() + b"\n" + self.tracker.state()

    def conflict(self, call: SessionCall, fixed: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the reason why the call does not fit this session: a word for the metrics, and a sentence."""
        before = self.head["parameters"]
        changed = [name for name, value in fixed.items() if name in before and before[name] != value]
        if changed:
            words = "; ".join(f"{name} changed from {before[name]} to {fixed[name]}" for name in changed)
            return "parameters", words
        if (self.head["clock"] == "service") != (call.timestamps is None):
            words = "came without timestamps, and this one has one"
            if call.timestamps is None:
                words = "came with timestamps, and this one has none"
            return "clock", f"its frames {words}"
        last = self.tracker.last_time_s
        if call.timestamps and last is not None and call.timestamps[0] <= last:
            return "order", f"timestamp {call.timestamps[0]} is not after {last}, that of its last frame"
        return None

    def take(self, found: Detections, conf: float, time_s: float) -> Tracked:
        branch = found.served.decision.branch
        if branch.versions or branch.version_of is not None:
            version = branch.version or found.served.model.version
            self.head.setdefault("versions", {})[base_of(branch)] = version
        ids = self.tracker.update(found.boxes, found.scores, found.class_ids, time_s)
        return Tracked(*visible(found, ids, conf), self.tracker.frames, time_s)

    def after_last(self, now: float) -> float:
        """Return `now`, or a time just after the last frame if that isn't in the past."""
        last = self.tracker.last_time_s
        return now if last is None or now > last else last + _TICK_S
