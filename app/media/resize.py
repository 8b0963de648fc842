"""A frame into a branch's square of raw pixels: stretched, or its middle cut out.

Pillow's resampling, which the reference processors (torchvision, transformers) use: its filters grow with the scale,
so that shrinking doesn't alias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}
# Of longer frames only what the square shows is resized: the rest would only cost memory.
_LONGEST_ASPECT = 8
_SUPPORT = 2  # of the widest filter (bicubic), in pixels of the smaller scale


def fit_square(
    rgb: NDArray[np.uint8],
    size: int,
    fit: Literal["crop", "stretch"],
    interpolation: str,
    crop_ratio: float = 1.0,
) -> NDArray[np.uint8]:
    """The frame at `size` x `size`.

    Args:
        rgb: `[height, width, 3]` uint8.
        size: side of the square in pixels.
        fit: `stretch` resizes each axis on its own; `crop` brings the shorter side to `size / crop_ratio`, keeps the
            aspect ratio (the longer side cut to whole pixels), and takes the middle.
        interpolation: `bicubic` or `linear`.
        crop_ratio: the part of the shorter side that the square shows.

    Returns:
        `[size, size, 3]` uint8; the frame itself where it has that size already.
    """
    resample = _FILTERS[interpolation]
    if rgb.shape[:2] == (size, size) and (fit == "stretch" or crop_ratio == 1):
        return rgb
    if fit == "stretch":
        return np.asarray(Image.fromarray(rgb).resize((size, size), resample))
    height, width = rgb.shape[:2]
    short = round(size / crop_ratio)
    target = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if max(width, height) > _LONGEST_ASPECT * min(width, height):
        return _middle(rgb, target, size, resample)
    resized = Image.fromarray(rgb)
    if target != (width, height):
        resized = resized.resize(target, resample)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


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


def _middle(
    rgb: NDArray[np.uint8], target: tuple[int, int], size: int, resample: Image.Resampling
) -> NDArray[np.uint8]:
    """The middle square of the frame at `target` size, without resizing what lies beyond it.

    Pixels are those of resizing all of it and cutting, within 2 levels of 255: Pillow keeps the corners of the part in
    single precision. Its passes come in the order in which it would take them for the whole frame.
    """
    height, width = rgb.shape[:2]
    columns, (left, right) = _shown(width, target[0], size)
    rows, (top, bottom) = _shown(height, target[1], size)
    image = Image.fromarray(np.ascontiguousarray(rgb[rows, columns]))
    if target[1] < height and height > width:
        image = image.resize((image.width, size), resample, (0, top, image.width, bottom))
        return np.asarray(image.resize((size, size), resample, (left, 0, right, size)))
    image = image.resize((size, image.height), resample, (left, 0, right, image.height))
    return np.asarray(image.resize((size, size), resample, (0, top, size, bottom)))


def _shown(length: int, target: int, size: int) -> tuple[slice, tuple[float, float]]:
    """The source pixels that an axis of the square needs, and where among them it begins and ends."""
    first, scale = round((target - size) / 2), length / target
    begin, end = first * scale, min(length, (first + size) * scale)
    margin = math.ceil(_SUPPORT * max(1.0, scale)) + 1
    low, high = max(0, math.floor(begin) - margin), min(length, math.ceil(end) + margin)
    return slice(low, high), (begin - low, end - low)


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
