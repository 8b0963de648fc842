"""Tracking sessions: the tracker of one camera, kept from request to request.

A session is one value in the store: what its parameters are, and the tracker's state. Every update reads it, goes on
from there, and writes it back only if nobody else did meanwhile; otherwise it begins again from the newer value.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.base import Deadline
from app.errors import (
    GatewayError,
    InvalidParameter,
    SessionConflict,
    SessionNotFound,
    SessionsUnavailable,
)
from app.media.overlays import draw_boxes, png_bytes
from app.metrics import Metrics
from app.pipelines.base import Served
from app.pipelines.detect import Detections, DetectParameters
from app.state.base import SessionStore
from app.vision.bytetrack import ByteTracker
from app.vision.bytetrack import TrackParameters as TrackParameters  # noqa: PLC0414  # for the routes

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FORMAT = 1
# How far the service's own clock goes on where it stands behind the session's last frame (another host, NTP).
_TICK_S = 0.001
# About 4,000 tracks: what is more is no camera, but a buffer that is too long, and would slow every frame down.
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SessionCall:
    """What a request says of its session.

    `conf`: the answer has boxes with a greater score. `fixed`: parameters by their name in the API, in values that
    JSON knows; they stay as they were in the session's first request. `timestamps`: one a frame, in seconds,
    ascending; None: the service's clock says when.
    """

    session_id: str
    conf: float
    tracking: TrackParameters
    fixed: Mapping[str, Any]
    timestamps: Sequence[float] | None = None

    def detector(self, parameters: DetectParameters) -> DetectParameters:
        """What the detector runs with: the tracker wants boxes down to `low`, whatever the caller sees of them."""
        return replace(parameters, conf=min(self.conf, self.tracking.low))

    def check_count(self, frames: int) -> None:
        """As many timestamps as frames; one frame may come without.

        Raises:
            InvalidParameter: too few or too many.
        """
        given = len(self.timestamps or ())
        if given != frames and not (given == 0 and frames == 1):
            raise InvalidParameter(f"timestamp: {given} for {frames} files; a session needs one a file")


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the caller sees of one frame: boxes above its `conf`, and the track of each (-1: none).

    `frame` counts the session's frames from 1; `time_s` is when this one was.
    """

    found: Detections
    track_ids: NDArray[np.int32]
    frame: int
    time_s: float

    @property
    def served(self) -> Served:
        """What served the frame."""
        return self.found.served

    def picture(self) -> bytes:
        """PNG of the frame with boxes, track ids, class names and scores drawn."""
        found = self.found
        labels = [
            f"{'' if track < 0 else f'#{track} '}{found.class_name(int(class_id))} {score:.2f}"
            for track, class_id, score in zip(self.track_ids, found.class_ids, found.scores, strict=True)
        ]
        return png_bytes(draw_boxes(found.rgb, found.boxes, found.class_ids, labels))


def check_id(session_id: str) -> str:
    """The id, if it is one.

    Raises:
        InvalidParameter: it is no word of 1 to 128 letters, digits, dots, underscores, colons and hyphens.
    """
    if not _ID.fullmatch(session_id):
        raise InvalidParameter(
            f"session: {session_id[:40]!r} is no word of 1 to 128 letters, digits and . _ : -"
        )
    return session_id


def without_pixels(found: Detections) -> Detections:
    """The same boxes without the frame's memory: only its shape is kept, while the frame waits for its turn."""
    return replace(found, rgb=np.broadcast_to(np.uint8(0), found.rgb.shape))


class _Session:
    """One session out of the store, or a new one."""

    def __init__(self, head: dict[str, Any], tracker: ByteTracker) -> None:
        self.head = head
        self.tracker = tracker

    @classmethod
    def begin(cls, call: SessionCall, fixed: Mapping[str, Any], now: float) -> _Session:
        clock = "service" if call.timestamps is None else "timestamp"
        head = {"format": _FORMAT, "clock": clock, "created": now, "updated": now, "parameters": dict(fixed)}
        return cls(head, ByteTracker(call.tracking))

    @classmethod
    def decode(cls, value: bytes) -> _Session:
        """Raises ValueError where another version of the service wrote it."""
        head, _, state = value.partition(b"\n")
        document = json.loads(head)
        if document.get("format") != _FORMAT:
            raise ValueError(f"format {document.get('format')}")
        return cls(document, ByteTracker.restore(state))

    def encode(self) -> bytes:
        return json.dumps(self.head, separators=(",", ":")).encode() + b"\n" + self.tracker.state()

    def conflict(self, call: SessionCall, fixed: Mapping[str, Any]) -> tuple[str, str] | None:
        """Why the call can't go on with this session: a word for the metrics, and a sentence."""
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
        ids = self.tracker.update(found.boxes, found.scores, found.class_ids, time_s)
        seen = found.scores > conf
        shown = replace(
            found, boxes=found.boxes[seen], scores=found.scores[seen], class_ids=found.class_ids[seen]
        )
        return Tracked(shown, ids[seen], self.tracker.frames, time_s)

    def after_last(self, now: float) -> float:
        """`now`, or just after the last frame where that isn't in the past."""
        last = self.tracker.last_time_s
        return now if last is None or now > last else last + _TICK_S


