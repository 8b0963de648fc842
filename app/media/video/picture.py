"""A decoded frame as upright RGB pixels, written where it is told. Runs in the decoder's own process only."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from app.media.video.swscale import Swscale

RGB = 3
# A matrix this close to a quarter turn is one; others (a tilted camera) are shown as they are stored.
_SKEW = 0.02


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transform that makes a frame upright: first mirror it left to right if `mirrored`, then turn it by
    `rotation`.

    `rotation`: degrees clockwise; `filters`: FFmpeg's that do all of it, with their arguments.
    """

    rotation: int
    mirrored: bool
    filters: tuple[tuple[str, str], ...]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of a frame stored with these."""
        return (height, width) if self.rotation in {90, 270} else (width, height)


UPRIGHT = Orientation(0, False, ())
# (a, b, c, d) of the display matrix, which sends a stored pixel (x, y) to (ax + cy, bx + dy), y pointing down.
ORIENTATIONS = {
    (1, 0, 0, 1): UPRIGHT,
    (0, 1, -1, 0): Orientation(90, False, (("transpose", "clock"),)),
    (-1, 0, 0, -1): Orientation(180, False, (("hflip", ""), ("vflip", ""))),
    (0, -1, 1, 0): Orientation(270, False, (("transpose", "cclock"),)),
    (-1, 0, 0, 1): Orientation(0, True, (("hflip", ""),)),
    (0, -1, -1, 0): Orientation(90, True, (("transpose", "clock_flip"),)),
    (1, 0, 0, -1): Orientation(180, True, (("vflip", ""),)),
    (0, 1, 1, 0): Orientation(270, True, (("transpose", "cclock_flip"),)),
}


class Compass:
    """Orientation of frames, from the display matrix of the container or the stream."""

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._orientation = UPRIGHT

    def of(self, frame: VideoFrame) -> Orientation:
        """Return the orientation of this frame. The whole matrix is read only when its angle, which is cheap to
        read, is new.

        (Looking at side data, PyAV ties frame and data into a circle; frames would pile up for the garbage collector.)
        """
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._orientation = _orientation(frame)
        return self._orientation


def _orientation(frame: VideoFrame) -> Orientation:
    try:
        matrix = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]  # the stub lacks it
    except (KeyError, ValueError):  # none; or there is side data of a kind that PyAV has no name for
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack_from("=9i", matrix)
    # A matrix may also stretch, each axis on its own; what it does to pixels is told as their aspect.
    scales = max(abs(a), abs(b)), max(abs(c), abs(d))
    if not all(scales):
        return UPRIGHT
    parts = [
        part / scale for part, scale in zip((a, b, c, d), (*scales[:1] * 2, *scales[1:] * 2), strict=True)
    ]
    turns = tuple(round(part) for part in parts)
    if any(abs(part - turn) > _SKEW for part, turn in zip(parts, turns, strict=True)):
        return UPRIGHT
    return ORIENTATIONS.get(turns, UPRIGHT)


class Painter:
    """Frames to RGB by swscale, as PyAV's `to_ndarray` does it.

    The stream's colour matrix and range are honoured, an unspecified matrix is BT.601 (as in FFmpeg and OpenCV), and
    nothing is tone-mapped. Rotation moves pixels and changes none.
    """

    def __init__(self, swscale: Swscale | None) -> None:
        """`swscale` writes straight into slots what it can; it is trusted with what it has done right once."""
        self._swscale = swscale
        self._trusted: tuple[object, ...] = ()
        self._reformatter = VideoReformatter()
        self._graph: Graph | None = None
        self._graph_for: tuple[object, ...] = ()

    def paint(self, frame: VideoFrame, orientation: Orientation, target: memoryview) -> None:
        """Write `frame` upright into `target`, `[height, width, 3]` uint8 as shown."""
        if orientation.filters:
            # Turning the planes before they become RGB costs a third; only square chroma survives a quarter turn.
            if not _square(frame):
                frame = self._rgb(frame)
            frame = self._turned(frame, orientation)
        if not self._written(frame, target):
            _copy(self._rgb(frame), target)

    def _written(self, frame: VideoFrame, target: memoryview) -> bool:
        swscale = self._swscale
        if swscale is None or not swscale.convert(frame, target):
            return False
        if swscale.kind != self._trusted:
            expected = bytearray(len(target))
            _copy(self._rgb(frame), memoryview(expected))
            if expected != target:
                self._swscale = None
                return False
            self._trusted = swscale.kind
        return True

    def _rgb(self, frame: VideoFrame) -> VideoFrame:
        return self._reformatter.reformat(frame, format="rgb24", threads=1)

    def _turned(self, frame: VideoFrame, orientation: Orientation) -> VideoFrame:
        wanted = (frame.width, frame.height, frame.format.name, orientation)
        if self._graph is None or self._graph_for != wanted:
            self._graph, self._graph_for = _graph(frame, orientation), wanted
        self._graph.vpush(frame)
        turned = self._graph.vpull()
        # The graph was told of no colours; what the frame says holds.
        turned.colorspace, turned.color_range = frame.colorspace, frame.color_range
        return turned


def _square(frame: VideoFrame) -> bool:
    """Return whether a chroma sample covers as many columns as rows, in a planar format."""
    return frame.format.name in {"yuv420p", "yuvj420p", "yuv444p", "yuvj444p", "yuv420p10le", "gray"}


def _graph(frame: VideoFrame, orientation: Orientation) -> Graph:
    graph = Graph()
    graph.threads = 1
    last = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    for name, arguments in (*orientation.filters, ("buffersink", "")):
        node = graph.add(name, arguments or None)
        last.link_to(node)
        last = node
    graph.configure()
    return graph


def _copy(frame: VideoFrame, target: memoryview) -> None:
    plane = frame.planes[0]
    source, row, stride = memoryview(plane), frame.width * RGB, plane.line_size
    if stride == row:
        target[:] = source[: row * frame.height]
        return
    # A picture turned upside down is stored as it was, with its lines counted backwards from the last.
    first = 0 if stride > 0 else (frame.height - 1) * -stride
    for y in range(frame.height):
        start = first + y * stride
        target[y * row : (y + 1) * row] = source[start : start + row]
