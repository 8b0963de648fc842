"""One family over the frames of a video, result by result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from app.deadline import Deadline
from app.errors import GatewayError, InvalidVideo
from app.media.video.reader import Sampling, VideoLimits, VideoReader
from app.pipelines.base import Framed, Served, Timings
from app.pipelines.frames import Frame, FramesInOrder, Patience, Sample
from app.pipelines.pipeline_set import PipelineSet
from app.pipelines.tally import Tally
from routing.policy import FrameFacts, Wishes


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """`window` frames are in memory at once, `parallel` calls run side by side; seconds a frame may take or wait."""

    limits: VideoLimits
    window: int = 8
    parallel: int = 4
    frame_s: float = 30.0
    backend_s: float = 30.0


# A frame, the sample before it and what surrounds it -> a result that is `served`; None: nothing to say of it.
Run = Callable[[Frame, Frame | None, Framed], Any]
# Called in the order of the frames: finishes a result that depends on earlier ones.
Follow = Callable[[Sample, Any], Any]


class FrameStream:
    """Iterate once for `(sample, result or its GatewayError)`; then `fault` and `summary` say how it went.

    Args:
        pipelines: whose router decides, once, which branch serves the video.
        family: of `run`.
        file: the video.
        sampling: which frames.
        run: on worker threads.
        follow: on the iterating thread, in order.
        wishes: of the caller.
        analysis: the size that steers routing, `(width, height)`.
        deadline: of the whole video.
        options: see there.

    Raises:
        GatewayError: the video can't be read, or no branch can serve it; nothing has been started then.
    """

    def __init__(
        self,
        pipelines: PipelineSet,
        family: str,
        file: BinaryIO,
        sampling: Sampling,
        run: Run,
        wishes: Wishes,
        deadline: Deadline,
        options: StreamOptions,
        analysis: tuple[int | None, int | None] = (None, None),
        follow: Follow | None = None,
    ) -> None:
        self._follow = follow or (lambda _, result: result)
        self._tally = Tally()
        self._frames = self._errors = 0
        self._sampling = sampling
        self._reader = VideoReader(file, sampling, options.limits, options.window + 2)
        try:
            facts = FrameFacts(self._reader.facts.width, self._reader.facts.height, *analysis)
            decision = pipelines.router.decide(family, facts, wishes)
        except BaseException:
            self._reader.close()
            raise
        patience = Patience(deadline, options.backend_s, options.frame_s, pipelines.metrics)

        def step(frame: Frame, previous: Frame | None) -> Any:
            height, width = frame.rgb.shape[:2]
            facts = FrameFacts(width, height, *analysis)
            return run(
                frame,
                previous,
                Framed(facts, wishes, patience.frame_deadline(), Timings(frame.decode_s), decision),
            )

        self._running = FramesInOrder(self._reader, [step], options.window, options.parallel, patience)

    def __iter__(self) -> Iterator[tuple[Sample, Any]]:
        for sample, (result,) in self._running:
            if result is None:
                continue
            self._frames += 1
            if isinstance(result, GatewayError):
                self._errors += 1
                yield sample, result
                continue
            served: Served = result.served
            self._tally.add(served)
            yield sample, self._follow(sample, result)

    @property
    def fault(self) -> GatewayError | None:
        """Reason for ending before the video did; None if it did not."""
        if self._reader.fault is None and self._reader.decoded == 0:
            return InvalidVideo("no frame of the video lies within the sampling")
        return self._reader.fault

    def summary(self) -> dict[str, Any]:
        """Counts, the video, the sampling, provenance and warnings."""
        tally = self._tally.summary()
        return {
            "frames": self._frames,
            "errors": self._errors,
            "decoded": self._reader.decoded,
            "damaged": self._reader.damaged,
            "complete": self.fault is None,
            "video": asdict(self._reader.facts),
            "sampling": asdict(self._sampling),
            **tally,
            "warnings": [*tally["warnings"], *self._reader.warnings],
        }

    def close(self) -> None:
        """Stop: the decoder is killed, nothing new is begun. From any thread, more than once."""
        self._running.close()
