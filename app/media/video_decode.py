"""A video file's frames, decoded one after another by FFmpeg. Runs in the decoder's own process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.errors import ImageTooLarge, InvalidVideo, VideoTooLong
from app.media.containers import AVI, missing_bytes
from app.media.video_open import Source, open_video, reason
from app.media.video_sampling import Clock, Sampling

NO_MEMORY = "decoding it needs more memory than a decoder may have"
# A lost keyframe makes every packet of its group fail, and groups of 600 frames are in use.
_MOST_FAILURES = 1000
_MOST_READ_FAILURES = 16
# A jump costs about as much as decoding a second or two.
_SEEK_FROM_S = 2.0
# Jumps go by when packets are decoded, which is before their frames are shown: aim so much earlier.
_SEEK_MARGIN_S = 0.5
_NOMINAL_RATE = Fraction(25)
_COMMON_RATE = 120
# More frames a second than that, over the longest duration, are made to keep a decoder busy.
_MOST_RATE = 240


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of `VideoLimits` that counts while decoding."""

    max_pixels: int
    max_duration_s: float
    max_frames: int


@dataclass(frozen=True, slots=True)
class Timed:
    """One decoded frame: its number in the order of presentation, and when it is shown, in seconds from the first."""

    index: int
    time: Fraction
    frame: VideoFrame


