"""A video's frames: sampled, upright, in RGB, decoded in a process of their own that can be killed.

    with VideoReader(file, Sampling(fps=2), VideoLimits()) as video:
        for frame in video:
            look_at(frame.rgb)
            frame.release()
    if video.fault: ...          # what was decoded was delivered

The gateway itself parses nothing of the file but its first few bytes: FFmpeg lives in the child (`video_process`),
which is confined, limited in memory and processor time, and dies with the gateway.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import BinaryIO, Self

from app.errors import (
    DeadlineExceeded,
    GatewayError,
    ImageTooLarge,
    InvalidVideo,
    Overloaded,
    VideoTooLong,
)
from app.media.containers import HEAD_BYTES, sniff_container
from app.media.video import protocol
from app.media.video.child import DecoderProcess
from app.media.video.facts import VideoFacts, VideoLimits
from app.media.video.sampling import Sampling
from app.media.video.slots import RGB, Ring, VideoFrame

__all__ = ["Sampling", "VideoFacts", "VideoFrame", "VideoLimits", "VideoReader", "sniff_container"]

_FAULTS: dict[str, type[GatewayError]] = {
    error.code: error for error in (InvalidVideo, VideoTooLong, ImageTooLarge)
}
_LAST_WORDS_S = 2.0
_MOST_DETAIL = 500
_LOOKS = 4  # times a stall's length that it is looked for
_NONSENSE = "the decoder answered nonsense"
_MOST_INDEX = 1 << 53


class VideoReader:
    """Reads one video, from one thread; `close` and the frames' `release` may be called from any.

    At most `slots` frames are held at a time: if all are held, asking for the next waits until one is released.
    So memory is `slots` frames' pixels plus the decoder's own, whatever the video's length.

    `facts` are known once the first frame is decoded, and corrected where later frames contradict them.
    `fault` says why it ended early, None where it didn't; `decoded` counts frames, sampled or not; `damaged` counts
    packets and frames that were broken but could be passed over; `warnings` say, at the end, what was odd about times.
    """

    facts: VideoFacts

    def __init__(
        self,
        file: BinaryIO,
        sampling: Sampling | None = None,
        limits: VideoLimits | None = None,
        slots: int = 8,
    ) -> None:
        """Open a video and decode its first frame.

        Args:
            file: a regular file with a descriptor, flushed; its position neither matters nor changes.
            sampling: which frames; all of them by default.
            limits: what it may cost.
            slots: how many frames may be held at a time.

        Raises:
            UnsupportedMediaType: the content is no MP4/MOV, Matroska/WebM or AVI file.
            InvalidVideo: it has no video stream, no frame could be decoded, or the decoder died of it.
            ImageTooLarge, VideoTooLong: it is over a limit.
            DeadlineExceeded: it stalled before its first frame.
            Overloaded: no process could be started.
        """
        self._limits = limits or VideoLimits()
        self.fault: GatewayError | None = None
        self.decoded = 0
        self.damaged = 0
        self.warnings: list[str] = []
        self._last: VideoFrame | None = None
        self._closed = self._over = False
        self._freed_at = 0.0
        self._lock = threading.Lock()  # guards what release and close share with the reading thread
        self._reading = threading.Lock()  # held while the socket is read
        self._child: DecoderProcess | None = None
        container = sniff_container(os.pread(file.fileno(), HEAD_BYTES, 0))
        with _scarce("no decoder can be started"):
            self._ring, self._end, child_end = _prepared(slots)
        try:
            with _scarce("no decoder can be started"):
                self._child = DecoderProcess(child_end, file.fileno(), self._ring.fd)
            self._ask(container, sampling or Sampling())
            self._first_facts()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """The sampled frames, each held once for the caller, who releases it; until the end, a fault, or `close`."""
        while (message := self._message("frame")) is not None:
            if (frame := self._frame(message)) is not None:
                yield frame

    def close(self) -> None:
        """Kill the decoder if it runs, and end an iteration that waits for it. Frames that are held stay readable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._child is not None:
            self._child.kill()
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)  # wakes the reading thread
        with self._reading:
            self._end.close()
            self._ring.close()
        if self._child is not None:
            self._child.join(_LAST_WORDS_S)

    def _ask(self, container: str, sampling: Sampling) -> None:
        limits = asdict(self._limits)
        stall, memory = limits.pop("stall_s"), limits.pop("memory_bytes")
        self._end.settimeout(stall / _LOOKS)
        with suppress(OSError):  # it died at once: reading says so
            protocol.send(
                self._end,
                "task",
                container=container,
                sampling=asdict(sampling),
                limits=limits,
                stall_s=stall,
                memory_bytes=memory,
            )

    def _first_facts(self) -> None:
        if self._message("facts") is None:
            raise self.fault or InvalidVideo("it holds no frames")

    def _message(self, wanted: str) -> protocol.Message | None:
        """The next message of a kind, having done what others ask for; None at the end, with `fault` set."""
        stall = _Stall(self._limits.stall_s)
        with self._reading:
            while not self._over and not self._closed:
                try:
                    with self._sense():
                        message = protocol.receive(self._end)
                        if message is None:
                            self._died()
                        elif self._understood(message) == wanted:
                            return message
                        stall = _Stall(self._limits.stall_s)
                except TimeoutError:
                    if self._child is not None:
                        stall.look(*self._child.activity())
                    self._check_stall(stall.since)
        return None

    @contextmanager
    def _sense(self) -> Iterator[None]:
        """Context manager that stops the decoder, which reads untrusted files, if it sends an invalid message."""
        try:
            yield
        except TimeoutError:
            raise
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            self._stop(InvalidVideo, f"{_NONSENSE} ({error!r})"[:_MOST_DETAIL])

    def _understood(self, message: protocol.Message) -> str:
        kind: str = message["kind"]
        self.decoded = max(self.decoded, int(message.get("decoded", 0)))
        self.damaged = max(self.damaged, int(message.get("damaged", 0)))
        self.warnings = [str(words)[:_MOST_DETAIL] for words in message.get("warnings", self.warnings)]
        if kind == "facts":
            self.facts = VideoFacts.checked(message["facts"])
        elif kind == "need":
            self._grow(int(message["bytes"]))
        elif kind == "end":
            self._over = True
            if (error := message["error"]) is not None:
                self._stop(_FAULTS[error["code"]], str(error["detail"])[:_MOST_DETAIL])
        return kind

    def _grow(self, need: int) -> None:
        most = self._limits.max_pixels * RGB + protocol.SPARE_BYTES
        if not self._ring.slot_bytes < need <= most:
            raise ValueError("slots of that size")
        with self._lock:
            with _scarce("its frames have no memory"):  # which passes: it says nothing of the video
                offset = self._ring.grow(need, most)
            ring = {"offset": offset, "slot_bytes": self._ring.slot_bytes, "slots": self._ring.slots}
            with suppress(OSError):  # it is gone: reading says so
                protocol.send(self._end, "ring", ring=ring)

    def _frame(self, message: protocol.Message) -> VideoFrame | None:
        frame: VideoFrame | None = None
        with self._sense():
            slot, generation = message["slot"], self._ring.generation
            index, time_s = int(message["index"]), float(message["time_s"])
            decode_s = float(message["decode_s"])
            if not 0 <= index < _MOST_INDEX or not math.isfinite(time_s) or not 0 <= decode_s < math.inf:
                raise ValueError("a number out of range")
            rgb = self._ring.view(slot, message["height"], message["width"])
            with self._lock:
                self._ring.free.remove(slot)
            free = partial(self._released, generation, slot)
            self._last = frame = VideoFrame(index, time_s, rgb, free, decode_s)
        return frame

    def _released(self, generation: int, slot: int) -> None:
        with self._lock:
            if self._closed or generation != self._ring.generation:
                return
            self._ring.free.add(slot)
            self._freed_at = time.monotonic()
            with suppress(OSError):  # it is gone: reading says so
                protocol.send(self._end, "free", slot=slot)

    def _check_stall(self, since: float) -> None:
        with self._lock:
            waits = self._ring.generation > 0 and not self._ring.free  # for a frame to be released
            idle = time.monotonic() - max(since, self._freed_at)
        if not waits and idle >= self._limits.stall_s:
            self._stop(DeadlineExceeded, "")

    def _died(self) -> None:
        """Set the fault of a decoder that ended without a last message."""
        if self._closed or self._child is None:
            self._over = True
            return
        status = self._child.join(_LAST_WORDS_S)
        if status == -signal.SIGPROF:
            self._stop(DeadlineExceeded, "")
        elif status is not None and status < 0:
            self._stop(InvalidVideo, f"the decoder was ended by {signal.Signals(-status).name}")
        else:
            self._stop(InvalidVideo, f"the decoder ended without an answer (status {status})")

    def _stop(self, fault: type[GatewayError], detail: str) -> None:
        """End it early; the child is of no more use."""
        self._over = True
        if self._child is not None:
            self._child.kill()
        if fault is DeadlineExceeded:
            self.fault = DeadlineExceeded("decode")
            return
        last = self._last
        self.fault = fault(f"after frame {last.index} ({last.time_s:.2f} s): {detail}" if last else detail)


class _Stall:
    """Distinguishes a decoder that hangs from one that gets no processor time.

    `since`: when it was last seen to work, or to wait for a processor, since its last message. Work without a message
    counts for at most twice the limit: its own clock ends it after once.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._used_s: float | None = None
        self._latest_s = 0.0
        self.since = time.monotonic()

    def look(self, used_s: float, runnable: bool) -> None:
        """Record the processor time that the decoder has used, and whether it waits for more."""
        if self._used_s is None:
            self._used_s = self._latest_s = used_s
        works = runnable or used_s > self._latest_s
        self._latest_s = used_s
        if works and used_s - self._used_s <= 2 * self._limit_s:
            self.since = time.monotonic()


def _prepared(slots: int) -> tuple[Ring, socket.socket, socket.socket]:
    ring = Ring(slots)
    try:
        return ring, *protocol.pair()
    except OSError:
        ring.close()
        raise


@contextmanager
def _scarce(what: str) -> Iterator[None]:
    """Context manager that reports a lack of descriptors, memory or processes as Overloaded."""
    try:
        yield
    except OSError as error:
        raise Overloaded(f"{what}: {error.strerror or error}", retry_after=1.0) from error
