"""Small videos made with PyAV's own encoders, whole and damaged, whose frames say which they are."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
WIDTH, HEIGHT = 96, 64
RATE = 25
_BITS = 12
_TICK = Fraction(1, 90_000)
_TONE_RATE = 8000
CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A picture whose twelve upright bars are the bits of a number: black 0, white 1."""
    bits = [255 * (number >> bit & 1) for bit in range(_BITS)]
    columns = np.repeat(np.array(bits, np.uint8), width // _BITS)
    columns = np.pad(columns, (0, width - len(columns)))
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def number_of(rgb: Picture) -> int:
    """The number that such a picture shows."""
    step = rgb.shape[1] // _BITS
    middles = rgb[rgb.shape[0] // 2, step // 2 : step * _BITS : step, 1]
    return sum(int(value > 127) << bit for bit, value in enumerate(middles))


def cornered(width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A picture of four coloured quarters: red and green above, blue and white below."""
    picture = np.empty((height, width, 3), np.uint8)
    for (row, column), colour in zip(((0, 0), (0, 1), (1, 0), (1, 1)), CORNERS.values(), strict=True):
        rows = slice(row * height // 2, (row + 1) * height // 2)
        picture[rows, column * width // 2 : (column + 1) * width // 2] = colour
    return picture


def corners_of(rgb: Picture) -> list[str]:
    """The names of its quarters' colours, read like text."""
    height, width = rgb.shape[:2]
    middles = [rgb[y * height // 4, x * width // 4] for y in (1, 3) for x in (1, 3)]
    names, colours = list(CORNERS), np.array(list(CORNERS.values()))
    return [names[int(np.abs(colours - middle.astype(int)).sum(1).argmin())] for middle in middles]


def write(
    path: Path,
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    rotate: int = 0,
    mirror: bool = False,
    gop: int = 12,
    bframes: int = 0,
    colorspace: int | None = None,
    color_range: int | None = None,
    muxer: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    stretch: tuple[int, int] = (1, 1),
    **options: str,
) -> Path:
    """Encode pictures into a video whose container the path's suffix names; answers the path.

    `times`: seconds of each frame, else a constant 25 a second. `rotate`: by how many degrees clockwise a player has to
    turn the picture to show it upright, after having mirrored it left to right where `mirror`; `stretch`: how many
    times as wide and high the stored picture is shown. `aspect`: width of a pixel by its height.
    """
    with _priority_kept(), av.open(str(path), "w", options=muxer or {}) as file:
        stream = file.add_stream(codec, rate=RATE, options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.pix_fmt, context.gop_size, context.max_b_frames = pix_fmt, gop, bframes
        if colorspace is not None:
            context.colorspace = colorspace
        if color_range is not None:
            context.color_range = color_range
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotate or mirror or stretch != (1, 1):
            stream.set_display_matrix(display_matrix(rotate, mirror, stretch))
        if times is not None:
            context.time_base = _TICK
        for number, picture in enumerate(pictures):
            if not context.is_open:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range
            )
            frame.pts = number if times is None else round(times[number] / _TICK)
            frame.time_base = Fraction(1, RATE) if times is None else _TICK
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def _priority_kept() -> Iterator[None]:
    """Keep the scheduling of this thread.

    As root, SVT-AV1 gives it a real-time priority. All that it starts later would inherit that.
    """
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def display_matrix(rotate: int, mirror: bool, stretch: tuple[int, int] = (1, 1)) -> list[int]:
    """FFmpeg's display matrix: mirror left to right, turn clockwise, stretch the stored axes; y points down."""
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[rotate]
    if mirror:
        a, b = -a, -b
    one = 1 << 16
    x, y = stretch
    return [x * a * one, x * b * one, 0, y * c * one, y * d * one, 0, 0, 0, 1 << 30]


def count(path: Path, frames: int = 50, **how: object) -> Path:
    """A video of so many numbered frames."""
    return write(path, map(numbered, range(frames)), **how)  # type: ignore[arg-type]  # passed on as they come


def audio(path: Path) -> Path:
    """A file with a second's tone and no video."""
    with av.open(str(path), "w") as file:
        _tone(file, file.add_stream("aac", rate=_TONE_RATE, layout="mono"))
    return path


def _tone(file: OutputContainer, stream: AudioStream) -> None:
    samples = np.sin(np.arange(_TONE_RATE) / 5).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    frame.rate = _TONE_RATE
    file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def covered(path: Path) -> Path:
    """A song with a picture of its cover."""
    with av.open(str(path), "w") as file:
        cover = file.add_stream("mjpeg", rate=RATE)
        assert isinstance(cover, VideoStream)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = file.add_stream("aac", rate=_TONE_RATE, layout="mono")
        file.mux(cover.encode(av.VideoFrame.from_ndarray(cornered(), "rgb24").reformat(format="yuvj420p")))
        file.mux(cover.encode(None))
        _tone(file, sound)
    return path


def no_frames(path: Path) -> Path:
    """An MP4 with a video stream and no frame in it: the index of a whole one says that there are none."""
    data = bytearray(count(path, 3).read_bytes())
    for box in (b"stsz", b"stts", b"stsc", b"stco", b"stss", b"ctts"):
        at = data.find(box)
        if at >= 0:  # version and flags, then (after the size of all samples, in stsz) the number of entries
            struct.pack_into(">I", data, at + (12 if box == b"stsz" else 8), 0)
    path.write_bytes(data)
    return path


def external(path: Path, target: Path) -> Path:
    """An MP4 without frames of its own, whose sample table says (as QuickTime may) that they lie in another file."""
    boxes = target.read_bytes()
    moov = boxes[boxes.index(b"moov") - 4 :]
    moov = moov[: int.from_bytes(moov[:4], "big")]
    name = str(target).encode()
    alias = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + struct.pack(">hh", -1, -1) + bytes(16)
    alias += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) & 1) + struct.pack(">hH", -1, 0)
    entry = b"alis" + bytes(4) + alias + bytes(40)
    entry = struct.pack(">I", len(entry) + 4) + entry
    dref = b"dref" + bytes(4) + struct.pack(">I", 1) + entry
    dref = struct.pack(">I", len(dref) + 4) + dref
    path.write_bytes(
        boxes[: boxes.index(b"ftyp") - 4 + int.from_bytes(boxes[:4], "big")] + _replaced(moov, dref)
    )
    return path


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"dinf")


def _replaced(box: bytes, dref: bytes) -> bytes:
    """The box with its `dref` replaced, and every length around it right again."""
    kind = box[4:8]
    if kind == b"dref":
        return dref
    if kind not in _PARENTS:
        return box
    inside, position = b"", 8
    while position < len(box):
        length = int.from_bytes(box[position : position + 4], "big")
        inside += _replaced(box[position : position + length], dref)
        position += length
    return struct.pack(">I", len(inside) + 8) + kind + inside


def growing(path: Path, sizes: Sequence[tuple[int, int]], each: int = 5) -> Path:
    """A WebM whose VP8 frames change their size in the middle, as browsers record a call: numbered through."""
    with av.open(str(path), "w", format="webm") as file:
        stream = file.add_stream("libvpx", rate=RATE)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = sizes[0]
        number = 0
        for width, height in sizes:
            pictures = [numbered(number + n, width, height) for n in range(each)]
            for packet in _packets(pictures, width, height):
                packet.stream = stream
                packet.pts = packet.dts = number
                packet.time_base = Fraction(1, RATE)
                file.mux(packet)
                number += 1
    return path


def _packets(pictures: Iterable[Picture], width: int, height: int) -> Iterator[av.Packet]:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.options = {"lag-in-frames": "0"}
    for picture in pictures:
        yield from encoder.encode(av.VideoFrame.from_ndarray(picture, "rgb24"))
    yield from encoder.encode(None)


def cut(path: Path, share: float) -> Path:
    """The same file, only its beginning: beside it, as cut-NAME."""
    data = path.read_bytes()
    return _beside(path, "cut", data[: int(len(data) * share)])


def flipped(path: Path, seed: int, bits: int = 40, start: float = 0.0, end: float = 1.0) -> Path:
    """The same file with bits turned over in a part of it: beside it, as flipped-SEED-NAME."""
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(int(len(data) * start), int(len(data) * end), bits):
        data[position] ^= 1 << int(random.integers(8))
    return _beside(path, f"flipped-{seed}", bytes(data))


def patched(path: Path, old: bytes, new: bytes, name: str = "patched") -> Path:
    """The same file with one piece in the place of another of the same length."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    return _beside(path, name, data.replace(old, new))


def plain(path: Path, yuv: tuple[int, int, int], colorspace: int, color_range: int) -> Path:
    """A video of one colour, given as it is stored."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.colorspace, frame.color_range = colorspace, color_range
        for plane, value in zip(frame.planes, yuv, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def textured(frames: int = 40, width: int = 160, height: int = 96, seed: int = 0) -> Iterator[Picture]:
    """Noise that moves: frames of some size, so that damage meets pictures and not headers."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return (np.roll(noise, 3 * number, 1) for number in range(frames))


def _beside(path: Path, name: str, data: bytes) -> Path:
    made = path.with_name(f"{name}-{path.name}")
    made.write_bytes(data)
    return made
