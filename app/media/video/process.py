"""The decoder's process: decodes one video into shared memory, and can be killed at any time.

    python -I -S -c <start> <pid of the gateway> <descriptor of the video> <descriptor of the frames' memory>

Standard input is the socket to the gateway. Everything it needs is imported before the first byte of the video is read;
from then on it can open no file and no connection, and it ends with the gateway, whatever ends that.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from av.video.frame import VideoFrame

from app.errors import GatewayError, InvalidVideo, VideoTooLong
from app.media.video import decode, open_file
from app.media.video.channel import Channel
from app.media.video.decode import Limits, Video
from app.media.video.open_file import Source
from app.media.video.picture import RGB, Compass, Orientation, Painter
from app.media.video.sampling import Choice, Sampling
from app.media.video.swscale import Swscale

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_DESCRIPTORS = 1024
_LINUX = hasattr(ctypes.CDLL(None), "prctl")


def main() -> None:
    """Serve the one task that arrives on standard input, then end."""
    gateway, video, memory = (int(number) for number in sys.argv[-3:])
    _die_with(gateway)
    channel = Channel(socket.socket(fileno=0), memory)
    task = channel.receive()
    painter = Painter(Swscale.loaded())
    _confine(task["memory_bytes"])
    channel.stall_s = task["stall_s"]
    open_file.quiet()
    channel.end(_serve(task, Source(video), painter, channel))


def _die_with(gateway: int) -> None:
    """Be killed when the thread that started this process ends; end now if it has already.

    Where the kernel can't do that (macOS), the process ends with the next message that nobody reads.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != gateway:
        sys.exit(0)


def _confine(memory_bytes: int) -> None:
    """Give up what decoding doesn't need: files, connections, more memory, new privileges, a core dump.

    Processor time has no limit as a whole, since a long video may well take hours; see `Channel.send`.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with suppress(OSError):  # the kernel's first choice when memory runs out: this process, not the gateway
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _cap(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    _cap(resource.RLIMIT_CORE, 0, 0)
    _cap(resource.RLIMIT_FSIZE, 0, 0)
    _cap(resource.RLIMIT_NOFILE, 0, _DESCRIPTORS)  # mapping memory takes one for a moment, hence the second


def _prctl(what: int, *values: int) -> None:
    """Ask the kernel for something that only Linux does."""
    if _LINUX:
        ctypes.CDLL(None).prctl(what, *values)


def _cap(what: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    most = resource.getrlimit(what)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    try:
        resource.setrlimit(what, (soft, hard))
    except (OSError, ValueError):
        if _LINUX:  # macOS refuses some limits; here the decoder mustn't be without
            raise


def _serve(task: dict[str, Any], source: Source, painter: Painter, channel: Channel) -> GatewayError | None:
    """Decode, and answer what ended it early."""
    sampling, limits = Sampling(**task["sampling"]), Limits(**task["limits"])
    try:
        video = Video(source, task["container"], sampling, limits, channel.alive)
        try:
            _deliver(video, painter, channel)
        finally:
            channel.send("alive", decoded=video.decoded, damaged=video.damaged, warnings=video.warnings())
    except GatewayError as fault:
        return fault
    except MemoryError:
        return InvalidVideo(decode.NO_MEMORY)
    except Exception as error:  # noqa: BLE001  # nobody would read a traceback: this process can write to no file
        return InvalidVideo(f"the decoder failed: {error!r}"[:500])
    return None


def _deliver(video: Video, painter: Painter, channel: Channel) -> None:
    """Announce the video with its first frame, and send the frames that are wanted."""
    compass = Compass()
    shown: dict[str, Any] | None = None
    taken, worked_s, news = 0, _worked(channel), 0
    for timed in video.frames():
        if shown is None or video.news != news:
            news = video.news
            shown = shown or _shown(video, timed.frame, compass.of(timed.frame))
            channel.send("facts", facts=shown | video.facts())
        if timed.choice is Choice.END:
            break
        if timed.choice is Choice.TAKE:
            if taken == video.limits.max_frames:
                raise VideoTooLong(f"more than {taken} frames are asked for")
            taken += 1
            slot, width, height = _paint(timed.frame, compass.of(timed.frame), painter, channel)
            before_s, worked_s = worked_s, _worked(channel)
            channel.send(
                "frame",
                slot=slot,
                index=timed.index,
                time_s=float(timed.time),
                decode_s=worked_s - before_s,
                width=width,
                height=height,
                decoded=video.decoded,
                damaged=video.damaged,
            )
    if shown is not None and video.news != news:
        channel.send("facts", facts=shown | video.facts())


def _worked(channel: Channel) -> float:
    """Seconds on a clock that stands still while nobody releases a frame."""
    return time.perf_counter() - channel.waited_s


def _shown(video: Video, frame: VideoFrame, orientation: Orientation) -> dict[str, Any]:
    """The facts of the frames as they are shown."""
    width, height = orientation.size(frame.width, frame.height)
    quarter = orientation.rotation in {90, 270}
    aspect = 1 / video.pixel_aspect if quarter else video.pixel_aspect
    return {"width": width, "height": height, "rotation": orientation.rotation, "pixel_aspect": aspect}


def _paint(
    frame: VideoFrame, orientation: Orientation, painter: Painter, channel: Channel
) -> tuple[int, int, int]:
    """Write the frame into a slot: the slot, and the width and height as shown."""
    width, height = orientation.size(frame.width, frame.height)
    slot, pixels = channel.slot(width * height * RGB)
    with open_file.translated("a frame can't be converted to RGB"):
        painter.paint(frame, orientation, pixels)
    return slot, width, height
