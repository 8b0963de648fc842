"""Videos to frame routes: answered line by line (NDJSON) as the frames are done."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app import context
from app.api.gateway import Gateway
from app.api.request.requests import NDJSON, timeout_of
from app.api.request.sampling_query import SamplingQuery
from app.api.request.uploads import Spooled
from app.api.response.answers import describe
from app.api.response.chunk_queue import ChunkQueue
from app.api.response.problems import problem, request_id_of
from app.context import here
from app.deadline import Deadline
from app.errors import GatewayError, Overloaded
from app.media.video.reader import VideoLimits
from app.metrics import Metrics
from app.pipelines.base import Served
from app.pipelines.frames import Sample
from app.pipelines.stream import Follow, FrameStream, Run, StreamOptions
from app.settings import Settings
from routing.policy import Wishes


@dataclass(frozen=True, slots=True)
class Record:
    """The answer to one frame, and the branch that served it."""

    body: dict[str, Any]
    served: Served


@dataclass(frozen=True, slots=True)
class Streamed:
    """A route's work on a video: `run` on worker threads, `follow` in the order of the frames; the result is a
    `Record`.
    """

    family: str
    run: Run
    wishes: Wishes
    analysis: tuple[int | None, int | None] = (None, None)
    follow: Follow | None = None


def video_limits(settings: Settings) -> VideoLimits:
    return VideoLimits(
        settings.max_pixels, settings.video_max_duration_s, settings.video_max_frames, settings.video_stall_s
    )


async def stream(
    request: Request, gateway: Gateway, video: Spooled, query: SamplingQuery, make: Callable[[], Streamed]
) -> Response:
    """Answer a video: one line per frame, the fault if there was one, a summary. Close the video at the end.

    What can be known before the first frame (no video, no branch, too many videos at once) is a problem with its own
    status; what happens later is a line.
    """
    settings = gateway.settings
    context.stop_spans()
    with contextlib.ExitStack() as undo:
        undo.callback(video.file.close)
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

        running = await _opened(asyncio.get_running_loop().run_in_executor(thread, here(open_stream)))
        undo.callback(running.close)
        provenance = _Provenance(every=query.provenance == "every")
        lines = _records(running, request_id_of(request), gateway.metrics, provenance)
        return _NdjsonResponse(thread, lines, settings.video_window, undo.pop_all())


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
        raise Overloaded(f"{most} videos are being streamed, which is the limit", retry_after=5)
    gateway.metrics.video_streams.inc()
    try:
        yield
    finally:
        gateway.metrics.video_streams.dec()
        gateway.decoders.release()


class _NdjsonResponse(StreamingResponse):
    """NDJSON response whose lines are made on the stream's own thread; `undo` always runs at the end."""

    def __init__(
        self, thread: ThreadPoolExecutor, lines: Iterator[bytes], most: int, undo: contextlib.ExitStack
    ) -> None:
        super().__init__(self._written(), media_type=NDJSON, headers={"Cache-Control": "no-store"})
        self._thread = thread
        self._chunks = ChunkQueue(asyncio.get_running_loop(), most)
        self._fill = here(self._chunks.fill)
        self._records = lines
        self._undo = undo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._chunks.close()
            # Close on a separate thread, since the caller is gone and running frames take time to end.
            threading.Thread(target=self._undo.close, name="stream-end", daemon=True).start()

    async def _written(self) -> AsyncIterator[bytes]:
        filling = asyncio.get_running_loop().run_in_executor(self._thread, self._fill, self._records)
        filling.add_done_callback(lambda done: done.cancelled() or done.exception())  # told below, if at all
        while lines := await self._chunks.take():
            yield lines
        await filling


class _Provenance:
    """The description of what made a line: on every line, or on the first one and on each one where it changes."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._latest: Mapping[str, Any] = {}

    def of(self, served: Served) -> Mapping[str, Any]:
        """Return the members that the next line has of it."""
        described = describe(served)
        if self._every:
            return described
        if described is self._latest or described == self._latest:
            return {}
        self._latest = described
        return described


def _records(
    running: FrameStream, request_id: str, metrics: Metrics, provenance: _Provenance
) -> Iterator[bytes]:
    request = context.current()
    route = "none" if request is None else request.route
    for sample, result in running:
        line = _written_record(_frame(sample, result, request_id, provenance))
        metrics.video_frames.labels(route, "error" if isinstance(result, GatewayError) else "ok").inc()
        metrics.video_lag_seconds.observe(time.perf_counter() - sample.decoded_at)
        yield line
    if running.fault is not None:
        yield _written_record({"error": problem(running.fault, request_id)})
    yield _written_record({"summary": running.summary()})


def _frame(
    sample: Sample, result: Record | GatewayError, request_id: str, provenance: _Provenance
) -> dict[str, Any]:
    frame = {"index": sample.index, "time_s": sample.time_s}
    if isinstance(result, GatewayError):
        return {"frame": frame, "error": problem(result, request_id)}
    timings = {stage: round(ms, 3) for stage, ms in result.served.timings.ms.items()}
    return {"frame": frame, **result.body, **provenance.of(result.served), "timings_ms": timings}


def _written_record(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
