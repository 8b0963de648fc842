"""A whole video through a profile: decode once, run every component, write the artefacts and the manifest.

An interrupted analysis resumes at the last chunk, and a finished one isn't repeated. The same input, profile and
models give the same arrays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from app import context
from app.deadline import Deadline
from app.errors import DeadlineExceeded, GatewayError, InvalidVideo
from app.media.video.reader import VideoFacts, VideoLimits, VideoReader
from app.pipelines.base import used_with
from app.pipelines.frames import Frame, FramesInOrder, Patience, Step, frames_in_order
from app.pipelines.pipeline_set import PipelineSet
from app.pipelines.tally import Tally, merged
from app.videos import manifest as manifests
from app.videos.checkpoint import Checkpoint, Chunk, ChunkFolder, checkpoint_folder
from app.videos.components.base import Component, Scene
from app.videos.earlier import Earlier
from app.videos.profile import Profile
from app.videos.run_state import Report, Run, progress_at
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import remove_unfinished
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


class OtherFrames(Exception):
    """The video has other frames now than when the artefacts were made that should be kept."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One call of `run`."""

    video: Input
    report: Report
    accept_stall: bool
    earlier: Earlier | None


class VideoAnalysis:
    """One video on its way. `run` once; `cancel` from any thread."""

    def __init__(
        self,
        pipelines: PipelineSet,
        profile: Profile,
        output: ArtifactStore,
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
        earlier = None if manifest is None else self.earlier(video, manifest)
        return earlier.manifest if earlier is not None and earlier.whole else None

    def earlier(self, video: Input, manifest: dict[str, Any]) -> Earlier | None:
        """The run of a manifest, if it did this very video with this profile, and all its files are there.

        Raises:
            GatewayError: no branch can serve.
        """
        if (
            manifest["input"]["sha256"] != video.sha256
            or manifest["config_hash"] != self._profile.config_hash
            or not manifests.complete(self._output, manifest)
        ):
            return None
        facts = self._frame_facts(manifest["video"]["width"], manifest["video"]["height"])
        same = _signature(self._expected(self._components(facts))) == manifest["model_signature"]
        return Earlier(manifest, same)

    def check(self, file: BinaryIO) -> None:
        """Check that the video can be read and every branch can serve it.

        Raises:
            GatewayError: no.
        """
        with VideoReader(file, self._profile.sampling, self._options.limits) as reader:
            self._components(self._frame_facts(reader.facts.width, reader.facts.height))

    def run(
        self,
        video: Input,
        report: Report | None = None,
        *,
        accept_stall: bool = True,
        earlier: Earlier | None = None,
    ) -> dict[str, Any]:
        """Analyse the video; answers the manifest.

        A decoder that stalls ends the video early, with a partial result, or without `accept_stall` the run. Artefacts
        of an earlier run that the models at hand would make again are kept, and only the other components run.

        Raises:
            Cancelled: see `cancel`.
            OtherFrames: artefacts can't be kept; a run without `earlier` is needed.
            GatewayError: the video can't be read, no branch can serve, or a frame failed. What is done is kept.
            OSError: the output can't be written.
        """
        task = _Task(video, report or (lambda _: None), accept_stall, earlier)
        try:
            with checkpoint_folder(self._output) as folder, context.one_answer():
                return self._run(task, folder)
        except GatewayError:
            self._check_cancelled()  # a frame, or the work before the first one, was late because of that
            raise
        finally:
            self._running = None

    def _run(self, task: _Task, folder: ChunkFolder) -> dict[str, Any]:
        self._check_cancelled()
        started, before = time.monotonic(), manifests.read(self._output)
        sampling, window = self._profile.sampling, self._options.window
        with VideoReader(task.video.file, sampling, self._options.limits, window + 2) as reader:
            run = self._prepared(task, reader.facts, folder)
            resumed = run.checkpoint.frames
            self._begin(run)
            self._frames(reader, run)
            run.facts = reader.facts
            fault, decoded, damaged = reader.fault, reader.decoded, reader.damaged
        frames = run.checkpoint.frames
        if isinstance(fault, DeadlineExceeded) and not task.accept_stall:
            raise fault
        if not frames:
            raise fault or InvalidVideo("no frame of the video lies within the sampling")
        if task.earlier is not None and run.kept and (fault is not None or not task.earlier.fits(frames)):
            raise OtherFrames
        counts = {
            "sampled": frames, "decoded": decoded, "damaged": damaged, "resumed": resumed,
        }  # fmt: skip
        manifest = self._described(task.video, run, fault) | {
            "frames": counts,
            "wall_s": round(time.monotonic() - started, 3),
        }
        manifest["warnings"] += reader.warnings
        results = manifests.Results(run.components, run.checkpoint, run.tallies, manifest, run.kept)
        manifest = results.publish(self._output, before)
        run.checkpoint.remove()
        remove_unfinished(self._output)
        return manifest

    def _described(self, video: Input, run: Run, fault: GatewayError | None) -> dict[str, Any]:
        manifest = manifests.described(self._profile, run.facts, fault, run.tallies)
        key = manifests.run_key(video.sha256, self._profile, manifest["model_signature"])
        return manifest | {
            "video_id": self._video_id,
            "run_id": key[:16],
            "input": {"name": video.name, "bytes": video.nbytes, "sha256": video.sha256, **video.origin},
            "kept": [name for name in run.tallies if name in run.kept],
        }

    def _prepared(self, task: _Task, facts: VideoFacts, folder: ChunkFolder) -> Run:
        components = self._components(self._frame_facts(facts.width, facts.height))
        expected = self._expected(components)
        key = manifests.run_key(task.video.sha256, self._profile, _signature(expected))
        kept = {} if task.earlier is None else task.earlier.kept(expected)
        working = [component for component in components if component.name not in kept]
        working[0].first = True
        if kept:
            key = f"{key} {' '.join(component.name for component in working)}"
        checkpoint = Checkpoint(folder, key)
        tallies = checkpoint.tallies or expected
        return Run(facts, working, checkpoint, tallies, kept, task.report)

    def _begin(self, run: Run) -> None:
        for component in run.components:
            if run.checkpoint.frames:
                component.restore(run.checkpoint.states[component.name])
            for served in component.begin(self._deadline):
                run.tallies[component.name].add(served)

    def _frame_facts(self, width: int, height: int) -> FrameFacts:
        return FrameFacts(width, height, self._profile.analysis.width, self._profile.analysis.height)

    def _components(self, facts: FrameFacts) -> list[Component]:
        scene = Scene(self._pipelines, self._profile, facts)
        return [kind(scene, config) for kind, config in self._profile.components.given()]

    def _expected(self, components: Sequence[Component]) -> dict[str, Tally]:
        """Return the branches that will serve, before a frame is run."""
        router, pins = self._pipelines.router, context.pins()
        tallies = {component.name: Tally() for component in components}
        for component in components:
            for family, decision in component.decisions():
                branch = decision.branch
                state = router.engine.serving(branch.name)
                if pins is not None and state.endpoint is not None:
                    pins.confirm(branch.name, state.weights_key)
                used = used_with(state.used, self._pipelines.resizing.of(branch))
                tallies[component.name].expect(router.catalogue[family], decision, used)
        return tallies

    def _frames(self, reader: VideoReader, run: Run) -> None:
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

    def _collect(self, frames: FramesInOrder, run: Run, reader: VideoReader) -> None:
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
            run.report(progress_at(sample, reader.facts, self._profile.sampling, resumed))
            if options.full(chunk, since, began):
                run.keep(chunk)
                chunk, since = run.fresh(), time.monotonic()
        run.keep(chunk)

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
