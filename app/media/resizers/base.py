"""The interface of resizers, and the part of a frame that a square shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The filters of the reference processors, as an answer's provenance names them. Both grow with the scale, so that
# shrinking doesn't alias; bicubic is Catmull-Rom's (a = -0.5).
FILTERS: Mapping[str, str] = {"bicubic": "bicubic, antialiased", "linear": "linear, antialiased"}
Pixels = NDArray[np.uint8]
_SUPPORT = 2  # of the widest filter (bicubic), in pixels of the smaller scale


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a square: what lies between `begin` and `end`, of `length` source pixels, becomes `size` pixels."""

    length: int
    begin: float
    end: float
    size: int

    @property
    def whole(self) -> bool:
        return self.begin == 0 and self.end == self.length

    @property
    def copied(self) -> bool:
        """Return whether pixels of this axis stay as they are."""
        return self.end - self.begin == self.size and self.begin.is_integer()

    @property
    def pixels(self) -> slice:
        """The source pixels that the filter reads."""
        if self.copied:
            return slice(int(self.begin), int(self.end))
        margin = math.ceil(_SUPPORT * max(1.0, (self.end - self.begin) / self.size)) + 1
        return slice(max(0, math.floor(self.begin) - margin), min(self.length, math.ceil(self.end) + margin))

    def within(self, pixels: slice) -> Axis:
        """The same part, counted from the first of these pixels."""
        return Axis(pixels.stop - pixels.start, self.begin - pixels.start, self.end - pixels.start, self.size)


class Resizer(Protocol):
    """A library and its version, as an answer's provenance names them. Safe to call from many threads.

    A call works on the caller's thread only, and doesn't hold Python's lock (GIL) while it computes.
    """

    library: str
    version: str

    def resize_into(self, rgb: Pixels, columns: Axis, rows: Axis, interpolation: str, target: Pixels) -> None:
        """Write the part of the frame that `columns` and `rows` show.

        Args:
            rgb: `[height, width, 3]` uint8, C-contiguous.
            columns: of `width`.
            rows: of `height`; one of the two is not copied.
            interpolation: a key of `FILTERS`.
            target: `[rows.size, columns.size, 3]` uint8, C-contiguous; every element is written.
        """
