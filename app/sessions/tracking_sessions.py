"""Tracking sessions: the tracker of one camera, kept from request to request.

A session is one value in the store: what its parameters are, and the tracker's state. Every update reads it, goes on
from there, and writes it back only if nobody else did meanwhile; otherwise it begins again from the newer value.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from app.deadline import Deadline
from app.errors import (
    GatewayError,
    InvalidParameter,
    SessionConflict,
    SessionNotFound,
    SessionsUnavailable,
)
from app.metrics import Metrics
from app.pipelines.detect import Detections
from app.pipelines.tracking import Tracked
from app.sessions import session_weights
from app.sessions.session import Session, SessionCall, head_of, key_of
from app.state.base import SessionStore, Snapshot
from app.state.moments import moment_text

T = TypeVar("T")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# About 4,000 tracks: what is more is no camera, but a buffer that is too long, and would slow every frame down.
_MOST_BYTES = 1 << 20


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
        """Location of the sessions, in words without any secret."""
        return "none, since there are several workers" if self._store is None else self._store.name

    def store(self) -> SessionStore:
        """The store of the sessions.

        Raises:
            SessionsUnavailable: several workers have no common store.
        """
        if self._store is None:
            raise SessionsUnavailable(
                "this service runs several workers, and they can share sessions only in Redis; "
                "GATEWAY_SESSION_STORE is memory"
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

    def versions(self, call: SessionCall) -> tuple[tuple[str, str], ...]:
        """Return the versions that the session's frames have had, as pairs of a branch and a number.

        Only branches with several versions count. A session that doesn't exist yet has none.

        Raises:
            SessionConflict: another version of the service wrote the session.
            SessionsUnavailable: the store can't be reached.
        """
        snapshot = self.store().load(call.key)
        head = {} if snapshot is None else self._read(call.session_id, snapshot.value, head_of)
        return tuple(sorted(head.get("versions", {}).items()))

    def pin(self, call: SessionCall, now: session_weights.WeightsNow) -> None:
        """Give the current request's runs the weights of its session; for a service over several Tritons.

        Raises:
            SessionConflict: no Triton has these weights any more.
            SessionsUnavailable: the store can't be reached.
        """
        snapshot = self.store().load(call.key)
        try:
            head = None if snapshot is None else head_of(snapshot.value)
        except ValueError:
            return  # `update` says so
        lost = session_weights.pin(f"session {call.session_id}", head, now)
        if lost is not None:
            raise self._conflict(
                call.session_id, "weights", f"no Triton has the weights of {lost} any more that it began with"
            )

    def _update(self, call: SessionCall, found: Sequence[Detections], deadline: Deadline) -> list[Tracked]:
        store = self.store()
        fixed = {**call.fixed, "frame_size": _one_size(found)}
        while True:
            deadline.check("finish")
            snapshot = store.load(call.key)
            if snapshot is None:
                session = Session.begin(call, fixed, self._clock())
            else:
                session = self._decode(call.session_id, snapshot.value)
                self._refuse(call.session_id, session.conflict(call, fixed))
            session_weights.record(session.head, found)
            tracked = self._take(session, call, found)
            value = session.encode()
            if len(value) > _MOST_BYTES:
                raise self._conflict(call.session_id, "size", "it has too many tracks; shorten track_buffer")
            if store.save(call.key, value, None if snapshot is None else snapshot.token):
                return tracked
            self._metrics.session_retries.inc()

    def export(self, session_id: str, owners: Sequence[str | None] = (None,)) -> dict[str, Any]:
        """All that is known of a session; `state` is the tracker's, in base64.

        Args:
            session_id: as its frames name it.
            owners: names of the keys whose session it may be (None: nobody's); see `_found`.

        Raises:
            SessionNotFound, SessionsUnavailable, InvalidParameter.
        """
        owner, snapshot = self._found(session_id, owners)
        session = self._decode(session_id, snapshot.value)
        return {
            "id": session_id,
            "owner": owner,
            "created_at": moment_text(session.head["created"]),
            "updated_at": moment_text(session.head["updated"]),
            "clock": session.head["clock"],
            "frames": session.tracker.frames,
            "last_timestamp": session.tracker.last_time_s,
            "parameters": session.head["parameters"],
            "tracks": session.tracker.tracks(),
            "state": base64.b64encode(session.tracker.state()).decode(),
        }

    def delete(self, session_id: str, owners: Sequence[str | None] = (None,)) -> None:
        """End a session; see `export` for the arguments.

        Raises:
            SessionNotFound, SessionsUnavailable, InvalidParameter.
        """
        owner, _ = self._found(session_id, owners)
        if not self.store().delete(key_of(session_id, owner)):
            raise _not_found(session_id)

    def _found(self, session_id: str, owners: Sequence[str | None]) -> tuple[str | None, Snapshot]:
        """Return the session of this id: the first owner's, or the only one among the other owners."""
        store = self.store()
        check_id(session_id)
        found = {}
        for owner in dict.fromkeys(owners):
            snapshot = store.load(key_of(session_id, owner))
            if snapshot is not None:
                found[owner] = snapshot
                if owner == owners[0]:
                    break
        if not found:
            raise _not_found(session_id)
        if len(found) > 1:
            names = ", ".join(sorted(owner or "nobody" for owner in found))
            raise InvalidParameter(
                f"several API keys have a session {session_id}: {names}; choose one with owner="
            )
        return next(iter(found.items()))

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def _take(self, session: Session, call: SessionCall, frames: Sequence[Detections]) -> list[Tracked]:
        now = session.head["updated"] = self._clock()
        times = call.timestamps or [session.after_last(now)]
        return [session.take(found, call.conf, at) for found, at in zip(frames, times, strict=True)]

    def _decode(self, session_id: str, value: bytes) -> Session:
        return self._read(session_id, value, Session.decode)

    def _read(self, session_id: str, value: bytes, read: Callable[[bytes], T]) -> T:
        try:
            return read(value)
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
    """Return the frames that could be read, and the call with only their timestamps."""
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
