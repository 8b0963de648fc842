"""A frame into a branch's square of raw pixels: stretched, or its middle cut out.

Pillow's resampling, which the reference processors (torchvision, transformers) use: its filters grow with the scale,
so that shrinking doesn't alias.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}
# Longer frames are cut before they are resized: what lies outside of the square would only cost memory.
_LONGEST_ASPECT = 8


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
    rgb = _without_ends(rgb)
    height, width = rgb.shape[:2]
    short = round(size / crop_ratio)
    target = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    resized = Image.fromarray(rgb)
    if target != (width, height):
        resized = resized.resize(target, resample)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _without_ends(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    most = _LONGEST_ASPECT * min(height, width)
    top, left = max(0, (height - most) // 2), max(0, (width - most) // 2)
    return np.ascontiguousarray(rgb[top : top + most, left : left + most])


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
