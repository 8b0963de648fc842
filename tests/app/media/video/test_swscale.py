"""Conversion straight into a slot: the same bytes as PyAV's, nothing beyond, and no trust without proof."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from app.media.video.picture import UPRIGHT, Painter
from app.media.video.protocol import SPARE_BYTES
from app.media.video.swscale import Swscale

NOISE = np.random.default_rng(0)
MARK = 0xA5


@pytest.fixture
def swscale() -> Swscale:
    found = Swscale.loaded()
    assert found is not None, "the library that PyAV has loaded isn't found"
    return found


def picture(width: int, height: int, name: str = "yuv420p", matrix: int = 2, reach: int = 0) -> VideoFrame:
    """Noise in every plane."""
    frame = av.VideoFrame(width, height, name)
    for plane in frame.planes:
        plane.update(NOISE.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, reach
    return frame


def expected(frame: VideoFrame) -> bytes:
    return frame.to_ndarray(format="rgb24", threads=1).tobytes()


FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("width", [8, 16, 24, 40, 64, 72, 104, 640, 856, 1080, 1096, 1920])
@pytest.mark.parametrize("height", [1, 2, 3, 17, 64])
def test_every_size(swscale: Swscale, name: str, width: int, height: int) -> None:
    """The bytes are PyAV's, and nothing is written behind the bytes that are kept free."""
    frame, size = picture(width, height, name), width * height * 3
    memory = bytearray([MARK]) * (size + 2 * SPARE_BYTES)
    assert swscale.convert(frame, memoryview(memory)[:size])
    assert memory[:size] == expected(frame)
    assert set(memory[size + SPARE_BYTES :]) == {MARK}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("reach", [0, 1, 2])
def test_every_colour(swscale: Swscale, name: str, matrix: int, reach: int) -> None:
    """Matrix and range are those of the frame, as PyAV reads them."""
    frame = picture(64, 16, name, matrix, reach)
    memory = bytearray(64 * 16 * 3 + SPARE_BYTES)
    assert swscale.convert(frame, memoryview(memory)[:-SPARE_BYTES])
    assert memory[:-SPARE_BYTES] == expected(frame)


@pytest.mark.parametrize(
    ("width", "name", "matrix"),
    [(63, "yuv420p", 2), (64, "yuv411p", 2), (64, "yuv420p10le", 2), (64, "rgb24", 2), (64, "yuv420p", 8)],
)
def test_the_rest_is_left_to_pyav(swscale: Swscale, width: int, name: str, matrix: int) -> None:
    """Odd widths and rare formats are refused untouched, and painted all the same."""
    frame, memory = picture(width, 8, name, matrix), bytearray(width * 8 * 3 + SPARE_BYTES)
    assert not swscale.convert(frame, memoryview(memory)[:-SPARE_BYTES])
    assert not any(memory)
    if matrix != 8:  # a matrix that no conversion knows
        Painter(swscale).paint(frame, UPRIGHT, memoryview(memory)[:-SPARE_BYTES])
        assert memory[:-SPARE_BYTES] == expected(frame)


def test_kinds_that_change(swscale: Swscale) -> None:
    """Sizes and colours may change from frame to frame."""
    for _ in range(3):
        for frame in (picture(64, 8), picture(640, 16, "yuvj420p", 1, 2), picture(64, 8, "yuv420p", 1, 1)):
            memory = bytearray(frame.width * frame.height * 3 + SPARE_BYTES)
            assert swscale.convert(frame, memoryview(memory)[:-SPARE_BYTES])
            assert memory[:-SPARE_BYTES] == expected(frame)


def test_a_picture_that_is_upside_down(swscale: Swscale) -> None:
    """Lines that are stored from the last to the first are read that way."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=64, height=16, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25)
    )
    flip, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(flip)
    flip.link_to(sink)
    graph.configure()
    graph.vpush(picture(64, 16))
    frame = graph.vpull()
    assert frame.planes[0].line_size < 0
    memory = bytearray(64 * 16 * 3 + SPARE_BYTES)
    assert swscale.convert(frame, memoryview(memory)[:-SPARE_BYTES])
    assert memory[:-SPARE_BYTES] == expected(frame)


class Wrong(Swscale):
    """A library whose functions have come to mean something else."""

    def convert(self, frame: VideoFrame, target: memoryview) -> bool:
        done = super().convert(frame, target)
        target[0] ^= 1
        return done


@pytest.mark.parametrize("kind", [Swscale, Wrong, None])
def test_nothing_is_trusted_unproved(kind: type[Swscale] | None) -> None:
    """One pixel off in the first frame, and PyAV does the work: what comes out is right in any case."""
    painter: Any = Painter(kind.loaded() if kind else None)
    for _ in range(2):
        frame, memory = picture(64, 16), bytearray(64 * 16 * 3 + SPARE_BYTES)
        painter.paint(frame, UPRIGHT, memoryview(memory)[:-SPARE_BYTES])
        assert memory[:-SPARE_BYTES] == expected(frame)
    assert (painter._swscale is not None) == (kind is Swscale)
