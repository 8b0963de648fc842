"""Outputs of bulk runs for tests of what reads them: real artefacts, and rows of the videos."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.bulk.outcomes import Outcome, OutcomeLog
from app.videos.stores.base import ArtifactStore
from support import analyze_command
from support.analysis import patches

BEGAN = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
TWO_COMPONENTS = """name: two
components:
  core_object_detections: {classes: [person, bicycle]}
  core_depth_midas: {}
"""


def at(seconds: float) -> str:
    """A time of a row, so many seconds after the run began."""
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def analysed(folder: Path, repository: Path, frames: dict[str, int], profile: str = TWO_COMPONENTS) -> Path:
    """An output with the artefacts of videos of so many frames, by name, and no rows."""
    folder.mkdir(parents=True, exist_ok=True)
    videos, output = folder / "in", folder / "out"
    for name, count in frames.items():
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        patches(videos / name, count)
    analyze(videos, output, folder, repository, profile)
    return output


def analyze(
    videos: Path, output: Path, folder: Path, repository: Path, profile: str = TWO_COMPONENTS, *more: str
) -> None:
    """Run `gateway analyze` into the place of a bulk run's artefacts."""
    options = analyze_command.options(repository, folder, profile)
    code, rows, err = analyze_command.run(
        "--video-path", videos, "--output", output / "videos", *options, *more
    )
    assert code == 0, (rows, err)


def manifest(output: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "videos" / name / "manifest.json").read_text())
    return document


def outcome(output: Path, name: str, end: float, **changes: Any) -> Outcome:
    """The row of a video that was analysed, so many seconds after the run began."""
    document = manifest(output, name)
    row = Outcome(
        name=name, uri=f"/videos/{name}", state="done", attempts=1, frames=document["frames"]["sampled"],
        seconds=1.5, bytes=document["input"]["bytes"], sha256=document["input"]["sha256"],
        config_hash=document["config_hash"], model_signature=document["model_signature"], run_id="r1",
        worker="w", started_at=at(end - 1.5), finished_at=at(end), id=f"id of {name}",
    )  # fmt: skip
    return replace(row, **changes)


def publish(store: ArtifactStore, run_id: str, *rows: Outcome) -> None:
    """One segment of a run of its own."""
    log = OutcomeLog(store, run_id)
    for row in rows:
        log.add(row)
    log.publish()


def begin(store: ArtifactStore, entries: int | None, **changes: Any) -> None:
    """The document of the command."""
    document = {"run_id": "r1", "profile": "two", "begun_at": at(0), "entries": entries, "shard": None}
    store.put("run/run.json", json.dumps({**document, **changes}).encode())


def copied(output: Path, name: str, other: str) -> None:
    """The same artefacts for another video: many videos in little time."""
    shutil.copytree(output / "videos" / name, output / "videos" / other)
