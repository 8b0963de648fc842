"""The tensor that the letterbox writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.letterboxed import letterboxed

from app.media.fit import letterbox_into, letterbox_pixels_into
from app.vision.letterbox import Letterbox

RNG = np.random.default_rng(0)
SIZES = [(200, 100), (640, 480), (1920, 1080), (320, 320), (1, 900), (33, 17), (640, 480)]


def test_the_tensor_is_the_letterboxed_picture_divided_by_255() -> None:
    """Planar, exactly uint8 / 255 in float32, whatever frame stood in the same tensor before."""
    images = np.full((1, 3, 320, 320), np.nan, np.float32)
    workspace: dict[str, Any] = {}
    for width, height in SIZES:
        rgb = RNG.integers(0, 256, (height, width, 3), np.uint8)
        geometry = Letterbox.fit(width, height, 320)
        letterbox_into(rgb, geometry, images, workspace)
        expected = letterboxed(rgb, geometry).transpose(2, 0, 1)[None] / np.float32(255)
        np.testing.assert_array_equal(images, expected)


def test_pixels_are_the_letterboxed_picture() -> None:
    """The same picture before planes and division, whatever frame stood in the same tensor before."""
    pixels = RNG.integers(0, 256, (1, 320, 320, 3), np.uint8)
    workspace: dict[str, Any] = {}
    for width, height in SIZES:
        rgb = RNG.integers(0, 256, (height, width, 3), np.uint8)
        geometry = Letterbox.fit(width, height, 320)
        letterbox_pixels_into(rgb, geometry, pixels, workspace)
        np.testing.assert_array_equal(pixels[0], letterboxed(rgb, geometry))


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (200, 100)])
def test_the_padding_of_pixels_is_written_once_a_geometry(size: tuple[int, int]) -> None:
    """A second frame of the same size touches nothing around it, and a frame of another size all."""
    width, height = size
    pixels, workspace = np.empty((1, 320, 320, 3), np.uint8), dict[str, Any]()
    rgb, geometry = RNG.integers(0, 256, (height, width, 3), np.uint8), Letterbox.fit(width, height, 320)
    letterbox_pixels_into(rgb, geometry, pixels, workspace)
    once = pixels.copy()
    pixels[0, 0, 0] = 7  # in the padding
    letterbox_pixels_into(rgb, geometry, pixels, workspace)
    assert (pixels != once).any(axis=3).sum() == 1
    letterbox_pixels_into(rgb, geometry, pixels, {})
    np.testing.assert_array_equal(pixels, once)


def test_a_small_frame_is_not_scaled_up() -> None:
    """200x100 pixels stand one to one in the middle of the 320 square, grey around them."""
    rgb = RNG.integers(0, 256, (100, 200, 3), np.uint8)
    images = np.empty((1, 3, 320, 320), np.float32)
    letterbox_into(rgb, Letterbox.fit(200, 100, 320), images, {})
    inner = images[0, :, 110:210, 60:260]
    np.testing.assert_array_equal(inner, rgb.transpose(2, 0, 1) / np.float32(255))
    images[0, :, 110:210, 60:260] = np.float32(114) / np.float32(255)
    assert np.unique(images) == pytest.approx([114 / 255])