class Video:
    """An opened video. `decoded` counts its frames so far, `damaged` packets that were broken or gave broken frames."""

    def __init__(
        self,
        source: Source,
        container: str,
        sampling: Sampling,
        limits: Limits,
        alive: Callable[[int, int], None],
    ) -> None:
        """Open it, and hold what its header says against the limits.

        `alive` is called with `decoded` and `damaged` at every step.

        Raises:
            InvalidVideo, ImageTooLarge, VideoTooLong: as `VideoReader`.
        """
        self.limits = limits
        self._source = source
        self._container = container
        self._sampling = sampling
        self._alive = alive
        self._open()
        self._check_header()

    def _open(self) -> None:
        self.decoded = self.damaged = self._packets_read = 0
        self._jumped = False
        self._alive(0, 0)
        self._file, self._stream, self._codec = open_video(
            self._source, self._container, self.limits.max_pixels, keyframes=self._sampling.keyframes
        )
        self.time_base = self._stream.time_base or Fraction(1, 1000)
        self._rate = self._stream.average_rate or None
        self._next_index = 0

    def _check_header(self) -> None:
        self._check_pixels(self._codec.width, self._codec.height)
        span, longest = self._sampling.span(self._duration), self.limits.max_duration_s
        if span is not None and span > longest:
            raise VideoTooLong(f"{span:.1f} s of video are asked for; at most {longest:g} s are read")
        # A recording whose rate varies may have any number here: beyond what is common, the frames will be counted.
        rate = float(self._rate) if self._rate and self._rate <= _COMMON_RATE else None
        frames, most = self._sampling.expected(self._duration, rate), self.limits.max_frames
        if rate is not None and frames > most:
            raise VideoTooLong(f"about {frames} frames are asked for; at most {most} are answered")

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise ImageTooLarge(
                f"the frames are {width} x {height} = {width * height} pixels; "
                f"at most {self.limits.max_pixels} are decoded"
            )

    @property
    def _duration(self) -> float | None:
        stream, file = self._stream.duration, self._file.duration
        if stream is not None and stream > 0:
            return float(stream * self.time_base)
        return file / av.time_base if file is not None and file > 0 else None

    def facts(self) -> dict[str, Any]:
        """What the container says, by the names of `VideoFacts`."""
        return {
            "duration_s": self._duration,
            "fps": float(self._rate) if self._rate else None,
            "frames": self._stream.frames or None,
            "codec": self._codec.codec.canonical_name,
            "container": self._container,
        }

    def frames(self) -> Iterator[Timed]:
        """All frames from the beginning of the range or before, in the order of presentation.

        Raises:
            GatewayError: the fault that ended it; frames before it have been yielded.
        """
        if self._jump():
            frames = self._timed()
            first = next(frames, None)
            if first is not None and first.time <= self._sampling.start_s:
                yield first
                yield from frames
                return
            self._open()  # the file's index led behind the range: read it all
        yield from self._timed()

    def _jump(self) -> bool:
        """Go to a keyframe before the range, where that saves work and times are known there."""
        start = self._stream.start_time
        # An AVI file's times lag by as many frames as its decoder reorders, and that shows only at its beginning.
        lags = self._container == AVI and self._codec.reorder_depth > 0
        if self._sampling.start_s < _SEEK_FROM_S or start is None or not self._rate or lags:
            return False
        target = start + int(Fraction(self._sampling.start_s - _SEEK_MARGIN_S) / self.time_base)
        with suppress(FFmpegError, OverflowError):
            self._file.seek(target, stream=self._stream)
            self._jumped = True
        return self._jumped

    def _timed(self) -> Iterator[Timed]:
        clock: Clock | None = None
        first: Fraction | None = None
        for frame in self._decoded():
            timestamp = self._timestamp(frame)
            if clock is None:
                clock = Clock(self.time_base, self._origin(timestamp), 1 / (self._rate or _NOMINAL_RATE))
            time = clock.at(timestamp)
            first = time if first is None else first
            index = self._index(time)
            self.decoded += 1
            self._check_frame(frame, time, first)
            yield Timed(index, time, frame)

    def _timestamp(self, frame: VideoFrame) -> int | None:
        """When the frame is shown, in ticks.

        An AVI file stores no such times: there it is when the packet was read that set the frame free, which is as
        regular; FFmpeg's guess at more is wrong where frames are reordered.
        """
        return frame.dts if self._container == AVI or frame.pts is None else frame.pts

    def _origin(self, first: int | None) -> int:
        """The timestamp of the stream's first frame, given that of the first one decoded."""
        start = self._stream.start_time
        lags = self._container == AVI and not self._jumped
        return first or 0 if lags or start is None else start

    def _index(self, time: Fraction) -> int:
        """The next frame's number: one more than the last, but for those that were never decoded, which time tells."""
        unseen = self._sampling.keyframes or (self._jumped and not self.decoded)
        number = max(self._next_index, round(time * self._rate) if unseen and self._rate else 0)
        self._next_index = number + 1
        return number

    def _check_frame(self, frame: VideoFrame, time: Fraction, first: Fraction) -> None:
        self._check_pixels(frame.width, frame.height)
        longest = self.limits.max_duration_s
        # What has to be decoded on the way to the range may be as long again.
        long = time - self._sampling.start_s > longest or time - first > 2 * longest
        if long or self.decoded > max(2 * longest * _MOST_RATE, self.limits.max_frames):
            raise VideoTooLong(f"at most {longest:g} s of video are read")

    def _decoded(self) -> Iterator[VideoFrame]:
        failures = 0
        for packet in self._packets():
            self._alive(self.decoded, self.damaged)
            frames: list[VideoFrame] = []
            failure: Exception | None = None
            try:
                frames = self._codec.decode(packet)
            except EOFError:
                break
            except (FFmpegError, ValueError) as error:
                failure = error
            failures = 0 if frames else failures + (failure is not None)
            self.damaged += failure is not None or packet.is_corrupt or any(f.is_corrupt for f in frames)
            if failure is not None:
                self._judge(failure, persistent=failures > _MOST_FAILURES)
            # Decoders that can't pass over frames decode them all.
            yield from (f for f in frames if f.key_frame or not self._sampling.keyframes)
        self._check_end()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets, with an empty one at the end that sets the last frames free."""
        for failures in range(_MOST_READ_FAILURES + 1):
            try:
                for packet in self._file.demux(self._stream):
                    self._packets_read += packet.size > 0
                    yield packet
            except FFmpegError as error:
                self.damaged += 1
                self._judge(error, persistent=failures == _MOST_READ_FAILURES)
            else:
                return

    def _judge(self, error: Exception, *, persistent: bool) -> None:
        """Raise what can't be passed over: frames grown over the limit, or a fault without end."""
        said = reason(error)
        if "max pixel count" in said:  # FFmpeg itself held its first look at the frame against the limit
            raise ImageTooLarge(
                f"the frames have more than {self.limits.max_pixels} pixels: {said}"
            ) from error
        if persistent:  # memory too: one packet whose length is damaged asks for more than there is
            memory = isinstance(error, MemoryError)
            raise InvalidVideo(NO_MEMORY if memory else f"it can't be decoded any further: {said}") from error

    def _check_end(self) -> None:
        missing = missing_bytes(self._container, self._source.read_at, self._source.size)
        complete = self._stream.frames and self._packets_read >= self._stream.frames
        if missing and not complete:
            raise InvalidVideo(f"the file is cut off: {missing} bytes are missing at its end")
        if not self.decoded:
            broken = f"no frame could be decoded; {self.damaged} packets are damaged"
            raise InvalidVideo(broken if self.damaged else "it holds no frames")
