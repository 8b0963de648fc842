"""Damaged, lying and hostile files: what can be decoded is delivered, then what is wrong is said; nothing is left."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from support import videos

from app.errors import (
    DeadlineExceeded,
    GatewayError,
    ImageTooLarge,
    InvalidVideo,
    UnsupportedMediaType,
    VideoTooLong,
)
from app.media.video.reader import Sampling, VideoLimits, VideoReader


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test ends without a child process, and with no descriptor that it didn't begin with."""
    descriptors = _descriptors()
    others = psutil.Process().children(recursive=True)  # servers that the whole run shares
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child not in others] == []
    assert _descriptors() - descriptors == Counter()


def _descriptors() -> Counter[str]:
    """Return this process's open descriptors by name; the descriptor that lists them comes and goes."""
    gc.collect()  # frames that a failed assertion holds are not what is counted
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return Counter(str(link.readlink()) for link in links)


def read(path: Path, limits: VideoLimits | None = None, **sampling: Any) -> tuple[list[int], VideoReader]:
    """The numbers of the frames that came, and the reader that gave them, closed."""
    with path.open("rb") as file, VideoReader(file, Sampling(**sampling), limits) as video:
        numbers = []
        for frame in video:
            numbers.append(frame.index)
            assert frame.rgb.shape[2] == 3
            frame.release()
    return numbers, video


def textured(path: Path, frames: int = 40, **how: Any) -> Path:
    return videos.write(path, videos.textured(frames), **how)


