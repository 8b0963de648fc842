"""Sampled frames are those of decoding every frame: the same numbers, times and pixels, of fewer decoded ones."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from support import videos

from app.errors import GatewayError
from app.media.containers import HEAD_BYTES, sniff_container
from app.media.video.decode import Limits, Video
from app.media.video.open_file import Source
from app.media.video.sampling import Choice, Sampler, Sampling

FRAMES = 100
LIMITS = Limits(max_pixels=1 << 22, max_duration_s=7200, max_frames=1 << 20)
Row = tuple[int, Fraction, bytes]  # a frame's number, time and pixels
SAMPLINGS = [
    Sampling(every=2),
    Sampling(every=7),
    Sampling(every=45),
    Sampling(fps=2),
    Sampling(fps=0.7, start_s=0.9),
    Sampling(every=10, start_s=0.3, end_s=2.9),
]


class Read:
    """All that a video gives to the end: its frames, the fault that ended it, and how many frames were decoded."""

    def __init__(self, path: Path, sampling: Sampling) -> None:
        self.rows: list[Row] = []
        self.fault: str | None = None
        with path.open("rb") as file:
            container = sniff_container(file.read(HEAD_BYTES))
            self.video = Video(Source(file.fileno()), container, sampling, LIMITS, lambda *_: None)
            self.time_base = self.video.time_base
            try:
                for timed in self.video.frames():
                    if timed.choice is Choice.END:
                        break
                    if timed.choice is Choice.TAKE:
                        self.rows.append((timed.index, timed.time, _pixels(timed.frame)))
            except GatewayError as fault:
                self.fault = fault.detail


def _pixels(frame: av.VideoFrame) -> bytes:
    return frame.to_ndarray(format="rgb24", threads=1).tobytes()


def chosen(rows: Iterable[Row], sampling: Sampling, time_base: Fraction) -> list[Row]:
    """The frames that the rule takes among all frames of a video."""
    sampler, taken = Sampler(sampling, time_base), []
    for row in rows:
        choice = sampler.choose(row[1], row[0])
        if choice is Choice.END:
            break
        if choice is Choice.TAKE:
            taken.append(row)
    return taken


def made(path: Path, frames: int = FRAMES, **how: Any) -> Path:
    return videos.write(path, videos.textured(frames, 96, 64), **how)


def check(path: Path) -> tuple[int, list[int]]:
    """Hold every sampling against decoding all; answers how many frames there are, and how many each decoded."""
    whole = Read(path, Sampling())
    decoded = []
    for sampling in SAMPLINGS:
        read = Read(path, sampling)
        expected = chosen(whole.rows, sampling, whole.time_base)
        assert [row[:2] for row in read.rows] == [row[:2] for row in expected], sampling
        assert read.rows == expected, sampling
        if sampling.end_s is None:
            assert read.fault == whole.fault
            if not whole.video.damaged:
                assert read.video.facts() == whole.video.facts()
        decoded.append(read.video.decoded)
    return len(whole.rows), decoded


VFR = [float(t) for t in np.random.default_rng(5).uniform(0.005, 0.1, FRAMES).cumsum().round(3)]
# Name -> how it is made, and the share of the frames that `every=45` decodes at most (1: all, as nothing is certain).
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "h264.mp4": ({"bframes": 3, "gop": 250}, 0.65),
    "h264-short.mp4": ({"bframes": 3, "gop": 12}, 0.2),
    "h264-refs.mkv": ({"bframes": 3, "gop": 12, "x264-params": "b-pyramid=normal:scenecut=0"}, 0.2),
    "h264-open.mov": ({"bframes": 3, "gop": 12, "x264-params": "open-gop=1"}, 0.65),
    "h264-slices.mp4": ({"bframes": 2, "gop": 20, "x264-params": "slices=4"}, 0.4),
    "h264-fields.mkv": ({"bframes": 2, "gop": 20, "x264-params": "tff=1"}, 0.4),
    "h264-refresh.mp4": ({"gop": 20, "x264-params": "intra-refresh=1"}, 1),
    "h264-fragments.mp4": ({"bframes": 2, "gop": 12, "muxer": {"movflags": "frag_keyframe+empty_moov"}}, 0.3),
    "vfr.mp4": ({"bframes": 2, "gop": 20, "times": VFR}, 0.4),
    "vfr.mkv": ({"bframes": 2, "gop": 20, "times": VFR}, 0.4),
    "hevc.mp4": ({"codec": "libx265", "gop": 20, "bframes": 4, "x265-params": "log-level=0"}, 1),
    "hevc-open.mkv": (
        {"codec": "libx265", "gop": 10, "x265-params": "log-level=0:bframes=4:open-gop=1"},
        1,
    ),
    "mpeg4.mp4": ({"codec": "mpeg4", "bframes": 2, "gop": 12}, 0.3),
    "mpeg4.mkv": ({"codec": "mpeg4", "bframes": 0, "gop": 12}, 0.3),
    "mpeg4.avi": ({"codec": "mpeg4", "bframes": 1, "gop": 12}, 1),
    "mpeg2.mkv": ({"codec": "mpeg2video", "bframes": 2, "gop": 12}, 0.4),
    "vp8.webm": ({"codec": "libvpx", "gop": 20, "auto-alt-ref": "1", "lag-in-frames": "10"}, 0.4),
    "vp9.webm": ({"codec": "libvpx-vp9", "gop": 20, "cpu-used": "8", "lag-in-frames": "10"}, 0.4),
    "av1.mp4": ({"codec": "libsvtav1", "gop": 20, "preset": "12", "svtav1-params": "keyint=20"}, 0.4),
    "mjpeg.mkv": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, 0.05),
    "prores.mov": ({"codec": "prores_ks", "pix_fmt": "yuv422p10le"}, 0.05),
    "ffv1.mkv": ({"codec": "ffv1"}, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_sampled_frames_are_those_of_decoding_all(tmp_path: Path, name: str) -> None:
    """Streams of every kind agree; where the codec says what frames need, most others are passed over."""
    how, share = KINDS[name]
    if how.get("codec", "libx264") not in av.codecs_available:
        pytest.skip("no encoder for it")
    count, decoded = check(made(tmp_path / name, **how))
    assert count == FRAMES
    assert decoded[2] <= share * FRAMES


def edited(path: Path, made_path: Path, hidden: int) -> Path:
    """The same packets in an MP4 whose edit list hides the first frames, as trimming on a phone leaves them."""
    with (
        av.open(str(path)) as source,
        av.open(str(made_path), "w", options={"avoid_negative_ts": "disabled", "use_editlist": "1"}) as file,
    ):
        stream = source.streams.video[0]
        copy = file.add_stream_from_template(stream)
        assert isinstance(copy, VideoStream)
        for packet in (p for p in source.demux(stream) if p.size):
            shift = round(hidden / videos.RATE / packet.time_base)
            packet.stream = copy
            packet.pts, packet.dts = (packet.pts or 0) - shift, (packet.dts or 0) - shift
            file.mux(packet)
    return made_path


@pytest.mark.parametrize("hidden", [5, 30])
def test_frames_that_an_edit_list_hides(tmp_path: Path, hidden: int) -> None:
    """They are decoded where shown ones need them, and have no numbers."""
    path = edited(made(tmp_path / "a.mp4", bframes=2, gop=12), tmp_path / "b.mp4", hidden)
    with av.open(str(path)) as file:
        assert any(packet.is_discard for packet in file.demux(video=0))
    count, decoded = check(path)
    assert count == FRAMES - hidden
    assert decoded[2] < FRAMES / 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "mpeg4.mkv", "mjpeg.mkv"])
def test_damaged_frames(tmp_path: Path, name: str, seed: int) -> None:
    """Damage in what is decoded makes every frame be decoded; other damage changes no number."""
    codecs = {"mpeg4.mkv": "mpeg4", "mjpeg.mkv": "mjpeg"}
    codec = codecs.get(name, "libx264")
    how = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {"bframes": 2, "gop": 20}
    path = made(tmp_path / name, codec=codec, **how)
    check(videos.flipped(path, seed, bits=6, start=0.2, end=0.8))


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_was_cut(tmp_path: Path, share: float) -> None:
    """The rest is sampled as ever, and the fault is the same."""
    path = made(tmp_path / "a.mkv", bframes=2, gop=20)
    check(videos.cut(path, share))
    path = made(tmp_path / "a.mp4", bframes=2, gop=20, muxer={"movflags": "faststart"})
    check(videos.cut(path, share))
