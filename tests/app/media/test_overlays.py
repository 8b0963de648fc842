"""Boxes are drawn where they are."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from app.media.overlays import draw_boxes, png_bytes


def test_edges_are_drawn_and_the_inside_is_left_alone() -> None:
    """The outline lies on the box's edge; the frame inside and far outside keeps its pixels."""
    rgb = np.zeros((200, 300, 3), np.uint8)
    picture = draw_boxes(
        rgb, np.array([[100, 80, 200, 160]], np.float32), np.array([0], np.int32), ["cat 0.90"]
    )
    drawn = np.asarray(Image.open(io.BytesIO(png_bytes(picture))))
    assert drawn.shape == rgb.shape
    assert drawn[120, 100].any()
    assert drawn[120, 200].any()
    assert drawn[160, 150].any()
    assert not drawn[120, 150].any()
    assert not drawn[190, 290].any()
    assert not rgb.any()


def test_the_colour_tells_the_class() -> None:
    """Outlines are of the class's colour, classes beyond the scheme start over, and the best score lies on top."""
    rgb = np.zeros((100, 300, 3), np.uint8)
    boxes = np.array([[10, 40, 60, 90], [110, 40, 160, 90], [210, 40, 260, 90], [10, 40, 60, 90]], np.float32)
    drawn = np.asarray(draw_boxes(rgb, boxes, np.array([0, 1, 6, 1], np.int32), [""] * 4))
    assert drawn[70, 10].tolist() == [68, 119, 170]
    assert drawn[70, 110].tolist() == [238, 102, 119]
    assert drawn[70, 210].tolist() == [68, 119, 170]


def test_no_boxes_leave_the_frame_as_it_is() -> None:
    """A frame in which nothing was found comes back pixel for pixel."""
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    picture = draw_boxes(rgb, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), [])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), rgb)


def test_boxes_at_and_beyond_the_border_are_drawn_without_complaint() -> None:
    """Empty, inverted and outer boxes don't fail."""
    boxes = np.array([[0, 0, 0, 0], [5, 5, 2, 2], [-50, -50, 900, 900], [299, 199, 300, 200]], np.float32)
    draw_boxes(np.zeros((200, 300, 3), np.uint8), boxes, np.arange(4, dtype=np.int32), ["a"] * 4)
