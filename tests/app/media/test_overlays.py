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


def test_boxes_at_and_beyond_the_border_are_drawn_without_complaint() -> None:
    """Empty, inverted and outer boxes don't fail."""
    boxes = np.array([[0, 0, 0, 0], [5, 5, 2, 2], [-50, -50, 900, 900], [299, 199, 300, 200]], np.float32)
    draw_boxes(np.zeros((200, 300, 3), np.uint8), boxes, np.arange(4, dtype=np.int32), ["a"] * 4)
