"""`gateway analyze`: videos through a profile, from the shell."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from app import extras
from app.commands.analysis_backend import Backend, Unusable, settings_of, videos_at_once
from app.commands.video_list import Entry, found_videos
from app.commands.video_threads import Stop, run_in_order
from app.errors import GatewayError
from app.families import FAMILIES
from app.hints import did_you_mean
from app.settings import environment
from app.videos.analysis import Cancelled
from app.videos.analyst import Analyst, Finding
from app.videos.checkpoint import locked
from app.videos.components.detect import DetectComponent
from app.videos.formats.base import Format
from app.videos.formats.derived import FORMATS
from app.videos.names import shown
from app.videos.profile import Profile
from app.videos.profile_documents import ProfileReader, check_prompts
from app.videos.run_state import Progress, Report
from app.videos.stores.base import ArtifactStore, StoreUnusable
from app.videos.stores.folder import FolderStore
from app.videos.stores.opened import open_store
from app.videos.stores.sources import Source

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
        settings = settings_of(parsed, profile)
        check_prompts(profile, settings.max_prompts)
        jobs = videos_at_once(parsed.jobs, settings, videos)
        output, stop = _output(parsed.output), Stop()
        backend = Backend(settings, profile, jobs, stop)
        with (
            stop.on_signals(),
            Analyst(profile, backend, formats=formats, force=parsed.force) as analyst,
            stop.cancelling(analyst.cancel),
        ):
            return _all(videos, _Analyzer(analyst, output, stop), jobs, as_json=parsed.json)
    except Cancelled:  # before the first video
        return INTERRUPTED
    except StoreUnusable as error:
        print(f"gateway analyze: --output: {error.strerror}", file=sys.stderr)
        return USAGE
    except (GatewayError, RuntimeError) as error:
        print(f"gateway analyze: {error}", file=sys.stderr)
        return USAGE


def _output(url: str) -> ArtifactStore:
    """Return the store of all outputs.

    Raises:
        StoreUnusable: it is none, or a bucket that can't be reached.
    """
    store = open_store(url)
    if not isinstance(store, FolderStore):
        try:
            next(store.list(), None)
        except OSError as error:
            raise StoreUnusable(_words(error)) from error
    return store


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
    """Turns each video's result into its line; videos may run at once."""

    analyst: Analyst
    output: ArtifactStore
    stop: Stop

    def one(self, video: Entry) -> Outcome:
        """Analyse one video; its faults become its outcome.

        Raises:
            Cancelled: a stop was requested before it began.
        """
        self.stop.check()
        started = time.monotonic()
        said = (shown(video.uri), shown(_place(self.output, video.name)))
        if video.fault is not None:
            return Outcome("failed", *said, detail=video.fault)
        try:
            sink = self.output.within(video.name)
            with _locked(sink) as mine:
                if not mine:
                    return Outcome("busy", *said, detail="another process analyses it")
                finding = self._run(video, sink)
        except Cancelled:
            return Outcome(
                "interrupted", *said, detail="the results so far are kept; run the command again to resume"
            )
        except Unusable:
            raise
        except Exception as error:  # noqa: BLE001  # a defect is one video's, too
            _log.debug("%s", said[0], exc_info=True)
            return Outcome("failed", *said, detail=_words(error))
        seconds = round(time.monotonic() - started, 3)
        return Outcome(
            finding.status, *said, finding.manifest["frames"]["sampled"], seconds, _detail(finding)
        )

    def _run(self, video: Entry, sink: ArtifactStore) -> Finding:
        name = shown(video.name)
        with _bar(name) as bar:
            return self.analyst.run(Source(name, video.uri), sink, _reporter(bar))


def _detail(finding: Finding) -> str | None:
    """Return the fault of a partial result, and which files were made of artefacts of an earlier run."""
    fault = finding.manifest["fault"]
    words = [] if fault is None else [f"{fault['code']}: {fault['detail']}"]
    if finding.made:
        words.append(f"made {', '.join(finding.made)} from the results of an earlier run")
    return "; ".join(words) or None


def _words(error: Exception) -> str:
    if isinstance(error, GatewayError):
        return f"{error.code}: {error.detail}"
    if isinstance(error, OSError):
        return error.strerror or "can't be read or written"
    return f"internal_error: {type(error).__name__}"


def _all(videos: Sequence[Entry], analyzer: _Analyzer, jobs: int, *, as_json: bool) -> int:
    """Print every video's line, in the order of the videos, and return the exit code.

    A video that another process works on is no failure.
    """
    statuses = set()

    def tell(outcome: Outcome) -> None:
        statuses.add(outcome.status)
        with tqdm.external_write_mode(sys.stdout):  # no bar is drawn into the line
            print(json.dumps(asdict(outcome)) if as_json else outcome.line(), flush=True)

    run_in_order(videos, lambda video: video.name, analyzer.one, tell, jobs, analyzer.stop)
    if analyzer.stop.requested:
        return INTERRUPTED
    if "failed" in statuses:
        return FAILED
    return PARTIAL if "partial" in statuses else OK


def _place(output: ArtifactStore, name: str) -> str:
    """Return where the artefacts of a video go, for people."""
    return str(output.folder / name) if isinstance(output, FolderStore) else f"{output.url}/{name}"


def _locked(sink: ArtifactStore) -> contextlib.AbstractContextManager[bool]:
    """Lock a folder against other processes: two may run over the same list. A bucket has no locks."""
    return locked(sink.folder / ".lock") if isinstance(sink, FolderStore) else contextlib.nullcontext(True)


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