CUTS: list[tuple[str, dict[str, Any]]] = [
    ("faststart.mp4", {"bframes": 2, "muxer": {"movflags": "faststart"}}),
    ("fragments.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("h264.mkv", {"bframes": 2}),
    ("vp8.webm", {"codec": "libvpx", "deadline": "realtime", "cpu-used": "8"}),
    ("mpeg4.avi", {"codec": "mpeg4", "bframes": 1}),
    ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
]


@pytest.mark.parametrize("share", [0.4, 0.8])
@pytest.mark.parametrize(("name", "how"), CUTS, ids=[name for name, _ in CUTS])
def test_a_file_that_was_cut_gives_what_is_left(
    tmp_path: Path, name: str, how: dict[str, Any], share: float
) -> None:
    """About that share of the frames comes, in order; then it is said that it is cut off, and after which frame."""
    numbers, video = read(videos.cut(textured(tmp_path / name, **how), share))
    assert numbers == list(range(len(numbers)))
    assert 40 * share * 0.4 <= len(numbers) < 40
    assert isinstance(video.fault, InvalidVideo)
    assert video.fault.detail.startswith(f"after frame {numbers[-1]} (")
    assert "cut off" in video.fault.detail


def test_a_file_that_was_cut_before_its_index(tmp_path: Path) -> None:
    """An MP4 whose index came last can't be read at all once that is lost."""
    with pytest.raises(InvalidVideo, match=r"index \(moov\) is missing"):
        read(videos.cut(textured(tmp_path / "a.mp4"), 0.9))


def test_a_range_before_the_cut_is_whole(tmp_path: Path) -> None:
    """A range within the intact part comes without a fault."""
    path = videos.cut(textured(tmp_path / "a.mkv"), 0.8)
    numbers, video = read(path, end_s=0.4)
    assert numbers == list(range(10))
    assert video.fault is None


FLIPS: list[tuple[str, dict[str, Any]]] = [
    *CUTS,
    ("plain.mp4", {"bframes": 2}),
    ("hevc.mp4", {"codec": "libx265", "x265-params": "log-level=0"}),
    ("vp9.webm", {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"}),
    ("mpeg2.mkv", {"codec": "mpeg2video"}),
    ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
]


@pytest.mark.parametrize(("name", "how"), FLIPS, ids=[name for name, _ in FLIPS])
def test_turned_bits_never_hang_or_kill(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    """With bits turned anywhere, a file gives frames, an error of ours, or both; and always ends."""
    path = textured(tmp_path / name, **how)
    for seed in range(6):
        part = {"end": 0.1} if seed % 3 == 0 else {}
        try:
            numbers, video = read(videos.flipped(path, seed, 10 * 3**seed, **part), VideoLimits(stall_s=5))
        except (InvalidVideo, UnsupportedMediaType, VideoTooLong, ImageTooLarge):
            continue
        assert numbers == sorted(set(numbers))
        assert "decoder" not in (video.fault.detail if video.fault else "")


def test_damage_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    """Some broken packets cost their frames and are counted; the rest of the video comes, without a fault."""
    path = textured(tmp_path / "a.avi", 60, codec="mjpeg", pix_fmt="yuvj420p")
    numbers, video = read(videos.flipped(path, 3, 30, 0.3, 0.5))
    assert len(numbers) >= 55
    assert video.damaged > 0
    assert video.fault is None


def test_a_stream_that_only_fails_ends_in_a_fault(tmp_path: Path) -> None:
    """After a thousand packets in a row that can't be decoded, nobody waits for the next."""
    path = videos.count(tmp_path / "a.mp4", 1300, gop=10)
    data = path.read_bytes()
    first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
    begin = first + (last - first) // 10
    path.write_bytes(data[:begin] + b"\xff" * (last - begin) + data[last:])
    numbers, video = read(path, every=20)
    assert numbers
    assert isinstance(video.fault, InvalidVideo)
    assert "any further" in video.fault.detail
    assert 1000 <= video.damaged < 1100


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("hls.mp4", b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "HLS"),
        ("concat.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n", "concat"),
        ("dash.mp4", b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>", "XML"),
        ("picture.mkv", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100), "JPEG"),
        ("text.avi", b"no video at all, only words", "text"),
    ],
)
def test_what_is_no_video_is_not_opened(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Playlists with a video's name, which FFmpeg would follow to files and addresses, never reach it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedMediaType, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "head", [b"\x00\x00\x00\x18ftypisom", b"\x1aE\xdf\xa3\x93matroska", b"RIFF\x00\x01\x00\x00AVI "]
)
def test_a_playlist_behind_a_videos_first_bytes(tmp_path: Path, head: bytes) -> None:
    """The demuxer that the first bytes name is the only one that sees the file."""
    (tmp_path / "a.mp4").write_bytes(head + b"\n#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n")
    with pytest.raises(InvalidVideo):
        read(tmp_path / "a.mp4")


def test_a_video_never_reads_another_file(tmp_path: Path) -> None:
    """A QuickTime file may say that its frames lie elsewhere on the disk: they aren't fetched, though FFmpeg could."""
    secret = videos.count(tmp_path / "secret.mp4", 10)
    path = videos.external(tmp_path / "external.mp4", secret)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as file:
        assert len(list(file.decode(video=0))) == 10  # the trap is a real one
    with pytest.raises(InvalidVideo, match="no frames"):
        read(path)


def test_the_wrong_container(tmp_path: Path) -> None:
    """The name doesn't count: a Matroska file called .mp4 is a Matroska file."""
    path = videos.count(tmp_path / "a.mkv", 5).rename(tmp_path / "a.mp4")
    numbers, video = read(path)
    assert numbers == list(range(5))
    assert video.facts.container == "matroska"


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv"])
def test_sound_only(tmp_path: Path, name: str) -> None:
    """A file without pictures says what it holds instead."""
    with pytest.raises(InvalidVideo, match="no video stream; it holds: audio"):
        read(videos.audio(tmp_path / name))


def test_a_song_with_a_cover(tmp_path: Path) -> None:
    """A cover picture is no video stream, and the message says that it is all there is."""
    with pytest.raises(InvalidVideo, match="no video stream, only a cover picture; it holds: audio"):
        read(videos.covered(tmp_path / "song.mp4"))


def test_a_codec_that_is_not_served(tmp_path: Path) -> None:
    """FFmpeg's rarer decoders are out of reach, and the message names the one that was asked for."""
    with pytest.raises(InvalidVideo, match=r"codec \(flv\) is not served; docs/videos.md"):
        read(textured(tmp_path / "a.avi", 3, codec="flv"))


def test_no_frames(tmp_path: Path) -> None:
    """A video stream that holds nothing is an invalid video, not an empty answer."""
    with pytest.raises(InvalidVideo, match="no frames"):
        read(videos.no_frames(tmp_path / "none.mp4"))


def test_an_empty_file(tmp_path: Path) -> None:
    """Nothing is no video."""
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InvalidVideo, match="empty"):
        read(tmp_path / "empty.mp4")


def test_too_many_pixels(tmp_path: Path) -> None:
    """The header's size is held against the limit before a frame is decoded."""
    path = textured(tmp_path / "a.mp4", 2)
    with pytest.raises(ImageTooLarge, match="160 x 96 = 15360 pixels; at most 15359"):
        read(path, VideoLimits(max_pixels=15_359))
    assert read(path, VideoLimits(max_pixels=15_360))[0] == [0, 1]


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(160, 96, "160 x 96 = 15360 pixels; at most 1000"), (4096, 2400, "more than 1000 pixels")],
)
def test_a_header_that_lies_about_its_size(tmp_path: Path, width: int, height: int, said: str) -> None:
    """An AVI file that says 16 x 16 is caught: pictures much larger by FFmpeg before it decodes them, others after."""
    path = videos.write(
        tmp_path / "a.avi", videos.textured(2, width, height), codec="mjpeg", pix_fmt="yuvj420p"
    )
    size = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    small = videos.patched(path, size, (16).to_bytes(4, "little") * 2)
    assert read(small)[0] == [0, 1]
    with pytest.raises(ImageTooLarge, match=said):
        read(small, VideoLimits(max_pixels=1000))


