"""Videos to frame routes: answered line by line (NDJSON) as the frames are done."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from app import context
from app.api.gateway import Gateway
from app.api.request.requests import negotiate, timeout_of
from app.api.request.uploads import Spooled
from app.api.response.answers import JSON, describe
from app.api.response.chunk_queue import Handover
from app.api.response.problems import problem, request_id_of
from app.context import here
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter, Overloaded
from app.media.video.reader import Sampling, VideoLimits
from app.media.video.sampling import MOST_EVERY, MOST_SECONDS
from app.metrics import Metrics
from app.pipelines.base import Served
from app.pipelines.frames import Sample
from app.pipelines.stream import Follow, FrameStream, Run, StreamOptions
from app.settings import Settings
from routing.policy import Wishes

NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Line:
    """The answer to one frame, and the branch that served it."""

    body: dict[str, Any]
    served: Served


@dataclass(frozen=True, slots=True)
class Streamed:
    """A route's work on a video: `run` on worker threads, `follow` in the order of the frames; the result is a
    `Line`.
    """

    family: str
    run: Run
    wishes: Wishes
    analysis: tuple[int | None, int | None] = (None, None)
    follow: Follow | None = None


class SamplingQuery(BaseModel):
    """Query parameters that choose the frames of a video; they have no meaning for pictures."""

    model_config = ConfigDict(extra="forbid")

    fps: float | None = Field(
        None, gt=0, le=1000, description="Videos: so many frames a second of the video's own time, at most."
    )
    every: int | None = Field(
        None,
        ge=1,
        description="Videos: every n-th frame, the first included.",
        json_schema_extra={"maximum": MOST_EVERY},
    )
    keyframes: bool = Field(False, description="Videos: keyframes only.")
    start: float = Field(
        0.0, ge=0, description="Videos: from this second on.", json_schema_extra={"maximum": MOST_SECONDS}
    )
    end: float | None = Field(
        None, gt=0, description="Videos: up to this second.", json_schema_extra={"maximum": MOST_SECONDS}
    )

    def sampling(self) -> Sampling:
        """Return the sampling that these parameters describe.

        Raises:
            InvalidParameter: they contradict each other, or one is out of bounds.
        """
        return Sampling(self.fps, self.every, self.keyframes, self.start, self.end)

    def refuse_for_pictures(self) -> None:
        """Sampling means nothing for a picture.

        Raises:
            InvalidParameter: there is some.
        """
        given = [name for name in SamplingQuery.model_fields if name in self.model_fields_set]
        if given:
            raise InvalidParameter(f"only for videos: {', '.join(given)}; the body is no video")


def video_limits(settings: Settings) -> VideoLimits:
    return VideoLimits(
        settings.max_pixels, settings.video_max_duration_s, settings.video_max_frames, settings.video_stall_s
    )


async def stream(
    request: Request, gateway: Gateway, video: Spooled, query: SamplingQuery, make: Callable[[], Streamed]
) -> Response:
    """Answer a video: a line a frame, the fault if there was one, a summary. The video is closed in the end.

    What can be known before the first frame (no video, no branch, too many videos at once) is a problem with its own
    status; what happens later is a line.
    """
    settings = gateway.settings
    context.stop_spans()
    with contextlib.ExitStack() as undo:
        undo.callback(video.file.close)
        negotiate(request, (NDJSON, JSON))
        sampling, what = query.sampling(), make()
        undo.enter_context(_slot(gateway))
        deadline = Deadline.after(timeout_of(request, settings.video_timeout_s))
        options = StreamOptions(
            video_limits(settings), settings.video_window, settings.leases, settings.request_timeout_s
        )
        thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
        undo.callback(thread.shutdown, wait=False)

        def open_stream() -> FrameStream:
            return FrameStream(
                gateway.pipelines, what.family, video.file, sampling, what.run, what.wishes, deadline, options,
                what.analysis, what.follow,
            )  # fmt: skip

        running = await _opened(asyncio.get_running_loop().run_in_executor(thread, open_stream))
        undo.callback(running.close)
        lines = _lines(running, request_id_of(request), gateway.metrics)
        return _Lines(thread, lines, settings.video_window, undo.pop_all())


async def _opened(opening: asyncio.Future[FrameStream]) -> FrameStream:
    """Close the video after opening if the caller no longer waits for it."""
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: None if done.exception() else done.result().close())
        raise


@contextlib.contextmanager
def _slot(gateway: Gateway) -> Iterator[None]:
    """One of the videos that are decoded at once.

    Raises:
        Overloaded: there are as many as there may be.
    """
    if not gateway.decoders.acquire(blocking=False):
        most = gateway.settings.video_decoders
        raise Overloaded(f"{most} videos are being streamed, which is as many as there may be", retry_after=5)
    gateway.metrics.video_streams.inc()
    try:
        yield
    finally:
        gateway.metrics.video_streams.dec()
        gateway.decoders.release()


class _Lines(StreamingResponse):
    """Lines, made on the stream's own thread; `undo` is carried out whether or not anybody still listens."""

    def __init__(
        self, thread: ThreadPoolExecutor, lines: Iterator[bytes], most: int, undo: contextlib.ExitStack
    ) -> None:
        super().__init__(self._written(), media_type=NDJSON, headers={"Cache-Control": "no-store"})
        self._thread = thread
        self._handover = Handover(asyncio.get_running_loop(), most)
        self._fill = here(self._handover.fill)
        self._lines = lines
        self._undo = undo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._handover.close()
            # On a thread that nobody waits for: the listener is gone, and the frames that run take their time to end.
            threading.Thread(target=self._undo.close, name="stream-end", daemon=True).start()

    async def _written(self) -> AsyncIterator[bytes]:
        filling = asyncio.get_running_loop().run_in_executor(self._thread, self._fill, self._lines)
        filling.add_done_callback(lambda done: done.cancelled() or done.exception())  # told below, if at all
        while lines := await self._handover.take():
            yield lines
        await filling


def _lines(running: FrameStream, request_id: str, metrics: Metrics) -> Iterator[bytes]:
    request = context.current()
    route = "none" if request is None else request.route
    for sample, result in running:
        line = _line(_frame(sample, result, request_id))
        metrics.video_frames.labels(route, "error" if isinstance(result, GatewayError) else "ok").inc()
        metrics.video_lag_seconds.observe(time.perf_counter() - sample.decoded_at)
        yield line
    if running.fault is not None:
        yield _line({"error": problem(running.fault, request_id)})
    yield _line({"summary": running.summary()})


def _frame(sample: Sample, result: Line | GatewayError, request_id: str) -> dict[str, Any]:
    frame = {"index": sample.index, "time_s": sample.time_s}
    if isinstance(result, GatewayError):
        return {"frame": frame, "error": problem(result, request_id)}
    timings = {stage: round(ms, 3) for stage, ms in result.served.timings.ms.items()}
    return {"frame": frame, **result.body, **describe(result.served), "timings_ms": timings}


def _line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
