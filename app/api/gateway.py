"""The state that every route reads from `app.state.gateway`; `app.main` builds it once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar, cast

from fastapi import Request

from app.api.response.problems import CallerGone
from app.api.server.admission import Admission, Call
from app.api.server.connections import GONE
from app.context import here
from app.deadline import Deadline
from app.errors import GatewayError
from app.media.image import decoded_bytes
from app.metrics import Metrics
from app.pipelines.base import Router
from app.pipelines.pipeline_set import PipelineSet
from app.pipelines.readiness import ReadyProbe
from app.process.drain import Drain
from app.sessions.session_order import SessionOrder
from app.sessions.tracking_sessions import Sessions
from app.settings import Settings
from app.videos.gauges import Gauges
from app.videos.jobs import VideoJobs
from app.videos.profile_documents import ProfileReader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service's parts."""

    settings: Settings
    pipelines: PipelineSet
    profiles: ProfileReader
    sessions: Sessions
    session_order: SessionOrder
    metrics: Metrics
    workers: ThreadPoolExecutor
    admission: Admission
    decoders: threading.Semaphore  # one permit per streamed video
    jobs: VideoJobs | None  # None: the service has no folder for them
    drain: Drain
    gauges: Gauges
    probe: ReadyProbe

    async def work(self, function: Callable[[], T]) -> T:
        """Run `function`, which is no inference, on a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, here(function))

    async def run(
        self,
        request: Request,
        family: str,
        call: Call[T],
        deadline: Deadline,
        pictures: Sequence[bytes] = (),
        answer: int = 0,
    ) -> T:
        """Run `Admission.run` until the caller disconnects, with one hop to a worker thread per frame.

        `pictures` are those of the call; `answer` takes so many bytes per pixel.
        """
        nbytes = memory = 0
        for data in pictures:
            nbytes += len(data)
            memory += decoded_bytes(data, answer)
        with listening(request, deadline):
            return await self.admission.run(family, call, deadline, nbytes, memory)

    async def run_all(
        self,
        request: Request,
        family: str,
        calls: Sequence[Call[T]],
        deadline: Deadline,
        pictures: Sequence[bytes],
        answer: int = 0,
    ) -> list[T | GatewayError]:
        """Run `Admission.run_all` until the caller disconnects; return each result, or its GatewayError, in order.

        `pictures`: one per call; see `run`.
        """
        nbytes, memory = sum(map(len, pictures)), [decoded_bytes(data, answer) for data in pictures]
        with listening(request, deadline):
            found = await self.admission.run_all(family, calls, deadline, nbytes, memory)
        for outcome in found:
            if isinstance(outcome, BaseException) and not isinstance(outcome, GatewayError):
                raise outcome
        return cast("list[T | GatewayError]", found)

    async def run_whole(
        self,
        request: Request,
        family: str,
        calls: Sequence[Call[T]],
        deadline: Deadline,
        pictures: Sequence[bytes] = (),
    ) -> list[T]:
        """Return the results of all calls, or raise the first exception; `pictures`: one per call, or none."""
        nbytes, memory = sum(map(len, pictures)), [decoded_bytes(data) for data in pictures]
        with listening(request, deadline):
            found = await self.admission.run_all(family, calls, deadline, nbytes, memory, whole=True)
        return cast("list[T]", found)

    @property
    def router(self) -> Router:
        return self.pipelines.router


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


class listening:  # noqa: N801  # used like the function that it would be, in a quarter of the calls
    """Stop the work inside when the caller disconnects: cancel the deadline and wake the waiting task.

    The body has been read.

    Raises:
        CallerGone: the caller went away.
    """

    __slots__ = ("_deadline", "_gone", "_left", "_over", "_request", "_task", "_watcher")

    def __init__(self, request: Request, deadline: Deadline) -> None:
        self._request, self._deadline = request, deadline
        self._left = self._over = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._watcher: asyncio.Future[None] | None = None
        gone: asyncio.Future[None] | None = self._request.scope.get(GONE)
        if gone is None:  # another server than ours
            gone = self._watcher = asyncio.ensure_future(_disconnected(self._request))
        self._gone = gone
        gone.add_done_callback(self._leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._gone.remove_done_callback(self._leave)
        if self._watcher is not None:
            self._watcher.cancel()
        if not self._left or not isinstance(error, asyncio.CancelledError):
            return
        if self._task is not None and self._task.uncancel() == 0:
            raise CallerGone from error

    def _leave(self, _: object) -> None:
        if self._over:  # this call was on its way when the work ended
            return
        self._left = True
        self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()


async def _disconnected(request: Request) -> None:
    """Wait for the disconnect, the only message that the server sends after the body."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
