"""Conversion of a video's frames straight to a branch's size by swscale, beside RGB of the whole frame and a resize.

    python -m benchmarks.video.scaled_conversion

CPU ms per frame on one thread of this process, the ways in turns and in alternating order, so that other work on the
machine moves the ratios little: `now` converts the frame to RGB and resizes that for each square, as the gateway does;
`direct` scales the decoder's planes into each square, with swscale's default flags or with accurate rounding. `saved`
is the share of decoding and `now` together that a way saves. Levels (of 255) are its mean and greatest distance to
`now`. Squares that show a middle (CLIP, Places365) are left out: swscale cuts planes at even pixels only.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from app.media.resize import square_into
from app.media.resizers.choice import resizer_named
from app.media.video.picture import RGB, UPRIGHT, Painter
from app.media.video.protocol import SPARE_BYTES
from app.media.video.swscale import Swscale
from benchmarks.common import test_videos

Squares = tuple[tuple[int, str], ...]
SQUARES: dict[str, Squares] = {
    "depth 384": ((384, "bicubic"),),
    "depth 512": ((512, "bicubic"),),
    "depth 512 and flow 512": ((512, "bicubic"), (512, "linear")),
}
FILMS = ((640, 480), (1920, 1080), (1080, 1350))
_FILTERS = {"bicubic": Interpolation.BICUBIC, "linear": Interpolation.BILINEAR}
_ACCURATE = 0x40000 | 0x2000  # SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT
_FRAMES, _ROUNDS, _SECONDS = 16, 7, 2
Fill = Callable[[VideoFrame], list[NDArray[np.uint8]]]


def now(width: int, height: int, squares: Squares) -> Fill:
    """The gateway's way."""
    painter, resizer = Painter(Swscale.loaded()), resizer_named("auto")
    slot = bytearray(width * height * RGB + SPARE_BYTES)
    target = memoryview(slot)[:-SPARE_BYTES]
    rgb = np.frombuffer(target, np.uint8).reshape(height, width, RGB)
    made = [np.empty((size, size, RGB), np.uint8) for size, _ in squares]

    def fill(frame: VideoFrame) -> list[NDArray[np.uint8]]:
        painter.paint(frame, UPRIGHT, target)
        for square, (_, interpolation) in zip(made, squares, strict=True):
            square_into(resizer, rgb, square, "stretch", interpolation)
        return made

    return fill


def direct(squares: Squares, flags: int) -> Fill:
    """Conversion of the planes by swscale, through PyAV."""
    reformatters = [VideoReformatter() for _ in squares]

    def fill(frame: VideoFrame) -> list[NDArray[np.uint8]]:
        made = [
            reformatter.reformat(
                frame, size, size, "rgb24", interpolation=_FILTERS[interpolation] | flags, threads=1
            )
            for reformatter, (size, interpolation) in zip(reformatters, squares, strict=True)
        ]
        return [
            np.frombuffer(memoryview(square.planes[0]), np.uint8).reshape(square.height, -1, RGB)
            for square in made
        ]

    return fill


def cpu_ms(work: Callable[[], int]) -> float:
    """CPU milliseconds per frame of work that answers how many frames there were."""
    before = time.process_time()
    frames = work()
    return 1000 * (time.process_time() - before) / frames


def decoded(path: Path) -> int:
    """Decode everything on one thread; answers how many frames there were."""
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in file.decode(video=0))


def filled(fill: Fill, frames: list[VideoFrame]) -> int:
    for frame in frames:
        fill(frame)
    return len(frames)


def measure(path: Path, width: int, height: int, squares: Squares) -> str:
    """One line of the table."""
    with av.open(str(path)) as file:
        frames = list(islice(file.decode(video=0), _FRAMES))
    ways = {
        "now": now(width, height, squares),
        "direct": direct(squares, 0),
        "accurate": direct(squares, _ACCURATE),
    }
    taken: dict[str, list[float]] = {name: [] for name in ("decode", *ways)}
    for turn in range(_ROUNDS + 1):  # the first doesn't count
        taken["decode"].append(cpu_ms(lambda: decoded(path)))
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            fill = ways[name]
            taken[name].append(cpu_ms(lambda fill=fill: filled(fill, frames)))  # type: ignore[misc]
    ms = {name: statistics.median(of[1:]) for name, of in taken.items()}
    parts = [f"decode {ms['decode']:.2f}", f"now {ms['now']:.2f}"]
    for name in ("direct", "accurate"):
        apart = [
            np.abs(one.astype(int) - other)
            for frame in frames
            for one, other in zip(ways[name](frame), ways["now"](frame), strict=True)
        ]
        saved = (ms["now"] - ms[name]) / (ms["decode"] + ms["now"])
        mean, greatest = np.mean([of.mean() for of in apart]), max(of.max() for of in apart)
        parts.append(f"{name} {ms[name]:.2f} (saved {saved:.0%}, levels {mean:.2f}, {greatest})")
    return "  ".join(parts)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        for width, height in FILMS:
            path = test_videos.make(Path(folder) / f"{width}x{height}.mp4", width, height, _SECONDS)
            for name, squares in SQUARES.items():
                print(f"{width}x{height}  {name:24}{measure(path, width, height, squares)}", flush=True)


if __name__ == "__main__":
    main()
