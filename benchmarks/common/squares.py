"""The fastest way that we know to bring a frame into a branch's square with the filter of the reference processor.

Independent of `app.media`, so that the limit does not change with the code that is compared with it: fast_image_resize
(`cykooz-resizer`) where there is a wheel of it, Pillow elsewhere. Both enlarge the filter with the scale, so shrinking
does not alias.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.catalogue import Family

try:
    from cykooz_resizer import rust_lib
except ImportError:  # no wheel for this platform
    rust_lib = None

LIBRARY = "Pillow" if rust_lib is None else "cykooz-resizer"
_CONVOLUTION, _U8X3 = 2, 3
_FAST = {"linear": 2, "bicubic": 3}
_PILLOW = {"linear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_NAMES = {"linear": "bilinear", "bicubic": "bicubic (Catmull-Rom)"}
Box = tuple[float, float, float, float]
Resize = Callable[[NDArray[np.uint8], Box, NDArray[np.uint8]], None]


def filter_of(family: Family) -> str:
    """The filter of a family's reference processor, in words."""
    prepare = family.prepare
    assert prepare is not None
    if prepare.fit == "letterbox":
        return f"letterbox, {_NAMES[prepare.interpolation]} without antialiasing, as OpenCV has it"
    fit = "the middle cut out" if prepare.fit == "crop" else "stretched"
    return f"{fit}, {_NAMES[prepare.interpolation]}, antialiased"


class Squares:
    """Fits frames into squares of one size; keeps its buffers, so each thread needs its own."""

    def __init__(self, size: int, family: Family) -> None:
        assert family.prepare is not None
        self._size, self._prepare = size, family.prepare
        make = _pillow if rust_lib is None else _fast
        self._resize = make(size, self._prepare.interpolation)

    def fill(self, rgb: NDArray[np.uint8], square: NDArray[np.uint8]) -> None:
        """Write `[height, width, 3]` into `[size, size, 3]`, both uint8."""
        height, width = rgb.shape[:2]
        self._resize(rgb, self._box(width, height), square)

    def _box(self, width: int, height: int) -> Box:
        """Left, top, width and height of what the square shows, in the frame's pixels."""
        if self._prepare.fit == "stretch":
            return 0, 0, width, height
        short = round(self._size / self._prepare.crop_ratio)
        if width <= height:
            across, down = short, int(short * height / width)
        else:
            across, down = int(short * width / height), short
        x, y = width / across, height / down
        left, top = round((across - self._size) / 2), round((down - self._size) / 2)
        return left * x, top * y, self._size * x, self._size * y


def _fast(size: int, interpolation: str) -> Resize:
    """One call in Rust; the frame is copied once, because the library takes only `bytes`."""
    resizer = rust_lib.RustResizer()
    target = rust_lib.Image(size, size, _U8X3, None)
    plain = rust_lib.RustResizeOptions().set_resize_alg(_CONVOLUTION, _FAST[interpolation], 2)
    plain = plain.set_use_alpha(v=False)

    def resize(rgb: NDArray[np.uint8], box: Box, square: NDArray[np.uint8]) -> None:
        height, width = rgb.shape[:2]
        frame = rust_lib.Image(width, height, _U8X3, rgb.tobytes())
        resizer.resize(frame, target, plain.set_crop_box(*box))
        square[:] = np.frombuffer(target.buffer(), np.uint8).reshape(square.shape)

    return resize


def _pillow(size: int, interpolation: str) -> Resize:
    resample = _PILLOW[interpolation]

    def resize(rgb: NDArray[np.uint8], box: Box, square: NDArray[np.uint8]) -> None:
        left, top, width, height = box
        corners = (left, top, left + width, top + height)
        square[:] = np.asarray(Image.fromarray(rgb).resize((size, size), resample, corners))

    return resize
