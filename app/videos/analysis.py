"""A whole video through a profile: decode once, run every component, write the artefacts and the manifest.

An interrupted analysis resumes at the last chunk, and a finished one isn't repeated. The same input, profile and
models give the same arrays.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from app.deadline import Deadline
from app.errors import DeadlineExceeded, GatewayError, InvalidVideo
from app.media.video.reader import VideoFacts, VideoLimits, VideoReader
from app.pipelines.base import used_with
from app.pipelines.frames import Frame, FramesInOrder, Patience, Sample, Step, frames_in_order
from app.pipelines.pipeline_set import PipelineSet
from app.pipelines.tally import Tally, merged
from app.videos import manifest as manifests
from app.videos.checkpoint import Checkpoint, Chunk
from app.videos.components.base import Component, Scene
from app.videos.profile import Profile, SamplingRule
from routing.policy import FrameFacts


class Cancelled(Exception):
    """The analysis was cancelled; what is done is kept."""


@dataclass(frozen=True, slots=True)
class Input:
    """The video: an open file, its name as the caller knows it, its length in bytes and its SHA-256 in hex.

    `origin` is what the manifest says besides of the place it was fetched from.
    """

    file: BinaryIO
    name: str
    nbytes: int
    sha256: str
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run; none of them changes a number.

    `window` frames are in memory at once, `parallel` calls a component run side by side. What is done is kept every
    `chunk_s` seconds, at first more often (a quarter of the time so far), and where it has become `chunk_frames` frames
    or `chunk_bytes` of arrays: frames wait until the disk has it. A frame waits `backend_s` for a backend that is away.
    """

    limits: VideoLimits = field(default_factory=VideoLimits)
    window: int = 8
    parallel: int = 4
    timeout_s: float = 7 * 86400.0
    frame_s: float = 60.0
    backend_s: float = 60.0
    chunk_frames: int = 1024
    chunk_bytes: int = 16 << 20
    chunk_s: float = 2.0
    first_chunk_s: float = 0.25

    def full(self, chunk: Chunk, since: float, began: float) -> bool:
        """Return whether to write the chunk now; it was begun at `since`, and the run at `began` (monotonic)."""
        pause = min(self.chunk_s, max(self.first_chunk_s, (since - began) / 4))
        return (
            len(chunk.frame_index) >= self.chunk_frames
            or chunk.nbytes >= self.chunk_bytes
            or time.monotonic() - since > pause
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """`frames` samples are done, of about `expected` (None: unknown); `fraction` of the video's time, 0 to 1."""

    frames: int
    expected: int | None
    fraction: float | None
    resumed: int = 0


Report = Callable[[Progress], None]


@dataclass(slots=True)
class _Run:
    """State of one run."""

    facts: VideoFacts
    components: Sequence[Component]
    checkpoint: Checkpoint
    tallies: dict[str, Tally]
    report: Report

    def keep(self, chunk: Chunk) -> None:
        if chunk.frame_index:
            states = {component.name: component.state() for component in self.components}
            self.checkpoint.write(chunk, states, self.tallies)

    def fresh(self) -> Chunk:
        return Chunk.after(self.checkpoint.frames, [component.name for component in self.components])

    def add(self, chunk: Chunk, sample: Sample, results: Sequence[Any]) -> None:
        """One frame's rows."""
        chunk.frame_index.append(sample.index)
        chunk.time_s.append(sample.time_s)
        for component, result in zip(self.components, results, strict=False):
            chunk.add(component.name, component.row(sample, result))
            served = component.served(result)
            if served is not None:
                self.tallies[component.name].add(served)


class VideoAnalysis:
    """One video on its way. `run` once; `cancel` from any thread."""

    def __init__(
        self,
        pipelines: PipelineSet,
        profile: Profile,
        output: Path,
        video_id: str,
        options: Options | None = None,
    ) -> None:
        self._pipelines = pipelines
        self._profile = profile
        self._output = output
        self._video_id = video_id
        self._options = options or Options()
        self._cancelled = threading.Event()
        self._running: FramesInOrder | None = None
        self._deadline = Deadline.after(self._options.timeout_s)

    def cancel(self) -> None:
        """Stop now, without waiting for a frame; `run` keeps what is done and raises Cancelled."""
        self._cancelled.set()
        self._deadline.cancel()
        running = self._running
        if running is not None:
            running.stop()

    def done(self, video: Input) -> dict[str, Any] | None:
        """The manifest, if this very video was done with this profile and these models, and all files are there.

        Raises:
            GatewayError: no branch can serve.
        """
        manifest = manifests.read(self._output)
        if (
            manifest is None
            or manifest["input"]["sha256"] != video.sha256
            or manifest["config_hash"] != self._profile.config_hash
            or not manifests.complete(self._output, manifest)
        ):
            return None
        facts = self._frame_facts(manifest["video"]["width"], manifest["video"]["height"])
        same = _signature(self._expected(self._components(facts))) == manifest["model_signature"]
        return manifest if same else None

    def check(self, file: BinaryIO) -> None:
        """Check that the video can be read and every branch can serve it.

        Raises:
            GatewayError: no.
        """
        with VideoReader(file, self._profile.sampling, self._options.limits) as reader:
            self._components(self._frame_facts(reader.facts.width, reader.facts.height))

    def run(self, video: Input, report: Report | None = None, *, accept_stall: bool = True) -> dict[str, Any]:
        """Analyse the video; answers the manifest.

        A decoder that stalls ends the video early, with a partial result, or without `accept_stall` the run.

        Raises:
            Cancelled: see `cancel`.
            GatewayError: the video can't be read, no branch can serve, or a frame failed. What is done is kept.
            OSError: the output can't be written.
        """
        try:
            return self._run(video, report, accept_stall)
        except GatewayError:
            self._check_cancelled()  # a frame, or the work before the first one, was late because of that
            raise
        finally:
            self._running = None

    def _run(self, video: Input, report: Report | None, accept_stall: bool) -> dict[str, Any]:
        self._check_cancelled()
        started = time.monotonic()
        sampling, window = self._profile.sampling, self._options.window
        with VideoReader(video.file, sampling, self._options.limits, window + 2) as reader:
            run = self._prepared(video, reader.facts, report)
            resumed = run.checkpoint.frames
            self._begin(run)
            self._frames(reader, run)
            run.facts = reader.facts
            fault, decoded, damaged = reader.fault, reader.decoded, reader.damaged
        frames = run.checkpoint.frames
        if isinstance(fault, DeadlineExceeded) and not accept_stall:
            raise fault
        if not frames:
            raise fault or InvalidVideo("no frame of the video lies within the sampling")
        manifest = manifests.described(self._profile, run.facts, fault, run.tallies) | {
            "video_id": self._video_id,
            "input": {"name": video.name, "bytes": video.nbytes, "sha256": video.sha256, **video.origin},
            "frames": {"sampled": frames, "decoded": decoded, "damaged": damaged, "resumed": resumed},
            "wall_s": round(time.monotonic() - started, 3),
        }
        manifest["warnings"] += reader.warnings
        manifest["run_id"] = manifests.run_key(video.sha256, self._profile, manifest["model_signature"])[:16]
        manifests.write(self._output, run.components, run.checkpoint, run.tallies, manifest)
        run.checkpoint.remove()
        return manifest

    def _prepared(self, video: Input, facts: VideoFacts, report: Report | None) -> _Run:
        components = self._components(self._frame_facts(facts.width, facts.height))
        expected = self._expected(components)
        key = manifests.run_key(video.sha256, self._profile, _signature(expected))
        checkpoint = Checkpoint(self._output / ".partial", key)
        tallies = checkpoint.tallies or expected
        return _Run(facts, components, checkpoint, tallies, report or (lambda _: None))

    def _begin(self, run: _Run) -> None:
        for component in run.components:
            if run.checkpoint.frames:
                component.restore(run.checkpoint.states[component.name])
            for served in component.begin(self._deadline):
                run.tallies[component.name].add(served)

    def _frame_facts(self, width: int, height: int) -> FrameFacts:
        return FrameFacts(width, height, self._profile.analysis.width, self._profile.analysis.height)

    def _components(self, facts: FrameFacts) -> list[Component]:
        scene = Scene(self._pipelines, self._profile, facts)
        components = [kind(scene, config) for kind, config in self._profile.components.given()]
        components[0].first = True
        return components

    def _expected(self, components: Sequence[Component]) -> dict[str, Tally]:
        """Return the branches that will serve, before a frame is run."""
        router = self._pipelines.router
        states = router.engine.ready()
        tallies = {component.name: Tally() for component in components}
        for component in components:
            for family, decision in component.decisions():
                branch = decision.branch
                used = used_with(states[branch.name].used, self._pipelines.resizing.of(branch))
                tallies[component.name].expect(router.catalogue[family], decision, used)
        return tallies

    def _frames(self, reader: VideoReader, run: _Run) -> None:
        options = self._options
        patience = Patience(self._deadline, options.backend_s, options.frame_s, self._pipelines.metrics)
        steps: list[Step] = [_step(component, patience) for component in run.components]
        threads = min(64, options.parallel * len(steps))
        with frames_in_order(
            reader, steps, options.window, threads, patience, run.checkpoint.frames
        ) as frames:
            self._running = frames
            if not self._cancelled.is_set():  # else `cancel` may have come before there was anything to stop
                self._collect(frames, run, reader)
        self._check_cancelled()

    def _collect(self, frames: FramesInOrder, run: _Run, reader: VideoReader) -> None:
        options, resumed = self._options, run.checkpoint.frames
        chunk, began = run.fresh(), time.monotonic()
        since = began
        counted = self._pipelines.metrics.video_frames
        for sample, results in frames:
            if self._cancelled.is_set():
                break
            failed = next((result for result in results if isinstance(result, GatewayError)), None)
            if failed is not None:
                counted.labels("job", "error").inc()
                run.keep(chunk)
                raise failed
            counted.labels("job", "ok").inc()
            run.add(chunk, sample, results)
            run.report(self._progress(sample, reader.facts, resumed))
            if options.full(chunk, since, began):
                run.keep(chunk)
                chunk, since = run.fresh(), time.monotonic()
        run.keep(chunk)

    def _progress(self, sample: Sample, facts: VideoFacts, resumed: int) -> Progress:
        """Progress through the video by its facts, which change where the header was wrong."""
        expected = expected_samples(facts, self._profile.sampling)
        return Progress(sample.ordinal + 1, expected, _fraction(facts, sample.time_s), resumed)

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled


def _step(component: Component, patience: Patience) -> Step:
    def step(frame: Frame, previous: Frame | None) -> Any:
        return component.run(frame, previous, patience.frame_deadline())

    return step


def _signature(tallies: Mapping[str, Tally]) -> str:
    signature: str = merged(tallies.values()).provenance()["model_signature"]
    return signature


def expected_samples(facts: VideoFacts, rule: SamplingRule) -> int | None:
    """About how many samples there will be; None where the container doesn't say."""
    if facts.duration_s is None or rule.keyframes:
        return None
    seconds = min(facts.duration_s, rule.end_s or math.inf) - rule.start_s
    rate = facts.fps or 0.0
    if rule.fps is not None:
        rate = min(rule.fps, rate or rule.fps)
    if rule.every is not None:
        rate /= rule.every
    return max(1, round(seconds * rate)) if rate > 0 and seconds > 0 else None


def _fraction(facts: VideoFacts, time_s: float) -> float | None:
    return None if not facts.duration_s else min(1.0, max(0.0, time_s / facts.duration_s))
