"""Numbers and times of frames against a scan of the packets: every range, keyframes, odd containers, odd timestamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.stream import VideoStream
from support import videos

from app.media.video.reader import Sampling, VideoFacts, VideoReader

Row = tuple[int, int, int]  # the number that the frame shows, its index, its time in ms
TICK = Fraction(1, 90_000)
PHONE = [n / 30 for n in range(150)] + [5 + n / 10 for n in range(50)] + [10 + n / 60 for n in range(120)]
GAP = [n / 25 for n in range(50)] + [3600 + n / 25 for n in range(50)]
SLOW = [0.0, 10, 20, 30, 31, 32, 95, 100]
OUTLIER_S = 3 * 3600


def read(path: Path, **sampling: Any) -> tuple[list[Row], VideoReader]:
    with path.open("rb") as file, VideoReader(file, Sampling(**sampling)) as video:
        rows = []
        for frame in video:
            rows.append((videos.number_of(frame.rgb), frame.index, round(frame.time_s * 1000)))
            frame.release()
        assert video.fault is None
    return rows, video


def scanned(path: Path) -> tuple[list[int], list[int]]:
    """The times of all frames in ms and the numbers of the keyframes, by the packets."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        packets = [p for p in file.demux(stream) if p.size and not p.is_discard]
        shown = sorted(packets, key=lambda p: p.pts or 0)
        first = shown[0].pts or 0
        times = [round(((p.pts or 0) - first) * (stream.time_base or TICK) * 1000) for p in shown]
        return times, [n for n, p in enumerate(shown) if p.is_keyframe]


