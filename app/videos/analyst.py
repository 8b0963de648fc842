"""Videos through a profile, one after another or several at once: the part that commands, jobs and your code share.

with Analyst(profile, suite) as analyst:
    finding = analyst.run(Source("a.mp4", "videos/a.mp4"), open_store("out/a.mp4"))
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from app.errors import GatewayError
from app.pipelines.pipeline_set import PipelineSet
from app.videos import manifest as manifests
from app.videos.analysis import Cancelled, Input, Options, OtherFrames, VideoAnalysis
from app.videos.checkpoint import remove_left_over
from app.videos.earlier import Earlier
from app.videos.formats.base import Finished, Format, kinds_of
from app.videos.formats.derived import make_missing
from app.videos.profile import Profile
from app.videos.run_state import Report
from app.videos.stores.base import ArtifactStore
from app.videos.stores.sources import Source

_BLOCK_BYTES = 1 << 20


class Suite(Protocol):
    """The models of a run. An analyst closes the suite that it was given."""

    @property
    def pipelines(self) -> PipelineSet:
        """The pipelines over an engine that has loaded its models; asked for when a frame has to be run."""

    @property
    def survey(self) -> PipelineSet:
        """Pipelines that know which models would serve, and need not have loaded any."""

    @property
    def options(self) -> Options: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """Pipelines that somebody else has made and will close."""

    pipelines: PipelineSet
    options: Options = field(default_factory=Options)

    @property
    def survey(self) -> PipelineSet:
        return self.pipelines

    def close(self) -> None:
        """Leave the pipelines open."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one video.

    `status` is `ok`, `partial` (the part that could be decoded is done, now or before) or `skipped` (it was done
    before). `made` names files of formats that were made of artefacts of an earlier run.
    """

    status: str
    manifest: Mapping[str, Any]
    made: Sequence[str] = ()


class Analyst:
    """Analyses videos. Use it in a `with`; `run` and `cancel` from any thread.

    Args:
        profile: names the components and the sampling.
        suite: the models, made when a video needs them: a run that skips every video loads none.
        formats: files that are made of the artefacts, beside them.
        force: repeat what was done before with the same input, configuration and models.
    """

    def __init__(
        self, profile: Profile, suite: Suite, *, formats: Sequence[Format] = (), force: bool = False
    ) -> None:
        self._profile = profile
        self._suite = suite
        self._formats = formats
        self._force = force
        self._cancelled = False
        self._running: dict[int, VideoAnalysis] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._suite.close()

    def run(
        self,
        source: Source,
        sink: ArtifactStore,
        report: Report | None = None,
        *,
        accept_stall: bool = True,
    ) -> Finding:
        """Analyse one video into a store of its own: the artefacts, then `manifest.json`, then files of the formats.

        Artefacts of an earlier run over the same video and profile are kept if the same models made them; only the
        other components run. `report` hears of every frame. A decoder that stalls ends the video early, with a partial
        result, or without `accept_stall` the run.

        Raises:
            Cancelled: see `cancel`; what is done is kept, and another run resumes there.
            GatewayError: the video can't be read, no model can serve it, or a frame failed. What is done is kept.
            OSError: the video or the store can't be read or written.
        """
        self.check()
        place = source.place()
        before = None if self._force else manifests.read(sink)
        if before is not None and self._is_done(source, place, before, sink):
            return self._found(sink, before, None, done=True)
        with source.opened(self.check) as file:
            digest = source.sha256 or self._digest(file)
            nbytes = os.fstat(file.fileno()).st_size
            given = Input(file, source.name, nbytes, digest, {**source.origin, **place})
            earlier = None if before is None else self._earlier(given, before, sink)
            if earlier is not None and earlier.whole:
                return self._found(sink, earlier.manifest, file, done=True)
            name = source.id or source.name
            manifest = self._analysed(given, name, sink, report, accept_stall, earlier)
            return self._found(sink, manifest, file, done=False)

    def cancel(self) -> None:
        """Stop what runs, without waiting for a frame; from now on `run` raises Cancelled. A signal handler may call
        it: it takes no lock.
        """
        self._cancelled = True
        for analysis in list(self._running.values()):
            analysis.cancel()

    def check(self) -> None:
        """Raise Cancelled after `cancel`."""
        if self._cancelled:
            raise Cancelled

    def _analysed(
        self,
        video: Input,
        name: str,
        sink: ArtifactStore,
        report: Report | None,
        accept_stall: bool,
        earlier: Earlier | None,
    ) -> dict[str, Any]:
        analysis = VideoAnalysis(self._suite.pipelines, self._profile, sink, name, self._suite.options)
        try:
            with self._cancelling(analysis):
                return analysis.run(video, report, accept_stall=accept_stall, earlier=earlier)
        except OtherFrames:
            return self._analysed(video, name, sink, report, accept_stall, None)

    def _is_done(
        self, source: Source, place: Mapping[str, str], before: dict[str, Any], sink: ArtifactStore
    ) -> bool:
        """Return True if nothing has to be fetched: the object has the tag that it had when it was analysed."""
        if not place or any(form.needs_video for form in self._formats):
            return False
        then = before["input"]
        if any(then.get(key) != value for key, value in place.items()):
            return False
        given = Input(io.BytesIO(), source.name, then["bytes"], then["sha256"])
        earlier = self._earlier(given, before, sink)
        return earlier is not None and earlier.whole

    def _earlier(self, video: Input, manifest: dict[str, Any], sink: ArtifactStore) -> Earlier | None:
        """Return the run of a manifest if it did this video; no model is loaded for that."""
        with contextlib.suppress(GatewayError):  # no branch can serve: running says so
            analysis = VideoAnalysis(self._suite.survey, self._profile, sink, video.name)
            return analysis.earlier(video, manifest)
        return None

    def _found(
        self, sink: ArtifactStore, manifest: dict[str, Any], file: BinaryIO | None, *, done: bool
    ) -> Finding:
        """Return the result, once the files of the formats are made of it; `done`: by an earlier run."""
        if done:
            remove_left_over(sink, str(manifest.get("run_id")))
        made = self._derive(sink, manifest, file)
        status = "skipped" if done and not made else "ok"
        status = "partial" if manifest["status"] == "partial" else status
        return Finding(status, manifest, made if done else ())

    def _derive(self, sink: ArtifactStore, manifest: dict[str, Any], file: BinaryIO | None) -> list[str]:
        """Make the files of the formats that are not there yet; no model runs for that."""
        finished = Finished(
            sink,
            manifest,
            kinds_of(self._profile),
            file,
            self._profile.sampling,
            self._suite.options.limits,
            self.check,
        )
        return make_missing(finished, self._formats)

    def _digest(self, file: BinaryIO) -> str:
        """Return the SHA-256 of the whole file in hex; a cancellation ends it."""
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            self.check()
            digest.update(block)
        return digest.hexdigest()

    @contextlib.contextmanager
    def _cancelling(self, analysis: VideoAnalysis) -> Iterator[None]:
        self._running[id(analysis)] = analysis
        try:
            self.check()
            yield
        finally:
            del self._running[id(analysis)]
