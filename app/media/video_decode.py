"""A video file's frames, decoded one after another by FFmpeg. Runs in the decoder's own process only.

FFmpeg gets a descriptor's bytes and nothing else: the demuxer is forced, only the decoders named here exist for it, and
what else it would open is refused. PyAV's modules are imported whole: it would look for some of them when a stream
calls for it, and by then no file can be opened.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import av
import av.audio.stream
import av.logging
import av.subtitles.codeccontext
import av.subtitles.stream
from av.codec.context import CodecContext
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.errors import GatewayError, ImageTooLarge, InvalidVideo, VideoTooLong
from app.media.containers import missing_bytes
from app.media.video_sampling import Clock, Sampling

# What phones, cameras, browsers and editors write. FFmpeg has hundreds more, made for games and forgotten hardware,
# that an AVI or MOV file may name and that few people have ever tested.
DECODERS = frozenset(
    {
        "h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "msmpeg4", "msmpeg4v2", "h263", "mjpeg", "mpeg1video",
        "mpeg2video", "prores", "dnxhd", "dvvideo", "rawvideo",
    }
)  # fmt: skip
NO_MEMORY = "decoding it needs more memory than a decoder may have"
_BUFFER_BYTES = 1 << 18
# A lost keyframe makes every packet of its group fail, and groups of 600 frames are in use.
_MOST_FAILURES = 1000
_MOST_READ_FAILURES = 16
# Seeking costs about as much as decoding a second or two.
_SEEK_FROM_S = 2.0
# Decoders deliver frames later than their keyframe's decoding time: aim so much before.
_SEEK_MARGIN_S = 0.5
_NOMINAL_RATE = Fraction(25)
# More frames than that a second of the longest duration are made to keep a decoder busy.
_MOST_RATE = 240


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of `VideoLimits` that counts while decoding."""

    max_pixels: int
    max_duration_s: float
    max_frames: int


@dataclass(frozen=True, slots=True)
class Timed:
    """One decoded frame: its number in the order of presentation, and when it is shown."""

    index: int
    time: Fraction
    frame: VideoFrame


class Source:
    """A descriptor as the file object that PyAV reads from; keeps a position of its own, and shares none."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self.size = os.fstat(fd).st_size

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


class Video:
    """An opened video: `facts` by its header, and its frames."""

    def __init__(
        self,
        source: Source,
        container: str,
        sampling: Sampling,
        limits: Limits,
        alive: Callable[[int, int], None],
    ) -> None:
        self._source = source
        self._container = container
        self._sampling = sampling
        self.limits = limits
        self._alive = alive
        self.decoded = 0
        self.damaged = 0
        self._seen_packets = 0
        alive(0, 0)
        self._open()
        self._check_header()

    def _open(self) -> None:
        self._source.seek(0)
        with translated("it can't be opened"):
            self._file = _open(self._source, self._container, self.limits.max_pixels)
            self._stream = _choose_stream(self._file)
            self._codec = _configure(self._stream, self.limits.max_pixels, self._sampling)
        self.time_base = self._stream.time_base or Fraction(1, 1000)
        self._rate = self._stream.average_rate or self._stream.guessed_rate
        self._exact = not self._sampling.keyframes

    def _check_header(self) -> None:
        width, height = self._codec.width, self._codec.height
        self.check_pixels(width, height)
        if (span := self._sampling.span(self.duration_s)) is not None and span > self.limits.max_duration_s:
            raise VideoTooLong(
                f"{span:.1f} s of video are asked for; at most {self.limits.max_duration_s:g} s are read"
            )
        rate = float(self._rate) if self._rate else None
        if (expected := self._sampling.expected(self.duration_s, rate)) > self.limits.max_frames:
            raise VideoTooLong(
                f"{expected} frames are asked for; at most {self.limits.max_frames} are answered"
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Raises ImageTooLarge where a frame of this size has more pixels than allowed."""
        if width * height > self.limits.max_pixels:
            raise ImageTooLarge(
                f"the frames are {width} x {height} = {width * height} pixels; "
                f"at most {self.limits.max_pixels} are decoded"
            )

    @property
    def duration_s(self) -> float | None:
        """What the container says."""
        stream, whole = self._stream.duration, self._file.duration
        if stream is not None and stream > 0:
            return float(stream * self.time_base)
        return whole / av.time_base if whole is not None and whole > 0 else None

    def facts(self) -> dict[str, Any]:
        """What the container says beside the frames' size."""
        return {
            "duration_s": self.duration_s,
            "fps": float(self._rate) if self._rate else None,
            "frames": self._stream.frames or None,
            "codec": self._codec.codec.canonical_name,
            "container": self._container,
        }

    def frames(self) -> Iterator[Timed]:
        """All frames from the beginning of the range or before, in the order of presentation.

        Raises:
            GatewayError: at the fault that ended it; frames before it have been yielded.
        """
        if self._sampling.start_s >= _SEEK_FROM_S and self._seek():
            frames = self._timed()
            first = next(frames, None)
            if first is not None and first.time <= self._sampling.start_s:
                yield first
                yield from frames
                return
            self._open()  # the index led behind the range: read it all
            self.decoded = self.damaged = self._seen_packets = 0
        yield from self._timed()

    def _seek(self) -> bool:
        if self._stream.start_time is None or not self._rate:
            return False
        seconds = self._sampling.start_s - _SEEK_MARGIN_S
        target = self._stream.start_time + int(Fraction(seconds) / self.time_base)
        with suppress(FFmpegError, OverflowError):
            self._file.seek(target, stream=self._stream)
            self._exact = False
            return True
        return False

    def _timed(self) -> Iterator[Timed]:
        origin = self._stream.start_time
        clock: Clock | None = None
        first: Fraction | None = None
        for frame in self._decoded():
            timestamp = frame.pts if frame.pts is not None else frame.dts
            if clock is None:
                begin = origin if origin is not None else timestamp or 0
                clock = Clock(self.time_base, begin, 1 / (self._rate or _NOMINAL_RATE))
            time = clock.at(timestamp)
            first = time if first is None else first
            index = self.decoded if self._exact or not self._rate else round(time * self._rate)
            self.decoded += 1
            self._check_frame(frame, time - first)
            yield Timed(index, time, frame)

    def _check_frame(self, frame: VideoFrame, read: Fraction) -> None:
        self.check_pixels(frame.width, frame.height)
        longest = self.limits.max_duration_s
        if read > longest or self.decoded > max(longest * _MOST_RATE, self.limits.max_frames):
            raise VideoTooLong(f"at most {longest:g} s of video are read")

    def _decoded(self) -> Iterator[VideoFrame]:
        failures = 0
        for packet in self._packets():
            self._alive(self.decoded, self.damaged)
            self.damaged += packet.is_corrupt
            try:
                frames = self._codec.decode(packet)
            except EOFError:
                break
            except (FFmpegError, ValueError) as error:
                self.damaged += 1
                failures += 1
                self._give_up(error, failures > _MOST_FAILURES)
                continue
            for frame in frames:
                failures = 0
                self.damaged += frame.is_corrupt
                if frame.key_frame or not self._sampling.keyframes:
                    yield frame
        self._check_end()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        for failures in range(_MOST_READ_FAILURES + 1):
            try:
                for packet in self._file.demux(self._stream):
                    self._seen_packets += packet.size > 0
                    yield packet
            except FFmpegError as error:
                self.damaged += 1
                self._give_up(error, failures == _MOST_READ_FAILURES)
            else:
                return

    def _give_up(self, error: Exception, persistent: bool) -> None:
        """Raise what can't be skipped: the same fault again and again, or frames that grew beyond the limit."""
        reason = _reason(error)
        if "max pixel count" in reason:
            raise ImageTooLarge(f"the frames have more than {self.limits.max_pixels} pixels: {reason}")
        if isinstance(error, MemoryError | OSError) and "memory" in reason.lower():
            raise InvalidVideo(NO_MEMORY)
        if persistent:
            raise InvalidVideo(f"it can't be decoded any further: {reason}")

    def _check_end(self) -> None:
        missing = missing_bytes(self._container, self._source.read_at, self._source.size)
        whole = self._stream.frames and self._seen_packets >= self._stream.frames
        if missing and not whole:
            raise InvalidVideo(f"the file is cut off: {missing} bytes are missing at its end")
        if not self.decoded:
            raise InvalidVideo(
                f"no frame could be decoded; {self.damaged} packets are damaged"
                if self.damaged
                else "it holds no frames"
            )