SOUND: list[tuple[str, dict[str, Any]]] = [
    ("phone.mp4", {"times": PHONE, "frames": 320, "gop": 30}),
    ("phone.mkv", {"times": PHONE, "frames": 320, "gop": 30, "bframes": 3}),
    ("phone.mov", {"times": PHONE, "frames": 320, "gop": 30, "bframes": 2, "open-gop": "1"}),
    ("gap.mp4", {"times": GAP, "frames": 100, "gop": 10, "bframes": 2}),
    ("gap.mkv", {"times": GAP, "frames": 100, "gop": 10}),
    ("slow.mp4", {"times": SLOW, "frames": 8, "gop": 2}),
    ("edits.mp4", {"frames": 120, "gop": 12, "bframes": 3}),
    ("fragments.mp4", {"frames": 120, "gop": 12, "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("alt.webm", {"frames": 120, "codec": "libvpx", "gop": 25, "auto-alt-ref": "1", "lag-in-frames": "16"}),
    ("vp9.webm", {"frames": 120, "codec": "libvpx-vp9", "gop": 25, "cpu-used": "8", "lag-in-frames": "10"}),
    ("open.mkv", {"frames": 100, "codec": "mpeg2video", "gop": 12, "bframes": 2}),
]


@pytest.mark.parametrize(("name", "how"), SOUND, ids=[name for name, _ in SOUND])
def test_every_range_has_the_numbers_and_times_of_the_whole(
    tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    """From any start, and of keyframes alone, a frame has the number, time and pixels that it has in the whole."""
    path = videos.count(tmp_path / name, **how)
    whole, _ = read(path)
    count = how["frames"]
    assert [number for number, _, _ in whole] == [index for _, index, _ in whole] == list(range(count))
    if name != "alt.webm":  # whose hidden frames are packets too
        times, keys = scanned(path)
        assert [time for _, _, time in whole] == times
        assert [index for _, index, _ in read(path, keyframes=True)[0]] == keys
    last_s = whole[-1][2] / 1000
    for start_s in (2.0, last_s / 2, last_s * 0.8, last_s - 0.1):
        later = [row for row in whole if row[2] >= start_s * 1000 - 1]
        assert read(path, start_s=start_s)[0] == later
    keyframes, _ = read(path, keyframes=True)
    assert set(keyframes) <= set(whole)
    assert read(path, keyframes=True, start_s=last_s / 2)[0] == [
        row for row in keyframes if row[2] >= last_s * 500 - 1
    ]


@pytest.mark.parametrize("bframes", [0, 1, 2])
def test_keyframes_of_avi(tmp_path: Path, bframes: int) -> None:
    """AVI stores no times; with frames out of order all of them are decoded to count those before a keyframe."""
    path = videos.count(tmp_path / "a.avi", 100, codec="mpeg4", bframes=bframes, gop=12)
    whole, _ = read(path)
    assert whole == [(n, n, 40 * n) for n in range(100)]
    keyframes, _ = read(path, keyframes=True)
    assert len(keyframes) >= 8
    assert set(keyframes) <= set(whole)
    assert read(path, start_s=2.5)[0] == whole[63:]


def remuxed(path: Path, made: Path, stamps: dict[int, int | None]) -> Path:
    """The same packets with other timestamps (ms) for some of them."""
    with (
        av.open(str(path)) as source,
        av.open(str(made), "w", options={"avoid_negative_ts": "disabled"}) as file,
    ):
        stream = source.streams.video[0]
        copy = file.add_stream_from_template(stream)
        assert isinstance(copy, VideoStream)
        for number, packet in enumerate(p for p in source.demux(stream) if p.size):
            new = stamps.get(number, 40 * number)
            packet.stream = copy
            packet.time_base = Fraction(1, 1000)
            packet.pts, packet.dts = (
                new,
                number - 1_000_000,
            )  # muxers want these in order; Matroska keeps none
            file.mux(packet)
    return made


ODD: list[tuple[str, dict[int, int | None], str]] = [
    ("one ahead", {60: OUTLIER_S * 1000}, "out of line"),
    ("two ahead", {60: OUTLIER_S * 1000, 61: OUTLIER_S * 1000 + 40}, "out of line"),
    ("eight hours ahead", {60: 8 * OUTLIER_S * 1000}, "out of line"),
    ("half a second ahead", {60: 60 * 40 + 500}, "out of line"),
    ("many ahead", {n: OUTLIER_S * 1000 + 40 * n for n in range(50, 90)}, "out of line"),
    ("several times", {n: OUTLIER_S * 1000 + n for n in (20, 50, 51, 90)}, "out of line"),
    ("start again", {n: 40 * (n - 80) for n in range(80, 120)}, "start again"),
]


@pytest.mark.parametrize(("name", "stamps", "said"), ODD, ids=[name for name, _, _ in ODD])
def test_odd_timestamps_change_no_other_time(
    tmp_path: Path, name: str, stamps: dict[int, int | None], said: str
) -> None:
    """Frames around odd timestamps keep theirs, ranges end where they should, facts are right, and it is said."""
    even = videos.count(tmp_path / "a.mkv", 120, gop=10, sc_threshold="0")
    path = remuxed(even, tmp_path / "odd.mkv", stamps)
    expected = [(n, n, 40 * n) for n in range(120)]
    rows, video = read(path)
    assert rows == expected
    assert [words for words in video.warnings if said in words]
    assert video.facts.frames == 120
    assert video.facts.duration_s == pytest.approx(4.8, abs=0.1)
    assert read(path, end_s=4)[0] == expected[:100]
    assert read(path, start_s=3)[0] == expected[75:]
    assert [index for _, index, _ in read(path, keyframes=True)[0]] == list(range(0, 120, 10))


def facts_of(path: Path, **sampling: Any) -> VideoFacts:
    return read(path, **sampling)[1].facts


def patched(path: Path, seconds: float) -> Path:
    """The same MP4, all of whose headers say this duration."""
    data = bytearray(path.read_bytes())
    for box, scale_at, at in ((b"mvhd", 16, 20), (b"mdhd", 16, 20)):
        start = data.index(box)
        scale = int.from_bytes(data[start + scale_at : start + scale_at + 4], "big")
        data[start + at : start + at + 4] = round(scale * seconds).to_bytes(4, "big")
    made = path.with_name(f"says-{seconds:g}.mp4")
    made.write_bytes(data)
    return made


@pytest.mark.parametrize("seconds", [0.05, 1, 100, 30_000])
@pytest.mark.parametrize("sampling", [{}, {"every": 7}, {"start_s": 2}])
def test_a_header_with_a_wrong_duration(tmp_path: Path, seconds: float, sampling: dict[str, Any]) -> None:
    """Duration and number of frames are those of the frames, also where the header would be refused as too long."""
    path = videos.count(tmp_path / "a.mp4", 96, gop=12, muxer={"use_editlist": "0"})
    facts = facts_of(patched(path, seconds), **sampling)
    assert facts.frames == 96
    if "start_s" not in sampling or seconds != 100:  # a range doesn't show that there is nothing after it
        assert facts.duration_s == pytest.approx(3.84, abs=0.1)


def test_matroska_says_how_many_frames_there_were(tmp_path: Path) -> None:
    """A container that doesn't count its frames has them counted, once all were decoded."""
    assert facts_of(videos.count(tmp_path / "a.mkv", 50)).frames == 50
