"""swscale writing straight into a slot, which PyAV has no call for. Runs in the decoder's own process only.

PyAV converts into memory of its own, from where pixels have to be copied: at 1080p that is a third of the conversion's
time, at 4K more than half. Here the library that PyAV has loaded is called through its C functions, unchanged since
2011; formats, sizes and lines come from PyAV. `Painter` compares the first result of each kind of frame with PyAV's
own, and leaves the work to that where they differ.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Self

from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

_LIBRARIES = ("libswscale", "libavutil")
_RGB = 3
_BILINEAR = 2  # SWS_BILINEAR: PyAV's choice
_UNCHANGED = 1 << 16  # contrast and saturation, in 16.16
_FULL = 2  # AVCOL_RANGE_JPEG
# What nearly all videos of 8 bits are, with the matrices BT.709, unspecified, BT.470, BT.601 and BT.2020. (With 10
# bits, PyAV's call and this one differ by some levels.)
_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"})
_MATRICES = frozenset({1, 2, 5, 6, 9})
# swscale's vector code works on so many pixels of a line; what doesn't divide would be left unwritten.
_STEP = 8


class Swscale:
    """The functions, and a converter for the `kind` of frame that came last."""

    def __init__(self, scale: ctypes.CDLL, util: ctypes.CDLL) -> None:
        """Raises AttributeError where a function isn't there."""
        pointer, number = ctypes.c_void_p, ctypes.c_int
        self._make, self._free, self._scale = scale.sws_getContext, scale.sws_freeContext, scale.sws_scale
        self._coefficients, self._colours = scale.sws_getCoefficients, scale.sws_setColorspaceDetails
        self._format = util.av_get_pix_fmt
        self._make.restype, self._make.argtypes = pointer, [number] * 7 + [pointer] * 3
        self._free.restype, self._free.argtypes = None, [pointer]
        self._scale.argtypes = [pointer, pointer, pointer, number, number, pointer, pointer]
        self._coefficients.restype, self._coefficients.argtypes = pointer, [number]
        self._colours.argtypes = [pointer, pointer, number, pointer, number, number, number, number]
        self._format.argtypes = [ctypes.c_char_p]
        self._context: int | None = None
        self.kind: tuple[object, ...] = ()

    @classmethod
    def loaded(cls) -> Self | None:
        """Load the libraries of this process, or return None. Opens files: call it while that is allowed."""
        try:
            lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        except OSError:  # not Linux: PyAV converts
            return None
        paths = {Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line}
        names = {name: path for path in paths for name in _LIBRARIES if path.name.startswith(name)}
        try:
            return cls(*(ctypes.CDLL(str(names[name])) for name in _LIBRARIES))
        except (KeyError, OSError, AttributeError):
            return None

    def convert(self, frame: VideoFrame, target: memoryview) -> bool:
        """Write `frame` as RGB into `target`, `[height, width, 3]` uint8; False where that is for PyAV to do.

        Up to `protocol.SPARE_BYTES` behind the target may be written too.
        """
        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if kind != self.kind:
            self._prepare(kind)
        if self._context is None:
            return False
        planes = frame.planes
        pixels = (ctypes.c_void_p * 4)(*(_first_line(plane) for plane in planes))
        strides = (ctypes.c_int * 4)(*(plane.line_size for plane in planes))
        written = (ctypes.c_void_p * 4)(_address(target))
        stride = (ctypes.c_int * 4)(frame.width * _RGB)
        lines: int = self._scale(self._context, pixels, strides, 0, frame.height, written, stride)
        return lines == frame.height

    def _prepare(self, kind: tuple[str, int, int, int, int]) -> None:
        name, width, height, matrix, reach = self.kind = kind
        self._free(self._context)
        self._context = None
        if name not in _FORMATS or matrix not in _MATRICES or width % _STEP:
            return
        of, to = self._format(name.encode()), self._format(b"rgb24")
        self._context = self._make(width, height, of, width, height, to, _BILINEAR, None, None, None)
        table = self._coefficients(matrix)
        full = reach == _FULL or name.startswith("yuvj")
        self._colours(self._context, table, full, table, 0, 0, _UNCHANGED, _UNCHANGED)


def _address(buffer: memoryview | VideoPlane) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _first_line(plane: VideoPlane) -> int:
    """Return the address of the topmost line; a picture stored upside down begins with its last line."""
    return _address(plane) + max(0, -plane.line_size) * (plane.height - 1)
