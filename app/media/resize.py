"""A frame into a branch's square of raw pixels: stretched, or its middle cut out; and maps back to a frame's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from app.media.resizers.base import Axis, Resizer

Fit = Literal["crop", "stretch"]


def square_into(
    resizer: Resizer,
    rgb: NDArray[np.uint8],
    target: NDArray[np.uint8],
    fit: Fit,
    interpolation: str,
    crop_ratio: float = 1.0,
) -> None:
    """Write the frame into a square.

    Args:
        resizer: of the service.
        rgb: `[height, width, 3]` uint8.
        target: `[size, size, 3]` uint8, C-contiguous, such as a lease's input; every element is written.
        fit: `stretch` resizes each axis on its own; `crop` brings the shorter side to `size / crop_ratio`, keeps the
            aspect ratio (the longer side cut to whole pixels), and takes the middle.
        interpolation: `bicubic` or `linear`, see `resizers.base.FILTERS`.
        crop_ratio: the part of the shorter side that the square shows.
    """
    height, width = rgb.shape[:2]
    columns, rows = shown(width, height, len(target), fit, crop_ratio)
    if columns.copied and rows.copied:
        target[:] = rgb[rows.pixels, columns.pixels]
    else:
        resizer.resize_into(rgb, columns, rows, interpolation, target)


def shown(width: int, height: int, size: int, fit: Fit, crop_ratio: float = 1.0) -> tuple[Axis, Axis]:
    """The columns and rows of a frame that its square shows; see `square_into`."""
    if fit == "stretch":
        return Axis(width, 0.0, float(width), size), Axis(height, 0.0, float(height), size)
    short = shortest_side(size, fit, crop_ratio)
    across, down = (
        (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    )
    return _middle(width, across, size), _middle(height, down, size)


def shortest_side(size: int, fit: Fit, crop_ratio: float = 1.0) -> int:
    """Length of the shorter side of the frame of which a square of `size` is cut, or of the square itself."""
    return size if fit == "stretch" else round(size / crop_ratio)


def _middle(length: int, resized: int, size: int) -> Axis:
    """The part of an axis of `length` pixels that the middle `size` of its `resized` pixels show."""
    first, scale = round((resized - size) / 2), length / resized
    return Axis(length, first * scale, min(length, (first + size) * scale), size)


def normalized_into(
    square: NDArray[np.uint8],
    planes: NDArray[np.float32],
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write a square as models take it that normalise nothing themselves: planar, `(x / scale - mean) / std`.

    Args:
        square: `[size, size, 3]` uint8.
        planes: `[3, size, size]` float32, every element is written.
        scale: divisor of a level.
        mean: of each channel, after the division.
        std: of each channel, likewise.
    """
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        np.divide(square[..., channel], np.float32(scale), out=planes[channel])
        planes[channel] -= np.float32(m)
        planes[channel] /= np.float32(s)


def resize_map(
    values: NDArray[np.float32], width: int, height: int, interpolation: str = "bicubic"
) -> NDArray[np.float32]:
    """A map of numbers `[S, S]` or `[C, S, S]` at the source's size.

    Args:
        values: float32.
        width: in pixels.
        height: in pixels.
        interpolation: `bicubic` (what DPT's post-processing does) or `linear`.

    Returns:
        `[height, width]` or `[C, height, width]` float32, pixel centres aligned as torch's `align_corners=False`;
        `values` itself where it has that size already.
    """
    if values.shape[-2:] == (height, width):
        return values
    mode = cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR
    if values.ndim == 2:
        return np.asarray(cv2.resize(values, (width, height), interpolation=mode), np.float32)
    return np.stack([resize_map(plane, width, height, interpolation) for plane in values])
