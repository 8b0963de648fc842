"""Frames to an H.264 file to look at."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

_TIME_BASE = Fraction(1, 90_000)  # MPEG's own clock: every frame rate in use is a whole number of its ticks


class VideoWriter:
    """An mp4 whose frames keep their times; complete once the `with` is over without an error, else removed.

    Args:
        path: of the file; it replaces what is there when it is complete.
        rate: frames per second, for players that need a number.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._fresh = path.with_name(f".{path.name}.new")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._fresh), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(
            "libx264", Fraction(max(rate, 0.1)).limit_denominator(1001), options={"crf": "23"}
        )
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._last = -1
        self.pixel_aspect = 1.0  # width of a pixel by its height; set it before the first frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._last >= 0:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                self._fresh.replace(self._path)
            else:
                self._container.close()
        finally:  # a full disk fails the close too
            self._fresh.unlink(missing_ok=True)

    def write(self, rgb: NDArray[np.uint8], time_s: float) -> None:
        """The next frame: `[height, width, 3]` uint8 RGB, shown from `time_s` on. All have the first one's size.

        Odd sides lose a row or column: H.264 as players know it has none.
        """
        height, width = (side - side % 2 for side in rgb.shape[:2])
        if self._last < 0:
            self._stream.width, self._stream.height = max(2, width), max(2, height)
            if self.pixel_aspect != 1:
                aspect = Fraction(self.pixel_aspect).limit_denominator(255)
                self._stream.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), "rgb24")
        self._last = max(self._last + 1, round(time_s / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        if (frame.width, frame.height) != (self._stream.width, self._stream.height):
            frame = frame.reformat(self._stream.width, self._stream.height)
        self._container.mux(self._stream.encode(frame))
