"""`gateway analyze`: videos through a profile, from the shell."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app import profiles
from app.commands.render import Annotator
from app.errors import GatewayError
from app.main import analysis_options, create_engine, create_suite
from app.media.video_writer import VideoWriter
from app.metrics import Metrics
from app.pipelines.analysis import Input, Observer, Options, Progress, Report, VideoAnalysis
from app.pipelines.profile import Profile
from app.pipelines.suite import Suite
from app.settings import Settings, environment
from routing import catalogue as catalogues
from routing.policy import Readiness

SUFFIXES = {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi"}
_FAMILIES = {
    "core_clip": ("clip_image", "clip_text"),
    "core_depth_midas": ("depth",),
    "core_optical_flow": ("flow",),
    "core_object_detections": ("detect",),
    "places365": ("places",),
}
OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """One video's line. `status`: ok, partial, skipped, busy, failed or interrupted."""

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
    try:
        profile = profiles.load(parsed.profile_path, environment(), sys.maxsize)
        videos = found_videos(parsed.video_path)
        settings = _settings(parsed, profile)
        profiles.check_prompts(profile, settings.max_prompts)
        with _suite(settings) as suite:
            options = analysis_options(settings)
            analyzer = _Analyzer(suite, profile, options, force=parsed.force, render=parsed.render)
            return _all(videos, analyzer, parsed.output, as_json=parsed.json)
    except (GatewayError, RuntimeError) as error:
        print(f"gateway analyze: {error}", file=sys.stderr)
        return USAGE


def found_videos(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The videos, and each one's folder below the output.

    Raises:
        RuntimeError: there are none, one isn't there, or two would share a folder.
    """
    videos: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            videos += [(video, video.relative_to(path)) for video in inside]
        elif path.suffix == ".txt" and path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            listed = [path.parent / line for line in lines if line and not line.startswith("#")]
            videos += [(video, Path(video.name)) for video in listed]
        else:
            videos.append((path, Path(path.name)))
    missing = [str(video) for video, _ in videos if not video.is_file()]
    if missing or not videos:
        raise RuntimeError(f"no such video: {', '.join(missing)}" if missing else "there is no video")
    counts = Counter(str(name) for _, name in videos)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise RuntimeError(f"several videos are called {', '.join(twice)}; analyse their folders one by one")
    return videos


def _settings(parsed: argparse.Namespace, profile: Profile) -> Settings:
    """What the command line says, else the profile, else the environment; only what the profile needs is loaded."""
    given: dict[str, Any] = {"repository": parsed.repository, "models": ",".join(_branches(profile))}
    if profile.engine is not None:
        given |= {"engine": profile.engine.kind, "triton_url": profile.engine.triton_url}
    if parsed.engine or parsed.triton_url:
        given["engine"] = parsed.engine or "triton"
        given["triton_url"] = parsed.triton_url or given.get("triton_url")
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _branches(profile: Profile) -> list[str]:
    wanted = [name for name in _FAMILIES if getattr(profile.components, name) is not None]
    families = {family for name in wanted for family in _FAMILIES[name]}
    return [branch.name for branch in catalogues.load().branches.values() if branch.family in families]


@contextlib.contextmanager
def _suite(settings: Settings) -> Iterator[Suite]:
    """The pipelines over the engine, once it has loaded what it will load."""
    catalogue = catalogues.load()
    engine = create_engine(settings, catalogue)
    try:
        while any(engine.ready()[name].readiness is Readiness.LOADING for name in catalogue.branches):
            time.sleep(0.05)
        yield create_suite(settings, catalogue, engine, Metrics())
    finally:
        engine.close()


@dataclass(frozen=True, slots=True)
class _Analyzer:
    """Runs videos one after another."""

    suite: Suite
    profile: Profile
    options: Options
    force: bool
    render: bool

    def one(self, video: Path, output: Path) -> Outcome:
        """One video; whatever is wrong with it is its own outcome."""
        started = time.monotonic()
        said = (str(video), str(output))
        try:
            with _locked(output) as mine:
                if not mine:
                    return Outcome("busy", *said, detail="another process is at it")
                status, manifest = self._run(video, output)
        except KeyboardInterrupt:
            return Outcome(
                "interrupted", *said, detail="what is done is kept; run the command again to go on"
            )
        except GatewayError as error:
            return Outcome("failed", *said, detail=f"{error.code}: {error.detail}")
        except OSError as error:
            return Outcome("failed", *said, detail=str(error))
        fault = manifest["fault"]
        detail = None if fault is None else f"{fault['code']}: {fault['detail']}"
        seconds = round(time.monotonic() - started, 3)
        return Outcome(status, *said, manifest["frames"]["sampled"], seconds, detail)

    def _run(self, video: Path, output: Path) -> tuple[str, dict[str, Any]]:
        annotated = output / "annotated.mp4"
        with video.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            given = Input(file, video.name, video.stat().st_size, digest)
            if not self.force and (annotated.exists() or not self.render):
                done = self._analysis(output, video.name).done(given)
                if done is not None:
                    return "skipped", done
            with self._observer(annotated) as observer, _bar(video.name) as bar:
                manifest = self._analysis(output, video.name, observer).run(given, _reporter(bar))
        return manifest["status"], manifest

    def _analysis(self, output: Path, name: str, observer: Observer | None = None) -> VideoAnalysis:
        return VideoAnalysis(self.suite, self.profile, output, name, self.options, observer)

    @contextlib.contextmanager
    def _observer(self, path: Path) -> Iterator[Observer | None]:
        if not self.render:
            yield None
            return
        with VideoWriter(path, self.profile.sampling.fps or 10.0) as writer:
            yield Annotator(writer)


def _all(videos: Sequence[tuple[Path, Path]], analyzer: _Analyzer, output: Path, *, as_json: bool) -> int:
    """Every video's line; answers the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    statuses = set()
    for video, name in videos:
        outcome = analyzer.one(video, output / name)
        print(json.dumps(asdict(outcome)) if as_json else outcome.line(), flush=True)
        statuses.add(outcome.status)
        if outcome.status == "interrupted":
            return INTERRUPTED
    if statuses & {"failed", "busy"}:
        return FAILED
    return PARTIAL if "partial" in statuses else OK


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[bool]:
    """Whether the folder is ours while this lasts: two processes may run over the same list."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".lock"
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who finished meanwhile took the file away, and a lock on what has no name locks nobody out.
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
