"""Containers are detected by their bytes, and checked for completeness."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import videos

from app.errors import InvalidVideo, UnsupportedMediaType
from app.media.containers import HEAD_BYTES, missing_bytes, sniff_container

HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
    ("suffix", "codec", "container"),
    [
        ("mp4", "libx264", "mov"),
        ("mov", "libx264", "mov"),
        ("3gp", "mpeg4", "mov"),
        ("mkv", "libx264", "matroska"),
        ("webm", "libvpx", "matroska"),
        ("avi", "mpeg4", "avi"),
    ],
)
def test_a_container_is_known_by_its_bytes(tmp_path: Path, suffix: str, codec: str, container: str) -> None:
    """The output of each muxer is recognised under any file name."""
    head = videos.count(tmp_path / f"a.{suffix}", 2, codec=codec).read_bytes()[:HEAD_BYTES]
    assert sniff_container(head) == container


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HLS, "an HLS playlist"),
        (b"\xef\xbb\xbf" + HLS, "an HLS playlist"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a concat playlist"),
        (b"<?xml version='1.0'?><MPD/>", "XML"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"),
        (b"\x00\x00\x00\x1cftypavif", "an AVIF picture"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP picture"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a WAVE audio file"),
        (b"ID3\x04\x00", "an MP3 audio file"),
        (b"\x47" + bytes(187) + b"\x47", "an MPEG transport stream"),
        (b"\x1aE\xdf\xa3\x93B\x82\x88mkvfake", "neither Matroska nor WebM"),
        (b"hello, world", "text"),
        (b"\x00" * 64, "of an unknown kind"),
        (b"\x00", "of an unknown kind"),
    ],
)
def test_what_is_no_video_is_named(head: bytes, said: str) -> None:
    """Playlists, pictures and sound never reach a demuxer, and the message says what they look like."""
    with pytest.raises(UnsupportedMediaType, match=said):
        sniff_container(head)


def test_an_empty_file_is_an_invalid_video() -> None:
    """There is no content to be of any type."""
    with pytest.raises(InvalidVideo, match="empty"):
        sniff_container(b"")


def missing(path: Path, container: str) -> int:
    data = path.read_bytes()
    return missing_bytes(container, lambda at, length: data[at : at + length], len(data))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {}),
        ("faststart.mp4", {"muxer": {"movflags": "faststart"}}),
        ("fragments.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
        ("a.mkv", {}),
        ("a.avi", {"codec": "mpeg4"}),
    ],
)
def test_missing_bytes_are_counted(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    """A whole file lacks nothing; of one that is cut, what its last length still counted."""
    whole = videos.count(tmp_path / name, 30, **how)
    kind = sniff_container(whole.read_bytes()[:HEAD_BYTES])
    assert missing(whole, kind) == 0
    cut = videos.cut(whole, 0.7)
    lost = whole.stat().st_size - cut.stat().st_size
    if name in {"a.mp4", "fragments.mp4"}:  # boxes behind the one that was cut are not known of
        assert 0 < missing(cut, kind) <= lost
    else:
        assert missing(cut, kind) == lost


@pytest.mark.parametrize(
    ("container", "data"),
    [
        ("mov", b""),
        ("mov", b"\x00\x00\x00\x00mdat" + bytes(50)),
        ("mov", b"\x00\x00\x00\x03free" + bytes(50)),
        ("mov", b"\x00\x00\x00\x08free" * 20_000),
        ("mov", b"\x00\x00\x00\x08freegarbage at the end of the file"),
        ("matroska", b""),
        ("matroska", b"\x1aE\xdf\xa3"),
        ("matroska", b"\x1aE\xdf\xa3\x00\x00\x00\x00\x00\x00"),
        ("matroska", b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"),
        ("avi", b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(50)),
        ("avi", b""),
    ],
)
def test_a_file_that_does_not_say_its_length_lacks_nothing(container: str, data: bytes) -> None:
    """Live recordings, boxes to the end of the file, and nonsense: no length, no verdict, no loop."""
    assert missing_bytes(container, lambda at, length: data[at : at + length], len(data)) == 0
