"""Crops and stretches, placed as the reference processors place them."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.media.resize import fit_square

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}


def reference(rgb: NDArray[np.uint8], size: int, interpolation: str, ratio: float) -> NDArray[np.uint8]:
    """Torchvision's `Resize(short)` and `CenterCrop(size)` on a Pillow image, over the whole frame."""
    height, width = rgb.shape[:2]
    short = round(size / ratio)
    long = int(short * max(width, height) / min(width, height))
    resized = Image.fromarray(rgb).resize(
        (short, long) if width <= height else (long, short), FILTERS[interpolation]
    )
    left, top = round((resized.width - size) / 2.0), round((resized.height - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


LONG = [
    (1000, 100),
    (100, 1000),
    (2001, 101),
    (101, 2001),
    (907, 3),
    (3, 907),
    (6280, 200),
    (200, 6280),
    (4999, 555),
]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("ratio", [1.0, 0.875])
@pytest.mark.parametrize(("width", "height"), LONG)
def test_a_long_frame_s_crop_lies_where_the_reference_s_does(
    width: int, height: int, ratio: float, interpolation: str
) -> None:
    """Within 2 levels of noise, for frames longer than 8:1, upright and across, shrunk and enlarged."""
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    found = fit_square(rgb, 224, "crop", interpolation, ratio).astype(int)
    difference = np.abs(found - reference(rgb, 224, interpolation, ratio))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (799, 100), (100, 799), (224, 224)])
def test_other_crops_are_the_reference_s(width: int, height: int) -> None:
    """Up to 8:1 every pixel is equal."""
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(
        fit_square(rgb, 224, "crop", "bicubic", 0.875), reference(rgb, 224, "bicubic", 0.875)
    )


def test_a_line_costs_no_memory() -> None:
    """A frame of one row and a million pixels would be 50 billion pixels at the square's height."""
    rgb = np.zeros((1, 1_000_000, 3), np.uint8)
    before = psutil.Process().memory_info().rss
    assert fit_square(rgb, 224, "crop", "bicubic").shape == (224, 224, 3)
    assert psutil.Process().memory_info().rss - before < 50_000_000
