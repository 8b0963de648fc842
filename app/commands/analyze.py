"""`gateway analyze`: videos through a profile, from the shell."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from app import extras
from app.commands.video_list import Entry, found_videos, shown
from app.engine.base import Engine
from app.errors import GatewayError
from app.families import FAMILIES
from app.hints import did_you_mean
from app.main import analysis_options, create_engine, create_pipelines, create_survey, may_be_compact
from app.metrics import Metrics
from app.pipelines import inventory
from app.pipelines.pipeline_set import PipelineSet
from app.settings import Settings, environment
from app.videos import manifest as manifests
from app.videos.analysis import Input, Progress, Report, VideoAnalysis
from app.videos.components.detect import DetectComponent
from app.videos.formats.base import Finished, Format
from app.videos.formats.derived import FORMATS, make_missing
from app.videos.profile import Profile
from app.videos.profile_documents import ProfileReader, check_prompts
from routing import overlay
from routing.catalogue import Catalogue
from routing.policy import Readiness

_log = logging.getLogger(__name__)

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """One video's line. `status`: ok, partial, skipped, busy, failed or interrupted; names are as `shown`."""

    status: str
    video: str
    output: str
    frames: int = 0
    seconds: float = 0.0
    detail: str | None = None

    def line(self) -> str:
        worked = self.frames and self.seconds > 0 and self.status in ("ok", "partial")
        rate = f", {self.frames / self.seconds:.1f} frames/s" if worked else ""
        work = f"{self.frames} frames, {self.seconds:.1f} s{rate}"
        return f"{self.status:8} {self.video}: {work} -> {self.output}" + (
            f": {self.detail}" if self.detail else ""
        )


def analyze(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that can't show a name shows its escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        profile = ProfileReader(FAMILIES.components).load(parsed.profile_path, environment(), sys.maxsize)
        formats = _formats(parsed, profile)
        videos = found_videos(parsed.video_path)
        settings = _settings(parsed, profile)
        check_prompts(profile, settings.max_prompts)
        with contextlib.closing(_Backend(settings, profile)) as backend:
            analyzer = _Analyzer(backend, profile, formats, force=parsed.force)
            return _all(videos, analyzer, parsed.output, as_json=parsed.json)
    except (GatewayError, RuntimeError) as error:
        print(f"gateway analyze: {error}", file=sys.stderr)
        return USAGE


def _formats(parsed: argparse.Namespace, profile: Profile) -> list[Format]:
    """Return the formats beside npz, each once.

    Raises:
        _Unusable: one is unknown, needs a package that is missing, or has nothing to show with this profile.
    """
    words = [word.strip() for text in parsed.format for word in text.split(",")]
    words += ["mp4"] if parsed.render else []
    known = ("npz", *FORMATS)
    for word in words:
        if word not in known:
            there = ", ".join(known)
            raise _Unusable(f"--format: {word!r} is none of {there}" + did_you_mean(word, known))
    formats: list[Format] = [FORMATS[word] for word in dict.fromkeys(words) if word in FORMATS]
    lacking = next(filter(None, (extras.missing(form.extra) for form in formats if form.extra)), None)
    if lacking is not None:
        raise _Unusable(f"--format: {lacking}")
    boxes = any(kind is DetectComponent for kind, _ in profile.components.given())
    if "coco" in words and not boxes:
        raise _Unusable(f"--format: coco needs boxes, and the profile has no {DetectComponent.name}")
    return formats


def _settings(parsed: argparse.Namespace, profile: Profile) -> Settings:
    """Take settings from the command line, then the profile, then the environment; load only the branches of the
    profile.
    """
    given: dict[str, Any] = {"repository": parsed.repository}
    if profile.engine is not None:
        given |= {"engine": profile.engine.kind, "triton_url": profile.engine.triton_url}
    if parsed.engine or parsed.triton_url:
        given["engine"] = parsed.engine or "triton"
        given["triton_url"] = parsed.triton_url or given.get("triton_url")
    given = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**given)
    catalogue = overlay.load(settings.own_catalogue)
    allowed = inventory.patterns("*" if settings.models == "auto" else settings.models)
    wanted = {branch.name for branch in inventory.matching(catalogue, allowed)}
    names = [name for name in reached(profile, settings, catalogue) if name in wanted]
    return Settings(**given | {"models": ",".join(names) or "none"})


def reached(profile: Profile, settings: Settings, catalogue: Catalogue) -> list[str]:
    """Names of the branches that a video of some size can take with this profile and these settings."""
    compact = may_be_compact(settings)
    found: dict[str, None] = {}
    for kind, config in profile.components.given():
        branches = kind.reachable(
            config, catalogue, settings.variant, fallback=profile.fallback, compact=compact
        )
        found |= dict.fromkeys(branch.name for branch in branches)
    return list(found)


class _Unusable(RuntimeError):
    """The settings can't be carried out on this installation."""