class Sessions:
    """See the module; safe to call from many threads. Without a `store` every call is refused.

    `clock` tells seconds since 1970.
    """

    def __init__(
        self, store: SessionStore | None, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock

    @property
    def where(self) -> str:
        """Where sessions live, in words without any secret."""
        return "none, since there are several workers" if self._store is None else self._store.name

    def store(self) -> SessionStore:
        """Where sessions live.

        Raises:
            SessionsUnavailable: several workers have no common store.
        """
        if self._store is None:
            raise SessionsUnavailable(
                "this service runs several workers, and each would have sessions of its own: "
                "set GATEWAY_SESSION_STORE"
            )
        return self._store

    def update(
        self, call: SessionCall, frames: Sequence[Detections | GatewayError], deadline: Deadline
    ) -> list[Tracked | GatewayError]:
        """Take the frames of one request into its session, all of them or, where an error is raised, none.

        Args:
            call: see `SessionCall`; as many timestamps as frames.
            frames: at least one, found with `call.detector(…)`. Frames that failed stay what they are.
            deadline: ends attempts that lose to other workers.

        Raises:
            SessionConflict: parameters changed, or a frame isn't after the session's last.
            SessionsUnavailable: the store can't be reached.
            DeadlineExceeded: no time is left; the session is as it was.
            GatewayError: the first, where every frame failed.
        """
        call, found = _usable(call, frames)
        started = time.perf_counter()
        with found[0].served.timings.stage("finish"):
            tracked = iter(self._update(call, found, deadline))
        self._metrics.session_update_seconds.observe(time.perf_counter() - started)
        return [next(tracked) if isinstance(frame, Detections) else frame for frame in frames]

    def _update(self, call: SessionCall, found: Sequence[Detections], deadline: Deadline) -> list[Tracked]:
        store = self.store()
        fixed = {**call.fixed, "frame_size": _one_size(found)}
        while True:
            deadline.check("finish")
            snapshot = store.load(call.session_id)
            if snapshot is None:
                session = _Session.begin(call, fixed, self._clock())
            else:
                session = self._decode(call.session_id, snapshot.value)
                self._refuse(call.session_id, session.conflict(call, fixed))
            tracked = self._take(session, call, found)
            value = session.encode()
            if len(value) > _MOST_BYTES:
                raise self._conflict(call.session_id, "size", "it has too many tracks; shorten track_buffer")
            if store.save(call.session_id, value, None if snapshot is None else snapshot.token):
                return tracked
            self._metrics.session_retries.inc()

    def export(self, session_id: str) -> dict[str, Any]:
        """All that is known of a session; `state` is the tracker's, in base64.

        Raises:
            SessionNotFound, SessionsUnavailable, InvalidParameter.
        """
        snapshot = self.store().load(check_id(session_id))
        if snapshot is None:
            raise _not_found(session_id)
        session = self._decode(session_id, snapshot.value)
        return {
            "id": session_id,
            "created_at": _moment(session.head["created"]),
            "updated_at": _moment(session.head["updated"]),
            "clock": session.head["clock"],
            "frames": session.tracker.frames,
            "last_timestamp": session.tracker.last_time_s,
            "parameters": session.head["parameters"],
            "tracks": session.tracker.tracks(),
            "state": base64.b64encode(session.tracker.state()).decode(),
        }

    def delete(self, session_id: str) -> None:
        """End a session.

        Raises:
            SessionNotFound, SessionsUnavailable, InvalidParameter.
        """
        if not self.store().delete(check_id(session_id)):
            raise _not_found(session_id)

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def _take(self, session: _Session, call: SessionCall, frames: Sequence[Detections]) -> list[Tracked]:
        now = session.head["updated"] = self._clock()
        times = call.timestamps or [session.after_last(now)]
        return [session.take(found, call.conf, at) for found, at in zip(frames, times, strict=True)]

    def _decode(self, session_id: str, value: bytes) -> _Session:
        try:
            return _Session.decode(value)
        except ValueError as error:
            raise self._conflict(
                session_id, "format", f"another version of the service wrote it ({error})"
            ) from error

    def _refuse(self, session_id: str, conflict: tuple[str, str] | None) -> None:
        if conflict is not None:
            raise self._conflict(session_id, *conflict)

    def _conflict(self, session_id: str, reason: str, detail: str) -> SessionConflict:
        self._metrics.session_conflicts.labels(reason).inc()
        return SessionConflict(f"session {session_id}: {detail}")


def _usable(
    call: SessionCall, frames: Sequence[Detections | GatewayError]
) -> tuple[SessionCall, list[Detections]]:
    """The frames that could be read, and the call with their timestamps alone."""
    rows = [row for row, frame in enumerate(frames) if isinstance(frame, Detections)]
    found = [frame for frame in frames if isinstance(frame, Detections)]
    if not found:
        raise next(frame for frame in frames if isinstance(frame, GatewayError))
    times = call.timestamps
    return call if times is None else replace(call, timestamps=[times[row] for row in rows]), found


def _one_size(frames: Sequence[Detections]) -> str:
    sizes = dict.fromkeys(f"{found.rgb.shape[1]}x{found.rgb.shape[0]}" for found in frames)
    if len(sizes) > 1:
        raise InvalidParameter(f"frames of one session have one size, not {', '.join(sizes)}")
    return next(iter(sizes))


def _not_found(session_id: str) -> SessionNotFound:
    return SessionNotFound(f"there is no session {session_id}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
