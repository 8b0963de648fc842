"""Opens a video file for FFmpeg, which can open nothing else. Runs in the decoder's own process only.

FFmpeg gets a descriptor's bytes and nothing else: the demuxer is forced, only the decoders named here exist for it, and
what else it would open is refused. PyAV's modules are imported whole: it would look for some of them when a stream
calls for it, and by then no file can be opened.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import av
import av.audio.stream
import av.logging
import av.subtitles.codeccontext
import av.subtitles.stream
from av.container.input import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from app.errors import GatewayError, InvalidVideo
from app.media.containers import MOV, has_index

# What phones, cameras, browsers and editors write. FFmpeg has hundreds more, made for games and forgotten hardware,
# that an AVI or MOV file may name and that few people have ever tested.
DECODERS = frozenset(
    {
        "h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "msmpeg4", "msmpeg4v2", "h263", "mjpeg", "mpeg1video",
        "mpeg2video", "prores", "dnxhd", "dvvideo", "rawvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo", "qtrle",
        "png", "cfhd", "theora",
    }
)  # fmt: skip
# FFmpeg counts the pixels that it allocates: sides are rounded up, to 64 at most, and few codecs know more than 65,535.
_MARGIN_PIXELS = 2 * 64 * 65_536
_BUFFER_BYTES = 1 << 18
_MOST_REASON = 200


class Source:
    """A descriptor as the file object that PyAV reads from; keeps a position of its own, and shares none."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self.size = os.fstat(fd).st_size

    def again(self) -> Source:
        """The same file with a position of its own."""
        return Source(self._fd)

    def read(self, length: int) -> bytes:
        data = self.read_at(self._position, length)
        self._position += len(data)
        return data

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def open_video(
    source: Source, container: str, max_pixels: int, *, keyframes: bool
) -> tuple[InputContainer, VideoStream, VideoCodecContext]:
    """The opened file, its video stream, and that stream's decoder, which is not started yet.

    Args:
        source: the file.
        container: the demuxer; no other is tried.
        max_pixels: FFmpeg refuses frames that are much larger (by more than its own rounding), also where it looks at
            the first ones to learn what the header hides. To the pixel, the caller has to look.
        keyframes: decode keyframes only.

    Raises:
        InvalidVideo: the file can't be opened, has no video stream, or one of a codec that isn't served.
    """
    if container == MOV and not has_index(source.read_at, source.size):
        raise InvalidVideo("the file's index (moov) is missing: it was cut off, or its recording never ended")
    source.seek(0)
    options = {"max_pixels": str(max_pixels + _MARGIN_PIXELS), "threads": "1"}
    with translated("it can't be opened: its header is damaged or cut off"):
        file: InputContainer = av.open(
            source,
            "r",
            format=container,
            options=options,
            container_options={"codec_whitelist": ",".join(sorted(DECODERS)), "protocol_whitelist": "none"},
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            io_open=_refuse,
        )
        stream = _choose(file)
        return file, stream, _configure(stream, options, keyframes)


def _choose(file: InputContainer) -> VideoStream:
    """The stream that a player would show: FFmpeg's best that is no cover picture."""
    best = file.streams.best("video")
    streams = [best] if isinstance(best, VideoStream) else []
    for stream in (*streams, *file.streams.video):
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({s.type for s in file.streams if s.type != "video"})) or "nothing else"
    if file.streams.video:
        raise InvalidVideo(f"the file has no video stream, only a cover picture; it holds: {kinds}")
    raise InvalidVideo(f"the file has no video stream; it holds: {kinds}")


def _configure(stream: VideoStream, options: dict[str, str], keyframes: bool) -> VideoCodecContext:
    # A codec that this FFmpeg can't decode at all has no context, whatever the stub says.
    codec: VideoCodecContext | None = stream.codec_context
    if codec is None or codec.name not in DECODERS:
        name = codec.name if codec else "unknown"
        raise InvalidVideo(f"its video codec ({name}) is not served; docs/videos.md lists those that are")
    for other in stream.container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    codec.thread_count = 1
    codec.options = options
    if keyframes:
        codec.skip_frame = "NONKEY"
    return codec


def _refuse(url: str, _flags: int, _options: object) -> NoReturn:
    raise PermissionError(f"a video refers to another file, which is never opened: {url[:100]!r}")


def quiet() -> None:
    """Keep FFmpeg's last error for messages, and write none of them anywhere."""
    logging.disable()
    av.logging.set_level(av.logging.ERROR)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise FFmpeg's errors within as InvalidVideo."""
    try:
        yield
    except GatewayError:
        raise
    except (FFmpegError, ValueError) as error:
        if isinstance(error, PermissionError):  # ours: see `_refuse`
            what = "it refers to another file, which is never opened"
        raise InvalidVideo(what) from error


def reason(error: Exception) -> str:
    """FFmpeg's message, shortened: it may quote the file, and is never told to a caller."""
    text = getattr(error, "strerror", None) or str(error)
    if (log := getattr(error, "log", None)) is not None:
        text = f"{text} ({log[1]}: {log[2].strip()})"
    return text[:_MOST_REASON]
