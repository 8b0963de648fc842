"""Arrays to bytes: npy, 16-bit PNG, .flo, and PNG or JPEG to look at."""

from __future__ import annotations

import functools
import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed, InvalidParameter

_FLO_MAGIC = 202021.25
_JPEG_QUALITY = 90
_LONGEST_JPEG = 65_500  # libjpeg's JPEG_MAX_DIMENSION


def npy_bytes(array: NDArray[Any]) -> bytes:
    """One array of numbers in NumPy's format, version 1.0: one copy of what may be megabytes."""
    array = np.ascontiguousarray(array)
    return b"".join((_npy_header(array.dtype.str, array.shape), array.data))


@functools.lru_cache(maxsize=64)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def flo_bytes(flow: NDArray[np.float32]) -> bytes:
    """Middlebury's `.flo`: magic, width, height (little-endian), then x and y of every pixel, row by row.

    Args:
        flow: `[2, H, W]` float32.
    """
    height, width = flow.shape[1:]
    head = np.array([_FLO_MAGIC], "<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    return head + np.ascontiguousarray(flow.transpose(1, 2, 0), "<f4").tobytes()


def png16_bytes(values: NDArray[np.float32]) -> tuple[bytes, float, float]:
    """A map `[H, W]` as 16-bit grey: `value = least + level / 65535 * (greatest - least)`.

    Returns:
        The PNG, the least and the greatest value.
    """
    least, greatest = float(values.min()), float(values.max())
    span = greatest - least
    levels = (values - least) * (65535 / span if span > 0 else 0)
    return _png(np.round(levels).astype(np.uint16)), least, greatest


def colour_bytes(values: NDArray[np.float32], *, jpeg: bool = False) -> bytes:
    """A map `[H, W]` to look at: dark is least, bright is greatest (the perceptually even map `inferno`)."""
    least, greatest = float(values.min()), float(values.max())
    span = greatest - least
    levels = ((values - least) * (255 / span if span > 0 else 0)).astype(np.uint8)
    return (_jpeg if jpeg else _png)(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO))


def rgb_bytes(rgb: NDArray[np.uint8], *, jpeg: bool = False) -> bytes:
    """`[H, W, 3]` uint8 RGB as PNG, or as JPEG.

    Raises:
        InvalidParameter: a side is too long for a JPEG.
    """
    return (_jpeg if jpeg else _png)(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def _jpeg(pixels: NDArray[Any]) -> bytes:
    if max(pixels.shape[:2]) > _LONGEST_JPEG:
        raise InvalidParameter(f"a side of a JPEG has at most {_LONGEST_JPEG} pixels; ask for image/png")
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise InferenceFailed("the answer can't be written as JPEG")
    return bytes(data)


def _png(pixels: NDArray[Any]) -> bytes:
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise InferenceFailed("the answer can't be written as PNG")
    return bytes(data)
