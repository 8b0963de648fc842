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
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from app import extras
from app.commands.analysis_backend import Backend, Unusable, settings_of, videos_at_once
from app.commands.video_list import Entry, found_videos, shown
from app.commands.video_threads import Stop, run_in_order
from app.errors import GatewayError
from app.families import FAMILIES
from app.hints import did_you_mean
from app.settings import environment
from app.videos import manifest as manifests
from app.videos.analysis import Cancelled, Input, Progress, Report, VideoAnalysis
from app.videos.components.detect import DetectComponent
from app.videos.formats.base import Finished, Format
from app.videos.formats.derived import FORMATS, make_missing
from app.videos.profile import Profile
from app.videos.profile_documents import ProfileReader, check_prompts

_log = logging.getLogger(__name__)

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130
_BLOCK_BYTES = 1 << 20


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
        settings = settings_of(parsed, profile)
        check_prompts(profile, settings.max_prompts)
        jobs = videos_at_once(parsed.jobs, settings, videos)
        stop = Stop()
        with stop.on_signals(), contextlib.closing(Backend(settings, profile, jobs, stop)) as backend:
            analyzer = _Analyzer(backend, profile, formats, force=parsed.force, stop=stop)
            return _all(videos, analyzer, parsed.output, jobs, as_json=parsed.json)
    except (GatewayError, RuntimeError) as error:
        print(f"gateway analyze: {error}", file=sys.stderr)
        return USAGE


def _formats(parsed: argparse.Namespace, profile: Profile) -> list[Format]:
    """Return the formats beside npz, each once.

    Raises:
        Unusable: one is unknown, needs a package that is missing, or has nothing to show with this profile.
    """
    words = [word.strip() for text in parsed.format for word in text.split(",")]
    words += ["mp4"] if parsed.render else []
    known = ("npz", *FORMATS)
    for word in words:
        if word not in known:
            there = ", ".join(known)
            raise Unusable(f"--format: {word!r} is none of {there}" + did_you_mean(word, known))
    formats: list[Format] = [FORMATS[word] for word in dict.fromkeys(words) if word in FORMATS]
    lacking = next(filter(None, (extras.missing(form.extra) for form in formats if form.extra)), None)
    if lacking is not None:
        raise Unusable(f"--format: {lacking}")
    boxes = any(kind is DetectComponent for kind, _ in profile.components.given())
    if "coco" in words and not boxes:
        raise Unusable(f"--format: coco needs boxes, and the profile has no {DetectComponent.name}")
    return formats


@dataclass(frozen=True, slots=True)
class _Analyzer:
    """Runs videos, also several at once."""

    backend: Backend
    profile: Profile
    formats: Sequence[Format]
    force: bool
    stop: Stop

    def one(self, video: Entry, output: Path) -> Outcome:
        """Analyse one video; its faults become its outcome.

        Raises:
            Cancelled: a stop was requested before it began.
        """
        self.stop.check()
        started = time.monotonic()
        said = (shown(video.path), shown(output))
        if video.fault is not None:
            return Outcome("failed", *said, detail=video.fault)
        try:
            with _locked(output) as mine:
                if not mine:
                    return Outcome("busy", *said, detail="another process analyses it")
                status, manifest, made = self._run(video, output)
        except Cancelled:
            return Outcome(
                "interrupted", *said, detail="the results so far are kept; run the command again to resume"
            )
        except Unusable:
            raise
        except Exception as error:  # noqa: BLE001  # a defect is one video's, too
            _log.debug("%s", said[0], exc_info=True)
            return Outcome("failed", *said, detail=_words(error))
        fault = manifest["fault"]
        detail = None if fault is None else f"{fault['code']}: {fault['detail']}"
        if made:
            said_made = f"made {', '.join(made)} from the results of an earlier run"
            detail = said_made if detail is None else f"{detail}; {said_made}"
        seconds = round(time.monotonic() - started, 3)
        return Outcome(status, *said, manifest["frames"]["sampled"], seconds, detail)

    def _run(self, video: Entry, output: Path) -> tuple[str, dict[str, Any], list[str]]:
        """Return the status, the manifest, and the files that were made of an earlier run's artefacts."""
        name = shown(video.name)
        with video.path.open("rb") as file:
            digest = self._digest(file)
            given = Input(file, name, os.fstat(file.fileno()).st_size, digest)
            done = None if self.force else self._done(output, given)
            manifest = self._analysed(output, given) if done is None else done
            made = self._derive(output, manifest, file)
        status = "skipped" if done is not None and not made else "ok"
        status = "partial" if manifest["status"] == "partial" else status
        return status, manifest, [] if done is None else made

    def _digest(self, file: BinaryIO) -> str:
        """Return the SHA-256 of the whole file in hex; a stop ends it."""
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            self.stop.check()
            digest.update(block)
        return digest.hexdigest()

    def _analysed(self, output: Path, video: Input) -> dict[str, Any]:
        pipelines = self.backend.pipelines
        analysis = VideoAnalysis(pipelines, self.profile, output, video.name, self.backend.options)
        with _bar(video.name) as bar, self.stop.cancelling(analysis.cancel):
            return analysis.run(video, _reporter(bar))

    def _derive(self, output: Path, manifest: dict[str, Any], file: BinaryIO) -> list[str]:
        """Make the files of the formats that are not there yet; no model runs for that."""
        components = {component.name: component for component in FAMILIES.components}
        limits = self.backend.options.limits
        finished = Finished(
            output, manifest, components, file, self.profile.sampling, limits, self.stop.check
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


def _all(videos: Sequence[Entry], analyzer: _Analyzer, output: Path, jobs: int, *, as_json: bool) -> int:
    """Print every video's line, in the order of the videos, and return the exit code.

    A video that another process works on is no failure.
    """
    statuses = set()

    def tell(outcome: Outcome) -> None:
        statuses.add(outcome.status)
        with tqdm.external_write_mode(sys.stdout):  # no bar is drawn into the line
            print(json.dumps(asdict(outcome)) if as_json else outcome.line(), flush=True)

    def one(video: Entry) -> Outcome:
        return analyzer.one(video, output / video.name)

    run_in_order(videos, lambda video: video.name, one, tell, jobs, analyzer.stop)
    if analyzer.stop.requested:
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
    """A bar of its own for each video that is under way, where somebody watches."""
    return tqdm(desc=name, unit=" frames", file=sys.stderr, leave=False, disable=not sys.stderr.isatty())


def _reporter(bar: Any) -> Report:
    def report(progress: Progress) -> None:
        if bar.total is None and progress.expected is not None:
            bar.total = progress.expected
            bar.update(progress.resumed)
        bar.update(1)

    return report
