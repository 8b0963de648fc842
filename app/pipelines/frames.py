"""Frames of one video through steps on threads: decoding and inference overlap, results come in order.

What is in memory is bounded by the window, whatever the video's length.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app import context
from app.deadline import Deadline
from app.errors import (
    GatewayError,
    InsufficientGpuMemory,
    ModelNotReady,
    Overloaded,
    SeveralServers,
    TritonUnavailable,
)
from app.metrics import Metrics

_REASONS: Mapping[type[GatewayError], str] = {
    Overloaded: "overloaded",
    TritonUnavailable: "backend_away",
    SeveralServers: "backend_away",
    ModelNotReady: "model_not_ready",
    InsufficientGpuMemory: "out_of_memory",
}
_WORTH_WAITING = tuple(_REASONS)
_LONGEST_WAIT_S = 2.0


class Frame(Protocol):
    """A decoded frame in a slot that is used again when nobody holds it; see `app.media.video.reader.VideoFrame`."""

    @property
    def index(self) -> int: ...
    @property
    def time_s(self) -> float: ...
    @property
    def decode_s(self) -> float: ...
    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def squares(self) -> MutableMapping[object, NDArray[np.uint8]]: ...
    def hold(self) -> Any: ...
    def release(self) -> None: ...


class Source(Protocol):
    """Source of frames, such as `app.media.video.reader.VideoReader`, read by one thread at a time."""

    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled frame without its pixels: its number among the samples and in the stream, its time in seconds.

    `decoded_at`: when it came out of the decoder, on the clock of `time.perf_counter`.
    """

    ordinal: int
    index: int
    time_s: float
    decoded_at: float = 0.0


# What is done with a frame and the sample before it (None for the first); runs on a worker thread.
Step = Callable[[Frame, Frame | None], Any]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a frame waits for a backend that is away or full, and for its answer; `metrics` count the waits."""

    deadline: Deadline
    backend_s: float = 30.0
    frame_s: float = 30.0
    metrics: Metrics | None = None

    def count(self, error: GatewayError) -> None:
        """A frame is tried again because of `error`."""
        if self.metrics is not None:
            self.metrics.retries.labels(_REASONS[type(error)]).inc()

    def frame_deadline(self) -> Deadline:
        return self.deadline.within(self.frame_s)


class FramesInOrder:
    """Iterate once: `(sample, results)`, one result a step; a step's GatewayError stands in its place.

    Args:
        source: closed with this object.
        steps: what is done with each frame, side by side.
        window: most frames in flight; `source` needs two slots more.
        threads: of the steps.
        patience: see there; its deadline ends with this object.
        skip: samples that are not run again; the last of them still is the one before the next.
    """

    def __init__(
        self,
        source: Source,
        steps: Sequence[Step],
        window: int,
        threads: int,
        patience: Patience,
        skip: int = 0,
    ) -> None:
        self._source = source
        self._steps = steps
        self._patience = patience
        self._skip = skip
        self._room = threading.Semaphore(window)
        self._closed = threading.Event()
        self._results: queue.SimpleQueue[tuple[Sample, list[Future[Any]]] | BaseException | None] = (
            queue.SimpleQueue()
        )
        self._turn = (
            threading.Lock()
        )  # held by the thread that takes a task, and reads a frame where there is none
        self._tasks: deque[_Task] = deque()
        self._frames = enumerate(iter(source))
        self._previous: Frame | None = None
        self._over = False
        self._pins = context.pins()  # of the answer that the frames are part of
        self._threads = [
            threading.Thread(target=self._work, name=f"frames_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[tuple[Sample, list[Any]]]:
        while True:
            entry = self._results.get()
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            sample, futures = entry
            try:
                results = [_result(future) for future in futures]
            except CancelledError:
                return
            if self._closed.is_set():
                return
            self._room.release()
            yield sample, results

    def stop(self) -> None:
        """Stop at once: the decoder is killed, what waits is dropped, and the iteration ends. From any thread."""
        self._closed.set()
        self._patience.deadline.cancel()
        self._room.release()
        self._source.close()
        self._results.put(None)

    def close(self) -> None:
        """Stop, and wait for what runs, which ends by itself. Twice is once."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """Loop of each thread: a free thread reads the next frame from the source itself, without a dispatcher."""
        with context.one_answer(self._pins):
            while (task := self._next()) is not None:
                task.run(self._patience, self._closed)

    def _next(self) -> _Task | None:
        with self._turn:
            if not self._tasks and not self._over:
                self._over = not self._read()
            if self._closed.is_set():
                self._over = True
                for task in self._tasks:
                    task.future.cancel()
                self._tasks.clear()
            return self._tasks.popleft() if self._tasks else None

    def _read(self) -> bool:
        """Read the next frame and queue its tasks; False at the end, whose reason the iterator gets."""
        end: BaseException | None = None
        try:
            while not self._tasks:
                ordinal, frame = next(self._frames)
                if not self._take(ordinal, frame):
                    break
            else:
                return True
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001  # whatever it is, the one who iterates must hear of it
            end = None if self._closed.is_set() else error
        if self._previous is not None:
            self._previous.release()
        self._results.put(end)
        return False

    def _take(self, ordinal: int, frame: Frame) -> bool:
        previous, self._previous = self._previous, frame
        if ordinal >= self._skip:
            self._room.acquire()  # given back when the result is taken
            if self._closed.is_set():
                return False
            self._submit(ordinal, frame, previous)
        if previous is not None:
            previous.release()
        return True

    def _submit(self, ordinal: int, frame: Frame, previous: Frame | None) -> None:
        futures = []
        for step in self._steps:
            frame.hold()
            if previous is not None:
                previous.hold()
            task = _Task(step, frame, previous)
            futures.append(task.future)
            self._tasks.append(task)
        self._results.put((Sample(ordinal, frame.index, frame.time_s, time.perf_counter()), futures))


class _Task:
    """One step of one frame, which it holds."""

    __slots__ = ("_frame", "_previous", "_step", "future")

    def __init__(self, step: Step, frame: Frame, previous: Frame | None) -> None:
        self._step, self._frame, self._previous = step, frame, previous
        self.future: Future[Any] = Future()

    def run(self, patience: Patience, stop: threading.Event) -> None:
        """Run the step, release the frames it holds, and store the result."""
        try:
            result = patiently(self._once, patience, stop)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever takes the result
            self._release()
            self.future.set_exception(error)
        else:
            self._release()
            self.future.set_result(result)

    def _once(self) -> Any:
        return self._step(self._frame, self._previous)

    def _release(self) -> None:
        self._frame.release()
        if self._previous is not None:
            self._previous.release()


def patiently(call: Callable[[], Any], patience: Patience, stop: threading.Event) -> Any:
    """Call `call()`, and retry while the backend is away, full or recovering; a short outage doesn't end a video.

    Raises:
        GatewayError: the last one, once `patience` or the deadline is over or `stop` is set.
    """
    ending = Deadline.after(min(patience.backend_s, patience.deadline.remaining()))
    wait = 0.05
    while True:
        try:
            return call()
        except _WORTH_WAITING as error:
            pause = min(max(wait, error.retry_after or 0), _LONGEST_WAIT_S)
            if ending.remaining() <= pause or stop.wait(pause):
                raise
            patience.count(error)
            wait *= 2


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except GatewayError as error:
        return error


@contextlib.contextmanager
def frames_in_order(*args: Any, **kwargs: Any) -> Iterator[FramesInOrder]:
    """A `FramesInOrder` that is closed at the end."""
    frames = FramesInOrder(*args, **kwargs)
    try:
        yield frames
    finally:
        frames.close()
