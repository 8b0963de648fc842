"""Pixels into a branch's square."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.vision.letterbox import Letterbox

PAD = 114
# What resizes here, as an answer's provenance names it.
LIBRARY, VERSION, FILTER = "opencv", cv2.__version__, "linear"
_UNCHANGED = (1.0, 1.0, 1.0)


def letterbox_into(
    rgb: NDArray[np.uint8],
    geometry: Letterbox,
    images: NDArray[np.float32],
    workspace: MutableMapping[str, Any],
    pad: int = PAD,
    scale: float = 255.0,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> None:
    """Write the letterboxed frame into a tensor: planar, `(x / scale - mean) / std` per channel.

    Args:
        rgb: `[height, width, 3]` uint8.
        geometry: where the frame lies.
        images: `[1, 3, size, size]` float32, every element is written.
        workspace: belongs to `images`: keeps buffers between calls (the padding is written again only when
            the geometry changes).
        pad: the grey level around the frame.
        scale: divisor of a grey level.
        mean: of each channel, after the division.
        std: of each channel, likewise; the grey level around the frame goes through all three.
    """
    shifted = any(mean) or tuple(std) != _UNCHANGED
    if workspace.get("geometry") != geometry:
        workspace["geometry"] = None  # half-written until all is in place
        for plane, m, s in zip(images[0], mean, std, strict=True):
            plane.fill((np.float32(pad) / np.float32(scale) - np.float32(m)) / np.float32(s))
        shape = (geometry.new_height, geometry.new_width)
        workspace["resized"] = np.empty((*shape, 3), dtype=np.uint8)
        workspace["planes"] = [np.empty(shape, dtype=np.uint8) for _ in range(3)]
        workspace["views"] = [_inner(plane, geometry) for plane in images[0]]
        workspace["geometry"] = geometry
    resized, planes = workspace["resized"], workspace["planes"]
    if (geometry.new_width, geometry.new_height) == (geometry.width, geometry.height):
        resized = rgb
    else:
        _place(rgb, geometry, resized)
    cv2.split(resized, planes)
    for plane, view in zip(planes, workspace["views"], strict=True):
        np.divide(plane, np.float32(scale), out=view)
    if shifted:
        for view, m, s in zip(workspace["views"], mean, std, strict=True):
            np.subtract(view, np.float32(m), out=view)
            np.divide(view, np.float32(s), out=view)


def letterbox_pixels_into(
    rgb: NDArray[np.uint8],
    geometry: Letterbox,
    pixels: NDArray[np.uint8],
    workspace: MutableMapping[str, Any],
    pad: int = PAD,
) -> None:
    """Write the letterboxed frame into a tensor of pixels: what `letterbox_into` writes, before planes and division.

    Args:
        rgb: `[height, width, 3]` uint8.
        geometry: where the frame lies.
        pixels: `[1, size, size, 3]` uint8, every element is written.
        workspace: belongs to `pixels`, see `letterbox_into`.
        pad: the grey level around the frame.
    """
    if workspace.get("geometry") != geometry:
        workspace["geometry"] = None  # half-written until all is in place
        pixels.fill(pad)
        workspace["inner"] = _inner(pixels[0], geometry)
        workspace["geometry"] = geometry
    _place(rgb, geometry, workspace["inner"])


def _inner(square: NDArray[Any], geometry: Letterbox) -> NDArray[Any]:
    """The view of a square `[size, size, ...]` in which the frame lies."""
    bottom, right = geometry.top + geometry.new_height, geometry.left + geometry.new_width
    return square[geometry.top : bottom, geometry.left : right]


def _place(rgb: NDArray[np.uint8], geometry: Letterbox, target: NDArray[np.uint8]) -> None:
    size = (geometry.new_width, geometry.new_height)
    if size == (geometry.width, geometry.height):
        target[:] = rgb
    else:
        cv2.resize(rgb, size, dst=target, interpolation=cv2.INTER_LINEAR)  # rows may lie apart
