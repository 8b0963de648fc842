"""Letterbox geometry: a frame inside a square, aspect ratio kept, never scaled up, padded evenly.

The rounding is that of Ultralytics' `LetterBox(auto=False, scaleup=False, center=True)`, so that the pixels
that `app.media.fit` makes of it are identical to the reference's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Placement of a `width` x `height` frame in a `size` x `size` square, in pixels.

    The frame is resized by `scale` (at most 1) to `new_width` x `new_height` and placed at `left`, `top`;
    the rest is padding.
    """

    width: int
    height: int
    size: int
    scale: float
    new_width: int
    new_height: int
    left: int
    top: int

    @classmethod
    @functools.lru_cache(1024)
    def fit(cls, width: int, height: int, size: int) -> Letterbox:
        """Geometry for a frame of `width` x `height` pixels (both at least 1).

        A side never shrinks to less than 1 pixel, however extreme the aspect ratio.
        """
        scale = min(size / height, size / width, 1.0)
        new_width = max(1, round(width * scale))
        new_height = max(1, round(height * scale))
        left = round((size - new_width) / 2 - 0.1)
        top = round((size - new_height) / 2 - 0.1)
        return cls(width, height, size, scale, new_width, new_height, left, top)

    def undo(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes from letterbox pixels to source pixels.

        Args:
            boxes: `(n, 4)` float32 xyxy in pixels of the square.

        Returns:
            `(n, 4)` float32 xyxy in pixels of the source, clipped to `[0, width] x [0, height]`; a new array.
        """
        # Each axis has its own ratio: the resized sides were rounded one by one.
        offset = np.array([self.left, self.top] * 2, dtype=np.float32)
        inner = np.array([self.new_width, self.new_height] * 2, dtype=np.float32)
        limit = np.array([self.width, self.height] * 2, dtype=np.float32)
        source: NDArray[np.float32] = boxes - offset
        np.maximum(source, 0, out=source)
        np.minimum(source, inner, out=source)
        source *= limit / inner
        np.minimum(source, limit, out=source)
        return source
