"""One letterboxed picture, written by the code that is served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.media.fit import letterbox_pixels_into
from app.vision.letterbox import Letterbox


def letterboxed(rgb: NDArray[np.uint8], geometry: Letterbox) -> NDArray[np.uint8]:
    """The frame in a new square, `[size, size, 3]`."""
    square = np.empty((geometry.size, geometry.size, 3), np.uint8)
    letterbox_pixels_into(rgb, geometry, square[None], {})
    return square