class _Backend:
    """The pipelines, made when a video needs them: a run that skips every video loads no model."""

    def __init__(self, settings: Settings, profile: Profile) -> None:
        self.options = analysis_options(settings)
        self._settings = settings
        self._catalogue = overlay.load(settings.own_catalogue)
        self._reached = reached(profile, settings, self._catalogue)
        self._engine: Engine | None = None
        self._loaded: PipelineSet | None = None
        self._surveyed: PipelineSet | None = None

    @property
    def pipelines(self) -> PipelineSet:
        """The pipelines over the engine, once it has loaded what the profile reaches."""
        if self._loaded is None:
            with _usable():
                self._engine = engine = create_engine(self._settings, self._catalogue)
            while any(engine.ready()[name].readiness is Readiness.LOADING for name in self._reached):
                time.sleep(0.05)
            self._loaded = self._made(engine)
        return self._loaded

    @property
    def survey(self) -> PipelineSet:
        """Branches that will serve according to the files; a Triton reports its own."""
        if self._settings.engine == "triton" or self._loaded is not None:
            return self.pipelines
        if self._surveyed is None:
            with _usable():
                engine = create_survey(self._settings, self._catalogue)
            self._surveyed = self._made(engine)
        return self._surveyed

    def _made(self, engine: Engine) -> PipelineSet:
        with _usable():
            return create_pipelines(self._settings, self._catalogue, engine, Metrics())

    def close(self) -> None:
        """Release the engine if there is one."""
        if self._engine is not None:
            self._engine.close()


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _Unusable(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Analyzer:
    """Runs videos one after another."""

    backend: _Backend
    profile: Profile
    formats: Sequence[Format]
    force: bool

    def one(self, video: Entry, output: Path) -> Outcome:
        """Analyse one video; its faults become its outcome."""
        started = time.monotonic()
        said = (shown(video.path), shown(output))
        if video.fault is not None:
            return Outcome("failed", *said, detail=video.fault)
        try:
            with _locked(output) as mine:
                if not mine:
                    return Outcome("busy", *said, detail="another process is at it")
                status, manifest, made = self._run(video, output)
        except KeyboardInterrupt:
            return Outcome(
                "interrupted", *said, detail="what is done is kept; run the command again to go on"
            )
        except _Unusable:
            raise
        except Exception as error:  # noqa: BLE001  # a defect is one video's, too
            _log.debug("%s", said[0], exc_info=True)
            return Outcome("failed", *said, detail=_words(error))
        fault = manifest["fault"]
        detail = None if fault is None else f"{fault['code']}: {fault['detail']}"
        if made:
            said_made = f"made {', '.join(made)} of what was done before"
            detail = said_made if detail is None else f"{detail}; {said_made}"
        seconds = round(time.monotonic() - started, 3)
        return Outcome(status, *said, manifest["frames"]["sampled"], seconds, detail)

    def _run(self, video: Entry, output: Path) -> tuple[str, dict[str, Any], list[str]]:
        """Return the status, the manifest, and the files that were made of an earlier run's artefacts."""
        name = shown(video.name)
        with video.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            given = Input(file, name, os.fstat(file.fileno()).st_size, digest)
            done = None if self.force else self._done(output, given)
            manifest = self._analysed(output, given) if done is None else done
            made = self._derive(output, manifest, file)
        status = "skipped" if done is not None and not made else "ok"
        status = "partial" if manifest["status"] == "partial" else status
        return status, manifest, [] if done is None else made

    def _analysed(self, output: Path, video: Input) -> dict[str, Any]:
        pipelines = self.backend.pipelines
        with _bar(video.name) as bar:
            analysis = VideoAnalysis(pipelines, self.profile, output, video.name, self.backend.options)
            return analysis.run(video, _reporter(bar))

    def _derive(self, output: Path, manifest: dict[str, Any], file: BinaryIO) -> list[str]:
        """Make the files of the formats that are not there yet; no model runs for that."""
        components = {component.name: component for component in FAMILIES.components}
        finished = Finished(
            output, manifest, components, file, self.profile.sampling, self.backend.options.limits
        )
        return make_missing(finished, self.formats)

    def _done(self, output: Path, video: Input) -> dict[str, Any] | None:
        """The manifest of an earlier run over the same video, profile and models; no model is loaded for that."""
        if manifests.read(output) is None:
            return None
        with contextlib.suppress(GatewayError):  # no branch can serve: running says so
            return VideoAnalysis(self.backend.survey, self.profile, output, video.name).done(video)
        return None


def _words(error: Exception) -> str:
    if isinstance(error, GatewayError):
        return f"{error.code}: {error.detail}"
    if isinstance(error, OSError):
        return error.strerror or "can't be read or written"
    return f"internal_error: {type(error).__name__}"


def _all(videos: Sequence[Entry], analyzer: _Analyzer, output: Path, *, as_json: bool) -> int:
    """Print every video's line and return the exit code. A video that another process works on is no failure."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    statuses = set()
    for video in videos:
        outcome = analyzer.one(video, output / video.name)
        print(json.dumps(asdict(outcome)) if as_json else outcome.line(), flush=True)
        statuses.add(outcome.status)
        if outcome.status == "interrupted":
            return INTERRUPTED
    if "failed" in statuses:
        return FAILED
    return PARTIAL if "partial" in statuses else OK


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[bool]:
    """Lock the folder and yield True, or False if another process holds it: two processes may run over the same
    list.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".lock"
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished and removed the file; a lock on a removed file excludes nobody.
            mine = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            mine = False
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)


def _bar(name: str) -> Any:
    return tqdm(desc=name, unit=" frames", file=sys.stderr, leave=False, disable=not sys.stderr.isatty())


def _reporter(bar: Any) -> Report:
    def report(progress: Progress) -> None:
        if bar.total is None and progress.expected is not None:
            bar.total = progress.expected
            bar.update(progress.resumed)
        bar.update(1)

    return report
