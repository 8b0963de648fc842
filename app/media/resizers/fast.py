"""The crate fast_image_resize through its binding `cykooz-resizer`: Pillow's filters in AVX2, SSE 4.1 or NEON.

All of them compute the same bits, in 16-bit fixed point. The binding reads and writes Pillow's pictures without a copy;
so arrays are wrapped as pictures that share their memory. Such pictures have one channel or four. Down a column that
doesn't matter: a row of RGB is a row of three times as many single levels. Along a row, pixels are widened to four
channels.
"""

from __future__ import annotations

from importlib.metadata import version

import cv2
import numpy as np
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from app.media.resizers.base import Axis, Pixels

_ALGORITHMS = {
    "bicubic": ResizeAlg.convolution(FilterType.catmull_rom),
    "linear": ResizeAlg.convolution(FilterType.bilinear),
}
_RGB = 3


class FastResizer:
    """See the module."""

    library = "cykooz-resizer"
    version = version("cykooz-resizer")

    def resize_into(self, rgb: Pixels, columns: Axis, rows: Axis, interpolation: str, target: Pixels) -> None:
        rgb, algorithm = np.ascontiguousarray(rgb), _ALGORITHMS[interpolation]
        above, beside = rows.pixels, columns.pixels
        part = rgb[above, beside]
        rows, columns = rows.within(above), columns.within(beside)
        if rows.copied:
            _narrow(_along_rows(part, columns, algorithm), target)
        elif columns.copied:
            _down_columns(rgb[above], beside, rows, algorithm, target)
        elif columns.length < columns.size and rows.length > rows.size:
            # The other order would make, of a narrow and high frame, the frame at the width of the square.
            between = np.empty((rows.size, part.shape[1], _RGB), np.uint8)
            _down_columns(rgb[above], beside, rows, algorithm, between)
            _narrow(_along_rows(between, columns, algorithm), target)
        else:
            between = _narrow(_along_rows(part, columns, algorithm))
            _down_columns(between, slice(0, columns.size), rows, algorithm, target)


def _down_columns(rgb: Pixels, columns: slice, rows: Axis, algorithm: ResizeAlg, target: Pixels) -> None:
    """These columns of `[rows.length, width, 3]` at `[rows.size, columns, 3]`; both C-contiguous."""
    width = (columns.stop - columns.start) * _RGB
    box = CropBox(columns.start * _RGB, rows.begin, width, rows.end - rows.begin)
    options = ResizeOptions(algorithm, use_alpha=False, crop_box=box)
    Resizer().resize_pil(_levels(rgb), _levels(target), options)


def _along_rows(rgb: Pixels, columns: Axis, algorithm: ResizeAlg) -> Pixels:
    """`[height, columns.length, 3]` at `[height, columns.size, 4]`."""
    wide = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), np.uint8)
    found = np.empty((len(rgb), columns.size, 4), np.uint8)
    box = CropBox(columns.begin, 0, columns.end - columns.begin, len(rgb))
    options = ResizeOptions(algorithm, use_alpha=False, crop_box=box)
    Resizer().resize_pil(_quads(wide), _quads(found), options)
    return found


def _narrow(quads: Pixels, target: Pixels | None = None) -> Pixels:
    """Without the fourth channel, in `target` where one is given."""
    return np.asarray(cv2.cvtColor(quads, cv2.COLOR_RGBA2RGB, dst=target), np.uint8)


def _levels(rgb: Pixels) -> Image.Image:
    """A picture of single levels over this memory, three times as wide."""
    return Image.frombuffer("L", (rgb.shape[1] * _RGB, rgb.shape[0]), rgb, "raw", "L", 0, 1)


def _quads(pixels: Pixels) -> Image.Image:
    """A picture of four channels over this memory. Those of CMYK are alike, RGBA's aren't."""
    return Image.frombuffer("CMYK", (pixels.shape[1], pixels.shape[0]), pixels, "raw", "CMYK", 0, 1)