class translated:  # noqa: N801  # reads as the statement that it is
    """Raise FFmpeg's errors within as InvalidVideo."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, FFmpegError | ValueError | UnicodeError) and not isinstance(error, GatewayError):
            raise InvalidVideo(f"{self._what}: {_reason(error)}") from error


def quiet() -> None:
    """Keep FFmpeg's last error for messages, and write none of them anywhere."""
    logging.disable()
    av.logging.set_level(av.logging.ERROR)


def _reason(error: Exception) -> str:
    """What FFmpeg says, short and printable: it may quote the file."""
    text = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    if log is not None:
        text = f"{text} ({log[1]}: {log[2].strip()})"
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _refuse(url: str, _flags: int, _options: object) -> NoReturn:
    raise PermissionError(f"a video refers to another file, which is never opened: {url[:100]!r}")


def _open(source: Source, container: str, max_pixels: int) -> InputContainer:
    file: InputContainer = av.open(
        source,
        "r",
        format=container,
        options={"max_pixels": str(max_pixels), "threads": "1"},
        container_options={"codec_whitelist": ",".join(sorted(DECODERS)), "protocol_whitelist": "none"},
        metadata_errors="replace",
        buffer_size=_BUFFER_BYTES,
        io_open=_refuse,
    )
    return file


def _choose_stream(file: InputContainer) -> VideoStream:
    """The stream that a player would show: FFmpeg's best that is no cover picture."""
    best = file.streams.best("video")
    streams = [best] if isinstance(best, VideoStream) else []
    streams += file.streams.video
    for stream in streams:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({s.type for s in file.streams})) or "nothing"
    raise InvalidVideo(f"the file has no video stream; it holds: {kinds}")


def _configure(stream: VideoStream, max_pixels: int, sampling: Sampling) -> Any:
    codec: CodecContext | None = stream.codec_context
    if codec is None or codec.name not in DECODERS:
        name = "unknown" if codec is None else codec.name
        raise InvalidVideo(f"its video codec ({name}) is not served")
    for other in stream.container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    codec.thread_count = 1
    codec.options = {"max_pixels": str(max_pixels)}
    if sampling.keyframes:
        codec.skip_frame = "NONKEY"
    return codec
