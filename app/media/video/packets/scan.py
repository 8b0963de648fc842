"""Timestamps of a video's packets, read without decoding: they tell a frame's number, and which timestamps to believe.

Runs in the decoder's own process only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from av.error import FFmpegError
from av.packet import Packet

from app.errors import GatewayError
from app.media.containers import AVI
from app.media.video.open_file import Source, open_video
from app.media.video.packets.roles import shows_nothing

# Packets come as far from where they are shown as decoders reorder them: 16 frames, and as many of another field.
_REORDERED = 32
_LEAST_READ = 4096
_MOST_PACKETS = 1 << 22  # 38 hours at 30 frames per second
_AHEAD = 4096  # so many packets are looked at for timestamps that contradict one
_BEFORE = 64
_GAP_S = 2


class PacketScan:
    """The packets of a video's stream, read from the beginning as far as is asked for.

    Frames are counted by timestamps only as far as these are in order: each packet has its own, near its place, no
    keyframe stands before what was decoded before it, and no gap is of more than `longest_s`. Discarded packets (edit
    lists) and hidden ones (VP8) are not counted.
    """

    def __init__(
        self, source: Source, container: str, max_pixels: int, longest_s: float, alive: Callable[[], None]
    ) -> None:
        self._alive = alive
        self._container = container
        self._longest_s = longest_s
        self._stamps: list[int] = []
        self._keys: list[int] = []  # positions of keyframes
        self._timed = self.complete = True
        self._sorted: list[int] = []
        self._counted = 0  # so many frames can be counted
        self._duration = 0  # of the last packet that says it
        try:
            self._file, stream, codec = open_video(source, container, max_pixels, keyframes=False)
        except GatewayError:
            return
        self.complete = False
        self._shows_nothing = shows_nothing(codec.name)
        self.time_base = stream.time_base or Fraction(1, 1000)
        self._packets = self._file.demux(stream)

    def number(self, timestamp: int | None) -> int | None:
        """Number of frames shown before the one with this timestamp; None where it can't be counted."""
        if timestamp is None:
            return None
        while not self.complete and (self._counted == 0 or self._sorted[self._counted - 1] <= timestamp):
            if not self._read_on():
                break
        number = bisect_left(self._sorted, timestamp)
        found = number < self._counted and self._sorted[number] == timestamp
        return number if found else None

    def around(self, timestamp: int, shown: int) -> tuple[Sequence[int], Sequence[int]]:
        """The timestamps of the packets before and behind the one with this timestamp, near the `shown`-th.

        They are in decoding order, and none where there is no such packet.
        """
        while not self.complete and len(self._stamps) < shown + 2 * _AHEAD:
            self._read(_AHEAD)
        first = max(0, shown - _BEFORE)
        try:
            position = self._stamps.index(timestamp, first)
        except ValueError:
            return [], []
        before = self._stamps[max(0, position - _BEFORE) : position]
        return before, self._stamps[position + 1 : position + 1 + _AHEAD]

    def length(self) -> tuple[int, float]:
        """The number of frames of the whole video, and its duration in seconds as far as timestamps are believed.

        A timestamp that lies ahead of packets far behind it is not.
        """
        while not self.complete:
            self._read(_LEAST_READ)
        stamps = self._stamps
        if len(stamps) < 2:
            return len(stamps), 0.0
        believed, least = [], max(stamps[-_REORDERED:])
        for position in range(len(stamps) - 1, -1, -1):
            if position + _REORDERED < len(stamps):
                least = min(least, stamps[position + _REORDERED])
            if stamps[position] <= least:
                believed.append(stamps[position])
        believed.sort()
        steps = sorted(b - a for a, b in pairwise(believed))
        last = self._duration or (steps[len(steps) // 2] if steps else 0)
        return len(stamps), float((believed[-1] - believed[0] + last) * self.time_base)

    def _read_on(self) -> bool:
        """Read half as much again; False where that makes no more frames countable."""
        before = self._counted
        self._read(max(_LEAST_READ, len(self._stamps) // 2))
        self._count()
        return self._counted > before

    def _read(self, packets: int) -> None:
        wanted = len(self._stamps) + packets
        try:
            for packet in self._packets:
                if packet.size and not packet.is_discard:
                    self._add(packet)
                if len(self._stamps) >= wanted:
                    return
        except (FFmpegError, ValueError):
            pass
        self.complete = True

    def _add(self, packet: Packet) -> None:  # type: ignore[type-arg]  # of any stream
        if self._shows_nothing(bytes(memoryview(packet)[:1])):
            return
        # AVI stores no times of presentation, and FFmpeg's guess is wrong.
        stamp = packet.dts if self._container == AVI or packet.pts is None else packet.pts
        if stamp is None:
            self._timed = False
            return
        if packet.is_keyframe:
            self._keys.append(len(self._stamps))
        self._stamps.append(stamp)
        self._duration = packet.duration or 0
        if not len(self._stamps) % 256:
            self._alive()
        if len(self._stamps) >= _MOST_PACKETS:
            self.complete = True
            raise ValueError("more packets than are looked at")

    def _count(self) -> None:
        """Number of frames, in presentation order, whose numbers are certain."""
        stamps, gap, longest = self._stamps, _GAP_S / self.time_base, self._longest_s / self.time_base
        order = sorted(range(len(stamps)), key=stamps.__getitem__)
        self._sorted = [stamps[position] for position in order]
        certain = len(order) if self.complete else max(0, len(order) - 2 * _REORDERED)
        behind, highest, before = self._keys_behind(), -1, None
        for place, position in enumerate(order):
            stamp = stamps[position]
            step = 1 if before is None else stamp - before
            # A gap before which packets from behind it are decoded may be an outlier's.
            odd = step == 0 or step > longest or (step > gap and highest != place - 1)
            if odd or position in behind or abs(position - place) > _REORDERED:
                certain = min(certain, place - _REORDERED, position - _REORDERED)
            highest, before = max(highest, position), stamp
        self._counted = max(0, certain) if self._timed else 0

    def _keys_behind(self) -> set[int]:
        """Positions of keyframes that are shown before what is decoded before them, which no stream has."""
        keys, behind, greatest = set(self._keys), set(), None
        for position, stamp in enumerate(self._stamps):
            if greatest is not None and stamp <= greatest and position in keys:
                behind.add(position)
            greatest = stamp if greatest is None else max(greatest, stamp)
        return behind
