"""A video file's frames, decoded one after another by FFmpeg. Runs in the decoder's own process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from app.errors import ImageTooLarge, InvalidVideo, VideoTooLong
from app.media.containers import AVI, missing_bytes
from app.media.video.clock import Clock
from app.media.video.open_file import Source, open_video, reason
from app.media.video.packets.announced import Announced
from app.media.video.packets.needed import NeededPackets, Unprovable
from app.media.video.packets.roles import RoleOf, role_of, shows_nothing
from app.media.video.packets.scan import PacketScan
from app.media.video.sampling import Choice, Sampler, Sampling

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
# A header's duration may differ from what was decoded by so many seconds, or this share.
_LATE_S = 0.5
_SHARE = 0.01
# A higher frame rate over the longest duration only serves to keep a decoder busy, so it is refused.
_MOST_RATE = 240
# Errors that say that a file is damaged, or more than the decoder copes with.
_DAMAGE = (FFmpegError, ValueError, EOFError, MemoryError)


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of `VideoLimits` that counts while decoding."""

    max_pixels: int
    max_duration_s: float
    max_frames: int


@dataclass(frozen=True, slots=True)
class Timed:
    """One decoded frame: its number in the order of presentation, when it is shown, in seconds from the first, and
    the decision about it.
    """

    index: int
    time: Fraction
    frame: VideoFrame
    choice: Choice


_Chosen = tuple[int, Fraction, Choice]  # of a frame that isn't decoded yet


