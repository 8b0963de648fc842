"""Crops and stretches, placed as the reference processors place them, by each resizer."""

from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import psutil
import pytest
from golden.pictures import BY_NAME, PROJECT, default_folders, digest
from numpy.typing import NDArray
from PIL import Image
from support.paths import ROOT

from app.media.resize import Fit, square_into
from app.media.resizers.base import Resizer
from app.media.resizers.choice import resizer_named
from app.media.resizers.pillow import PillowResizer

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}
PILLOW = PillowResizer()
FAST = resizer_named("auto")
SQUARES = json.loads((PROJECT / "tests" / "helpers" / "golden" / "squares.json").read_text(encoding="utf-8"))[
    "squares"
]
PHOTO = np.asarray(Image.open(ROOT / "docs" / "astronaut.jpg"))
RESIZERS = [
    pytest.param(PILLOW, id="pillow"),
    pytest.param(FAST, id="fast", marks=pytest.mark.skipif(FAST.library == "pillow", reason="no wheel here")),
]
SIZE = 224


def square(
    resizer: Resizer, rgb: NDArray[np.uint8], fit: Fit, interpolation: str, ratio: float = 1.0
) -> NDArray[np.int64]:
    """Fill a target that held other numbers before."""
    target = np.full((SIZE, SIZE, 3), 77, np.uint8)
    square_into(resizer, rgb, target, fit, interpolation, ratio)
    return target.astype(np.int64)


def reference(rgb: NDArray[np.uint8], fit: Fit, interpolation: str, ratio: float) -> NDArray[np.uint8]:
    """Torchvision's `Resize(short)` and `CenterCrop(SIZE)` on a Pillow image, over the whole frame; or a stretch."""
    height, width = rgb.shape[:2]
    image = Image.fromarray(rgb)
    if fit == "stretch":
        return np.asarray(image.resize((SIZE, SIZE), FILTERS[interpolation]))
    short = round(SIZE / ratio)
    long = int(short * max(width, height) / min(width, height))
    resized = image.resize((short, long) if width <= height else (long, short), FILTERS[interpolation])
    left, top = round((resized.width - SIZE) / 2.0), round((resized.height - SIZE) / 2.0)
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def photo(width: int, height: int) -> NDArray[np.uint8]:
    """A photograph of this size, with the noise of a camera."""
    resized = cv2.resize(PHOTO, (width, height), interpolation=cv2.INTER_AREA).astype(np.int64)
    grain = np.random.default_rng(width).integers(-8, 9, resized.shape)
    return np.clip(resized + grain, 0, 255).astype(np.uint8)


# Wide and upright, shrunk and enlarged, along one axis and along both, and longer than any camera's.
SIZES = [
    (640, 480), (480, 640), (300, 1000), (799, 100), (300, SIZE), (256, 256), (96, 64), (101, 2001), (907, 3), (3, 907),
    (6280, 200),
]  # fmt: skip
WAYS: list[tuple[Fit, float]] = [("stretch", 1.0), ("crop", 1.0), ("crop", 0.875)]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("fit", "ratio"), WAYS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pillow_gives_the_reference_s_pixels(
    width: int, height: int, fit: Fit, ratio: float, interpolation: str
) -> None:
    """Every pixel of a stretch; of a crop, which resizes only what it shows, within 2 levels of noise."""
    rgb = noise(width, height)
    difference = np.abs(
        square(PILLOW, rgb, fit, interpolation, ratio) - reference(rgb, fit, interpolation, ratio)
    )
    assert difference.max() <= (0 if fit == "stretch" else 2)
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("fit", "ratio"), WAYS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pictures_are_within_a_third_of_a_level_of_the_reference_s(
    width: int, height: int, fit: Fit, ratio: float, interpolation: str
) -> None:
    """On average, by the resizer of this machine; no pixel of a photograph is far off."""
    rgb = photo(width, height)
    difference = np.abs(
        square(FAST, rgb, fit, interpolation, ratio) - reference(rgb, fit, interpolation, ratio)
    )
    assert difference.mean() < 1 / 3
    assert difference.max() <= 12


@pytest.mark.skipif(FAST.library == "pillow", reason="no wheel here")
@pytest.mark.parametrize("case", SQUARES)
def test_the_fast_one_gives_torchvision_s_pixels(case: str) -> None:
    """Every bit of its antialiased resize of uint8, which the default processors of transformers use."""
    name, size, interpolation = case.split("_")
    target = np.empty((int(size), int(size), 3), np.uint8)
    square_into(FAST, BY_NAME[name].pixels(default_folders()), target, "stretch", interpolation)
    assert digest(target) == SQUARES[case]


@pytest.mark.parametrize("resizer", RESIZERS)
def test_what_needs_no_resizing_keeps_its_pixels(resizer: Resizer) -> None:
    """The frame itself where it has the square's size, and the middle of one whose shorter side has."""
    rgb = noise(300, SIZE)
    np.testing.assert_array_equal(square(resizer, rgb[:, :SIZE].copy(), "stretch", "bicubic"), rgb[:, :SIZE])
    np.testing.assert_array_equal(square(resizer, rgb, "crop", "bicubic"), rgb[:, 38 : 38 + SIZE])


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("shape", [(1, 1_000_000, 3), (1_000_000, 1, 3)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_a_line_costs_no_memory(resizer: Resizer, shape: tuple[int, ...], fit: Fit) -> None:
    """A frame of one row and a million pixels would be 50 billion pixels at the square's height."""
    rgb = np.full(shape, 9, np.uint8)
    before = psutil.Process().memory_info().rss
    assert (square(resizer, rgb, fit, "bicubic") == 9).all()
    assert psutil.Process().memory_info().rss - before < 50_000_000


@pytest.mark.parametrize("resizer", RESIZERS)
def test_many_threads_get_the_pixels_of_one(resizer: Resizer) -> None:
    """No call shares memory with another."""
    frames = [photo(500 + 10 * number, 400) for number in range(8)]
    expected = [square(resizer, rgb, "crop", "bicubic") for rgb in frames]
    found: list[NDArray[np.int64] | None] = [None] * len(frames)

    def run(number: int) -> None:
        for _ in range(5):
            found[number] = square(resizer, frames[number], "crop", "bicubic")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)
