"""Frames of one request into their session: found side by side, then tracked when it is the request's turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from app.deadline import Deadline
from app.errors import GatewayError
from app.pipelines.detect import Detections
from app.pipelines.tracking import Tracked
from app.sessions.session import SessionCall
from app.sessions.session_order import Turn
from app.sessions.session_weights import WeightsNow
from app.sessions.tracking_sessions import Sessions

T = TypeVar("T")
Found = list[Detections | GatewayError]
Answered = list[Tracked | GatewayError]


async def track_frames(
    sessions: Sessions,
    call: SessionCall,
    turn: Turn,
    frames: list[bytes],
    find: Callable[[Sequence[bytes]], Awaitable[Found]],
    finish: Callable[[Answered], T],
    work: Callable[[Callable[[], T]], Awaitable[T]],
    deadline: Deadline,
    weights_now: WeightsNow | None = None,
) -> T:
    """Detect in all frames, wait for the request's turn, and track.

    Args:
        sessions: where the session lives.
        call: see `SessionCall`.
        turn: the request's place in the order of its session.
        frames: encoded pictures; the list is empty afterwards, for no encoded frame waits for its turn.
        find: detects with `call.detector(...)`; each frame's boxes or its error.
        finish: makes the result of the tracked frames.
        work: carries out the update and `finish` on a thread that may wait for the store.
        deadline: of the request.
        weights_now: where there are several Tritons: see there.

    Raises:
        InvalidParameter: not as many timestamps as frames.
        DeadlineExceeded: the requests before this one took too long (stage `queue`).
        GatewayError: see `Sessions.update`.
    """
    call.check_count(len(frames))
    if weights_now is not None:
        await asyncio.to_thread(sessions.pin, call, weights_now)
    found = await find(frames)
    frames.clear()
    with _queued(found):
        await turn.come(deadline)
    return await work(lambda: finish(sessions.update(call, found, deadline)))


@contextlib.contextmanager
def _queued(found: Found) -> Iterator[None]:
    """Count what is done inside as queueing of the first frame that could be used."""
    usable = [frame for frame in found if isinstance(frame, Detections)]
    with usable[0].served.timings.stage("queue") if usable else contextlib.nullcontext():
        yield