def test_frames_that_grow_over_the_limit(tmp_path: Path) -> None:
    """Frames before the growth are delivered."""
    path = videos.growing(tmp_path / "call.webm", [(96, 64), (192, 128)])
    numbers, video = read(path, VideoLimits(max_pixels=96 * 64))
    assert numbers == [0, 1, 2, 3, 4]
    assert isinstance(video.fault, ImageTooLarge)
    assert video.fault.detail.startswith("after frame 4 (0.16 s): ")


def test_too_long_by_the_header(tmp_path: Path) -> None:
    """Duration counts over the range that is asked for, and before anything is decoded."""
    path = videos.count(tmp_path / "a.mp4", 100)
    with pytest.raises(VideoTooLong, match=r"4.0 s of video are asked for; at most 3 s"):
        read(path, VideoLimits(max_duration_s=3))
    assert len(read(path, VideoLimits(max_duration_s=3), start_s=1)[0]) == 75
    assert len(read(path, VideoLimits(max_duration_s=3), end_s=2)[0]) == 50


def lying(path: Path) -> Path:
    """An MP4 of four seconds whose boxes all say one."""
    data = bytearray(path.read_bytes())
    for box, place in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = data.index(box) + place
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") // 4).to_bytes(4, "big")
    made = path.with_name("lying.mp4")
    made.write_bytes(data)
    return made


def test_too_long_in_fact(tmp_path: Path) -> None:
    """A header that says less than there is buys nothing: the time that was decoded counts."""
    path = lying(videos.count(tmp_path / "a.mp4", 100, muxer={"use_editlist": "0"}))
    numbers, video = read(path, VideoLimits(max_duration_s=2))
    assert video.facts.duration_s == 4.0  # as counted
    assert numbers == list(range(51))
    assert isinstance(video.fault, VideoTooLong)


def test_too_many_frames(tmp_path: Path) -> None:
    """Sampled frames are counted, by the header beforehand, and one by one where that says too little."""
    path = videos.count(tmp_path / "a.mp4", 100, muxer={"use_editlist": "0"})
    with pytest.raises(VideoTooLong, match="about 100 frames are asked for; at most 60"):
        read(path, VideoLimits(max_frames=60))
    assert len(read(path, VideoLimits(max_frames=60), every=2)[0]) == 50
    numbers, video = read(lying(path), VideoLimits(max_frames=60))
    assert numbers == list(range(60))
    assert isinstance(video.fault, VideoTooLong)


def test_too_little_memory(tmp_path: Path) -> None:
    """A decoder that asks for more memory than it may have says so, when it opens a file or later."""
    path = videos.write(tmp_path / "a.mp4", videos.textured(3, 3840, 2160), preset="ultrafast")
    with pytest.raises(InvalidVideo, match="memory"):
        read(path, VideoLimits(memory_bytes=130 << 20))
    numbers, video = read(path, VideoLimits(memory_bytes=300 << 20))
    assert numbers == []
    assert isinstance(video.fault, InvalidVideo)
    assert "memory" in video.fault.detail


def test_a_decoder_that_stalls_before_its_first_frame(tmp_path: Path) -> None:
    """No sign of life within the limit, here shorter than a process takes to start, is a deadline."""
    path = videos.count(tmp_path / "a.mp4", 5)
    with pytest.raises(DeadlineExceeded) as caught:
        read(path, VideoLimits(stall_s=0.001))
    assert caught.value.stage == "decode"


def test_errors_are_ours(tmp_path: Path) -> None:
    """Whatever is wrong with a file, what is raised has a code of the API."""
    path = tmp_path / "a.mp4"
    for content in (
        b"",
        b"\x00\x00\x00\x08moov",
        b"\x00\x00\x00\x01mdat" + b"\xff" * 8,
        bytes(range(256)) * 20,
    ):
        path.write_bytes(content)
        with pytest.raises(GatewayError) as caught:
            read(path)
        assert caught.value.code in {"invalid_video", "unsupported_media_type"}
