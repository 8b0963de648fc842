"""Limits on the cost of a video, and facts about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST_NAME = 32


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Limits on the cost of a video.

    `max_pixels`: width x height of a frame, by the header before anything is decoded, and of each frame again.
    `max_duration_s`: of the range that is asked for, by the header, and as it is decoded.
    `max_frames`: sampled frames, by the header, and as they are delivered.
    `stall_s`: the decoder is killed when it makes no progress for so long, waiting for a free slot or for a processor
    not counted; and when it uses so much processor time without a sign.
    `memory_bytes`: address space of the decoder's process, with the slots in it. It takes 0.13 GB by itself; with eight
    slots, 1080p takes 0.3 GB, 8K 1.8 GB, and 64 million pixels from 2.3 GB on, by how many frames a stream refers to.
    """

    max_pixels: int = 64_000_000
    max_duration_s: float = 6 * 3600
    max_frames: int = 200_000
    stall_s: float = 20.0
    memory_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Facts about a video, known once its first frame is decoded.

    `width`, `height`: of the frames as shown, in pixels.
    `rotation`: degrees clockwise by which the stored frames are turned for that; mirrored ones are mirrored first.
    `duration_s`, `fps`, `frames`: what the container says of the stream, None where it doesn't. Once frames or packets
    contradict it, what was counted stands here instead.
    `codec`: h264, hevc, vp9 and so on; `container`: mov, matroska or avi.
    `pixel_aspect`: width of a pixel as shown by its height: 16/15 in PAL recordings; 1 where nothing is said. Frames
    keep their stored pixels; a player widens them.
    """

    width: int
    height: int
    rotation: int
    duration_s: float | None
    fps: float | None
    frames: int | None
    codec: str
    container: str
    pixel_aspect: float = 1.0

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> VideoFacts:
        """Check facts that the decoder sends: it has read untrusted bytes, so nothing is taken for granted.

        Raises:
            KeyError, TypeError, ValueError: it sent something else.
        """
        width, height, rotation = (_number(fields[name]) for name in ("width", "height", "rotation"))
        return cls(
            width=width,
            height=height,
            rotation=rotation,
            duration_s=_seconds(fields["duration_s"]),
            fps=_seconds(fields["fps"]),
            frames=None if fields["frames"] is None else _number(fields["frames"]),
            codec=str(fields["codec"])[:_LONGEST_NAME],
            container=str(fields["container"])[:_LONGEST_NAME],
            pixel_aspect=_seconds(fields["pixel_aspect"]) or 1.0,
        )


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no number")
    return value


def _seconds(value: object) -> float | None:
    if value is not None and (not isinstance(value, float) or not math.isfinite(value)):
        raise ValueError("no number")
    return value
