"""Shared parts of tests of whole videos: pipelines over an engine, a profile, a video of known contents."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.families import FAMILIES
from app.main import create_engine, create_pipelines
from app.metrics import Metrics
from app.pipelines.pipeline_set import PipelineSet
from app.settings import Settings
from app.videos.analysis import Input
from app.videos.profile import Profile
from app.videos.profile_documents import ProfileReader
from routing.policy import Readiness
from support import videos
from support.models.repository import CATALOGUE
from support.servers.gateway import scene

PROFILES = ProfileReader(FAMILIES.components)
EVERYTHING = """
name: everything
components:
  core_clip: {prompts: {words: [a cat, a dog, a cat]}}
  core_depth_midas: {previews: 3, maps: true}
  core_optical_flow: {}
  core_object_detections: {classes: [person, bicycle, car]}
  places365: {k: 3}
"""
ARTIFACTS = {
    "core_clip/embeddings.npz", "core_depth_midas/depth.npz", "core_optical_flow/flow.npz",
    "core_object_detections/detections.npz", "places365/places.npz",
}  # fmt: skip


def profile(sampling: str = "", text: str = EVERYTHING) -> Profile:
    return PROFILES.parse(f"{text}\nsampling: {{{sampling}}}\n")


def patches(path: Path, frames: int = 12, **how: Any) -> Path:
    """A grey video, 320 x 256: a red patch stands still, a green one is there in the second half."""
    pictures = (
        scene(320, 256, (0, 64, 64, 64), *(((1, 192, 128, 64),) if number >= frames // 2 else ()))
        for number in range(frames)
    )
    return videos.write(path, pictures, **how)


@contextlib.contextmanager
def pipeline_set(repository: Path, **settings: Any) -> Iterator[PipelineSet]:
    """The pipelines over an engine that has loaded what it will load."""
    defaults = {"repository": repository, "manifest": None, "variant": "n", "embedded_threads": 1}
    chosen = Settings(**{**defaults, **settings})
    engine = create_engine(chosen, CATALOGUE)
    try:
        while any(engine.ready()[name].readiness is Readiness.LOADING for name in CATALOGUE.branches):
            time.sleep(0.02)
        yield create_pipelines(chosen, CATALOGUE, engine, Metrics())
    finally:
        engine.close()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Input]:
    """A video as the analysis takes it."""
    data = path.read_bytes()
    with path.open("rb") as file:
        yield Input(file, path.name, len(data), hashlib.sha256(data).hexdigest())


def arrays(source: Path | bytes) -> dict[str, np.ndarray]:
    """An artefact, read without pickle."""
    with np.load(source if isinstance(source, Path) else io.BytesIO(source), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def numbers(output: Path) -> dict[str, np.ndarray]:
    """Every array of every artefact of an output, but for what says when it was made."""
    found = {}
    for path in sorted(output.rglob("*.npz")):
        for name, array in arrays(path).items():
            if name != "meta_json":
                found[f"{path.parent.name}/{name}"] = array
    return found


def same_numbers(one: Path, other: Path) -> bool:
    """Return whether two outputs hold the same arrays, to the bit."""
    first, second = numbers(one), numbers(other)
    return list(first) == list(second) and all(
        array.dtype == second[name].dtype
        and np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f")
        for name, array in first.items()
    )