class Video:
    """An opened video. `decoded` counts its frames so far, `damaged` packets that were broken or gave broken frames.

    `news` counts how often its facts have changed since they were first told.
    """

    def __init__(
        self,
        source: Source,
        container: str,
        sampling: Sampling,
        limits: Limits,
        alive: Callable[[int, int], None],
    ) -> None:
        """Open the video, and check its header against the limits.

        `alive` is called with `decoded` and `damaged` at every step.

        Raises:
            InvalidVideo, ImageTooLarge, VideoTooLong: as `VideoReader`.
        """
        self.limits = limits
        self.news = 0
        self._source = source
        self._container = container
        self._sampling = sampling
        self._alive = alive
        self._scan: PacketScan | None = None
        self._length: tuple[int, float] | None = None  # frames and seconds, where they were counted
        self._measured = False  # the header is wrong: the rate follows from the length
        self._open(keyframes=sampling.keyframes)
        self._check_header()

    def _open(self, *, keyframes: bool) -> None:
        self.decoded = self.damaged = self._packets_read = self._seen = 0
        self._jumped, self._keyframes = False, keyframes
        self._clock: Clock | None = None
        self._fault: VideoTooLong | None = None
        self._ended = False  # the range
        self._first: Fraction | None = None
        self._tick = -1  # of an AVI file's latest frame
        self._alive(0, 0)
        self._file, self._stream, self._codec = open_video(
            self._source, self._container, self.limits.max_pixels, keyframes=keyframes
        )
        self.time_base = self._stream.time_base or Fraction(1, 1000)
        self._sampler = Sampler(self._sampling, self.time_base)

    @property
    def _packets_ahead(self) -> PacketScan:
        if self._scan is None:
            limits = self.limits
            self._scan = PacketScan(
                self._source.again(),
                self._container,
                limits.max_pixels,
                limits.max_duration_s,
                lambda: self._alive(self.decoded, self.damaged),
            )
        return self._scan

    @property
    def _rate(self) -> float | None:
        """Frames per second, on average."""
        if self._length is not None and self._measured:
            return self._length[0] / self._length[1]
        return float(self._stream.average_rate) if self._stream.average_rate else None

    def _check_header(self) -> None:
        """Hold the header against the limits; packets check what it says beyond them, or of a rare rate."""
        self._check_pixels(self._codec.width, self._codec.height)
        if self._excess() or (self._rate or 0) > _COMMON_RATE:
            self._measure()
        if excess := self._excess():
            raise VideoTooLong(excess)

    def _excess(self) -> str | None:
        """Everything that exceeds the limits."""
        span, longest = self._sampling.span(self._duration), self.limits.max_duration_s
        if span is not None and span > longest:
            return f"{span:.1f} s of video are asked for; at most {longest:g} s are read"
        # A recording whose rate varies may have any number here: beyond what is common, the frames will be counted.
        rate = self._rate if self._rate and self._rate <= _COMMON_RATE else None
        frames, most = self._sampling.expected(self._duration, rate), self.limits.max_frames
        if rate is not None and frames > most:
            return f"about {frames} frames are asked for; at most {most} are answered"
        return None

    def _measure(self) -> None:
        """Take length and number of frames from the packets."""
        frames, seconds = self._packets_ahead.length()
        if frames and seconds > 0:
            self._length, self._measured = (frames, seconds), True
            self.news += 1

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise ImageTooLarge(
                f"the frames are {width} x {height} = {width * height} pixels; "
                f"at most {self.limits.max_pixels} are decoded"
            )

    @property
    def _duration(self) -> float | None:
        if self._length is not None:
            return self._length[1]
        stream, file = self._stream.duration, self._file.duration
        if stream is not None and stream > 0:
            return float(stream * self.time_base)
        return file / av.time_base if file is not None and file > 0 else None

    def facts(self) -> dict[str, Any]:
        """Facts of the stream, by the names of `VideoFacts`."""
        return {
            "duration_s": self._duration,
            "fps": self._rate,
            "frames": self._length[0] if self._length else self._stream.frames or None,
            "codec": self._codec.codec.canonical_name,
            "container": self._container,
        }

    @property
    def pixel_aspect(self) -> float:
        """Width of a stored pixel by its height; 1 where nothing is said."""
        aspect = self._stream.sample_aspect_ratio or self._codec.sample_aspect_ratio
        return float(aspect) if aspect and aspect > 0 else 1.0

    def warnings(self) -> list[str]:
        """Warnings about its times."""
        return self._clock.warnings() if self._clock else []

    def frames(self) -> Iterator[Timed]:
        """The frames that are asked for, and some others before them, in the order of presentation.

        Frames that are passed over without decoding them are counted by their packets. Where these are out of order,
        or something is damaged, all frames are decoded from the beginning.

        Raises:
            GatewayError: the fault that ended it; frames before it have been yielded.
        """
        last, quick = -1, self._quick_way()
        if quick is not None:
            try:
                for timed in quick:
                    last = timed.index
                    yield timed
            except Unprovable:
                self._open(keyframes=False)
            else:
                return
        elif self._keyframes:
            self._open(keyframes=False)
        for timed in self._counting():
            if timed.index > last:
                yield timed

    def _quick_way(self) -> Iterator[Timed] | None:
        """The frames that are asked for without decoding all, where that can be tried; it may raise Unprovable."""
        role = role_of(self._codec.name, self._codec.extradata) if self._samples_some else None
        if role is not None:
            return self._needed(role)
        if self._jump() or (self._keyframes and not self._lags):
            return self._passing_over()
        return None

    @property
    def _samples_some(self) -> bool:
        """True if not all frames of the range are wanted, and which ones can be told by their packets."""
        sampling, rate = self._sampling, self._rate
        if sampling.keyframes or self._container == AVI:
            return False
        return (sampling.every or 1) > 1 or (sampling.fps is not None and (not rate or sampling.fps < rate))

    @property
    def _lags(self) -> bool:
        """An AVI file's times lag by as many frames as its decoder reorders, and that shows only at its beginning."""
        return self._container == AVI and self._codec.reorder_depth > 0

    def _jump(self) -> bool:
        """Go to a keyframe before the range, where that saves work and times are known there."""
        start = self._stream.start_time
        if self._sampling.start_s < _SEEK_FROM_S or start is None or self._lags:
            return False
        target = start + int(Fraction(self._sampling.start_s - _SEEK_MARGIN_S) / self.time_base)
        with suppress(FFmpegError, OverflowError):
            self._file.seek(target, stream=self._stream)
            self._jumped = True
        return self._jumped

    def _needed(self, role: RoleOf) -> Iterator[Timed]:
        """Yield the frames that are wanted, and the first one; decode only what these need.

        Raises:
            Unprovable: something is damaged, or frames don't come as their packets announced them.
        """
        codec, announced = self._codec, Announced[_Chosen]()
        codec.options = {**codec.options, "err_detect": "explode"}  # no damage is concealed
        packets = NeededPackets(
            self._undamaged(),
            role,
            shows_nothing(codec.name),
            partial(self._announce, announced),
            self.time_base,
            self.limits.max_duration_s,
            codec.reorder_depth,
        )
        for needed in packets:
            if needed.resume:
                yield from self._matched(announced, None)
                codec.flush_buffers()
            announced.fed(needed.stamp)
            yield from self._matched(announced, needed.packet)
        yield from self._matched(announced, None)
        if self._fault is not None:
            raise self._fault
        if not self._ended:
            self._check_end()
            self._settle()

    def _announce(self, announced: Announced[_Chosen], index: int, stamp: int, duration: int) -> bool | None:
        """Decide about a frame before it is decoded; see `needed.Choose`."""
        clock = self._clock or self._started(stamp)
        time = clock.at(stamp)
        try:
            self._note(time, duration)
        except VideoTooLong as fault:  # told after the frames before it
            self._fault = fault
            return None
        choice = self._sampler.choose(time, index)
        self._ended = choice is Choice.END
        if choice is Choice.TAKE or not index:
            announced.want(stamp, (index, time, choice))
        return None if self._ended else choice is Choice.TAKE

    def _matched(self, announced: Announced[_Chosen], packet: Packet[VideoStream] | None) -> Iterator[Timed]:
        """Decode a packet, or with None what the decoder still holds."""
        self._alive(self.decoded, self.damaged)
        try:
            frames = self._codec.decode(packet)
        except _DAMAGE as error:
            raise Unprovable from error
        for frame, chosen in announced.matched(frames):
            self.decoded += 1
            self._check_pixels(frame.width, frame.height)
            if chosen is not None:
                index, time, choice = chosen
                yield Timed(index, time, frame, choice)
        if packet is None:
            announced.check_empty()

    def _undamaged(self) -> Iterator[Packet[VideoStream]]:
        for packet in self._packets():
            if self.damaged:
                raise Unprovable
            self._alive(self.decoded, self.damaged)
            yield packet

    def _passing_over(self) -> Iterator[Timed]:
        """Yield frames while others between them are skipped undecoded.

        Raises:
            Unprovable: those can't be counted.
        """
        index = -1
        for frame in self._decoded():
            timestamp = self._timestamp(frame)
            passed = self._keyframes or index < 0
            number = self._packets_ahead.number(timestamp) if passed else index + 1
            if number is None or number <= index:
                raise Unprovable
            clock = self._clock or self._started(timestamp, number)
            time = clock.at(timestamp)
            if index < 0 and self._jumped and time > self._sampling.start_s:
                raise Unprovable  # the file's index led behind the range
            index = number
            yield self._timed(frame, index, time)

    def _counting(self) -> Iterator[Timed]:
        """All frames from the beginning, or the keyframes among them."""
        index = -1
        for frame in self._decoded():
            timestamp = self._timestamp(frame)
            index = self._number(timestamp, index)
            clock = self._clock or self._started(timestamp)
            time = clock.at(timestamp)
            if frame.key_frame or not self._sampling.keyframes:
                yield self._timed(frame, index, time)
            else:
                self.decoded += 1
                self._note(time, frame.duration)
        self._settle()

    def _number(self, timestamp: int | None, before: int) -> int:
        """The number of the next frame, which follows `before`; damage may have taken some between them."""
        number = self._packets_ahead.number(timestamp) if self.damaged and not self._lags else None
        return before + 1 if number is None or number <= before else number

    def _started(self, first: int | None, number: int = 0) -> Clock:
        rate = self._stream.average_rate or _NOMINAL_RATE
        # Keyframes were found in order, and AVI's frames always are.
        in_order = self._container == AVI or self._keyframes
        future = None if in_order else lambda stamp, shown: self._packets_ahead.around(stamp, number + shown)
        self._clock = Clock(self.time_base, self._origin(first), 1 / rate, future, self.limits.max_duration_s)
        return self._clock

    def _timed(self, frame: VideoFrame, index: int, time: Fraction) -> Timed:
        self.decoded += 1
        self._check_pixels(frame.width, frame.height)
        self._note(time, frame.duration)
        return Timed(index, time, frame, self._sampler.choose(time, index))

    def _note(self, time: Fraction, duration: int | None) -> None:
        """Take note of the time of the next frame, and of its duration in ticks.

        Raises:
            VideoTooLong: it is over the limits.
        """
        self._seen += 1
        self._first = time if self._first is None else self._first
        self._check_time(time, self._first)
        said, clock = self._duration, self._clock
        late = said is not None and time > said + _LATE_S
        if not self._measured and (late or (clock is not None and clock.bridged)):
            self._measure()
        self._end = time + (duration * self.time_base if duration else self._interval)

    @property
    def _interval(self) -> Fraction:
        return self._clock.typical if self._clock else Fraction(0)

    def _settle(self) -> None:
        """Replace the header's facts by counted ones, after all frames have been seen."""
        if self.damaged or not self.decoded:
            return
        said, seconds = self._duration, float(self._end)
        wrong = said is None or abs(said - seconds) > max(_LATE_S, _SHARE * seconds)
        if wrong or self.facts()["frames"] != self._seen:
            self._length = (self._seen, seconds if wrong or said is None else said)
            self._measured |= wrong and seconds > 0
            self.news += 1

    def _timestamp(self, frame: VideoFrame) -> int | None:
        """Return the presentation time of the frame, in ticks.

        An AVI file stores no such times: there it is when the packet was read that set the frame free, which is as
        regular; FFmpeg's guess at more is wrong where frames are reordered.
        """
        if self._container != AVI:
            return frame.dts if frame.pts is None else frame.pts
        # The last frames are set free by no packet.
        self._tick = frame.dts if frame.dts is not None else self._tick + 1
        return self._tick

    def _origin(self, first: int | None) -> int:
        """The timestamp of the stream's first frame, given that of the first one decoded."""
        start = self._stream.start_time
        lags = self._container == AVI and not self._jumped
        return first or 0 if lags or start is None else start

    def _check_time(self, time: Fraction, first: Fraction) -> None:
        longest = self.limits.max_duration_s
        # What has to be decoded on the way to the range may be as long again.
        long = time - self._sampling.start_s > longest or time - first > 2 * longest
        if long or self._seen > max(2 * longest * _MOST_RATE, self.limits.max_frames):
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
            yield from (f for f in frames if f.key_frame or not self._keyframes)
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
        """Raise faults that end the video: a frame over the limit, or damage that doesn't stop."""
        said = reason(error)
        if "max pixel count" in said:  # FFmpeg itself held its first look at the frame against the limit
            raise ImageTooLarge(f"the frames have more than {self.limits.max_pixels} pixels") from error
        if persistent:  # memory too: one packet whose length is damaged asks for more than there is
            memory = isinstance(error, MemoryError)
            raise InvalidVideo(
                NO_MEMORY if memory else "it is damaged and can't be decoded any further"
            ) from error

    def _check_end(self) -> None:
        missing = missing_bytes(self._container, self._source.read_at, self._source.size)
        complete = self._stream.frames and self._packets_read >= self._stream.frames
        if missing and not complete:
            raise InvalidVideo(f"the file is cut off: {missing} bytes are missing at its end")
        if not self.decoded:
            broken = f"no frame could be decoded; {self.damaged} packets are damaged"
            raise InvalidVideo(broken if self.damaged else "it holds no frames")
