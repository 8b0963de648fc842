"""Packets that have to be decoded for some frames of a video, chosen before anything is decoded.

Frames are numbered by the timestamps of their packets, in the order of presentation, and the caller chooses among them.
A packet is passed over where no chosen frame needs it: a frame that no other refers to (`Role.leaf`), or all between
the last chosen frame and the next place where decoding may start (`Role.entry`).

`Unprovable` is raised as soon as anything doesn't fit; then all frames have to be decoded and counted. Runs in the
decoder's own process only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

from app.media.video.packets.roles import Role, RoleOf

# Packets come at most so far from the place where their frames are shown: decoders reorder 16 frames, and as many of
# another field.
_REORDERED = 32
_AHEAD = 3 * _REORDERED  # read before a frame's number is believed
_GAP_S = 2
# What is read ahead may take so much memory; beyond it, packets are decoded that might not be needed.
_MOST_BYTES = 32 << 20
_MOST_PACKETS = 4096


class Unprovable(Exception):
    """The packets don't say for certain which frame each will give."""


@dataclass(slots=True)
class Ahead:
    """A packet that was read. `counted`: its frame has a number; `wanted` is None until that is known."""

    packet: Any  # av.Packet, whose stubs don't say of which stream
    size: int
    stamp: int
    role: Role
    counted: bool
    wanted: bool | None


@dataclass(frozen=True, slots=True)
class Needed:
    """A packet to decode; with `resume` the decoder is emptied before it. `stamp` is None where no frame is counted."""

    packet: Any
    stamp: int | None
    resume: bool


# Called with each frame in the order of presentation: number, timestamp and duration in ticks (0: unknown). True: it is
# wanted; None: neither it nor any later one is.
Choose = Callable[[int, int, int], bool | None]


class NeededPackets:
    """Iterate once.

    Args:
        packets: of one stream, in the order of decoding; those without content end nothing and are ignored.
        role: see `roles.role_of`.
        hidden: of the content of a packet: it shows no frame.
        choose: see there.
        time_base: seconds of a tick.
        longest_s: a gap of more is no gap.
        late: so many frames at most are decoded before a frame and shown after it.
    """

    def __init__(
        self,
        packets: Iterator[Any],
        role: RoleOf,
        hidden: Callable[[bytes], bool],
        choose: Choose,
        time_base: Fraction,
        longest_s: float,
        late: int,
    ) -> None:
        self._packets = packets
        self._role = role
        self._hidden = hidden
        self._choose = choose
        self._gap, self._longest = _GAP_S / time_base, Fraction(longest_s) / time_base
        self._late = late
        self._queue: deque[Ahead] = deque()
        self._bytes = 0
        self._heap: list[tuple[int, int, Ahead]] = []  # timestamp, position in the order of decoding
        self._read = self._placed = 0  # frames
        self._greatest: tuple[int, int] | None = None  # timestamp, position
        self._latest: int | None = None  # timestamp that was placed last
        self._highest = -1  # position, of those that were placed
        self._over = False

    def __iter__(self) -> Iterator[Needed]:
        resume, leading, first = False, None, True
        while self._queue or self._read_one():
            if first:  # what the decoder learns of a stream from its first packet holds to the end
                self._known(0)
                count, feed, first = 1, True, False
            else:
                count, feed = self._run()
            for _ in range(count):
                ahead = self._queue.popleft()
                self._bytes -= ahead.size
                if leading is not None and ahead.stamp > leading:
                    leading = None
                if not feed or (ahead.role.leaf and not ahead.wanted):
                    resume = resume or not ahead.role.leaf
                    continue
                if leading is not None:  # it needs what was passed over, and nothing wanted needs it
                    continue
                if resume and not ahead.role.closed:
                    leading = ahead.stamp
                yield Needed(ahead.packet, ahead.stamp if ahead.counted else None, resume)
                resume = False
            if self._over and not any(ahead.wanted for ahead in self._queue):
                return

    def _run(self) -> tuple[int, bool]:
        """The number of packets at the beginning of the queue that share a fate, and whether it is to be decoded."""
        at, headers = 0, False
        while True:
            ahead = self._known(at)
            if ahead is None:  # the video's end, and nothing more is wanted
                return len(self._queue), False
            if ahead.wanted:
                return at + 1, True
            if at and self._resumes(ahead, at, headers=headers):
                return at, False
            headers = headers or ahead.role.headers
            at += 1
            if self._bytes > _MOST_BYTES or at > _MOST_PACKETS:
                return at, True

    def _resumes(self, ahead: Ahead, at: int, *, headers: bool) -> bool:
        """Return whether nothing from this packet on needs what is before it, `headers` of it included."""
        role = ahead.role
        if not role.entry or (headers and not role.headers):
            return False
        return role.closed or not self._leads(at)

    def _leads(self, entry: int) -> bool:
        """Return whether a wanted frame is decoded after this entry and shown before it."""
        stamp, at = self._queue[entry].stamp, entry + 1
        while (ahead := self._known(at)) is not None and ahead.stamp < stamp:
            if ahead.wanted:
                return True
            at += 1
        return False

    def _known(self, at: int) -> Ahead | None:
        """The packet at this place of the queue once it is known if it is wanted; None where there is none."""
        while len(self._queue) <= at:
            if not self._read_one():
                return None
        ahead = self._queue[at]
        while ahead.wanted is None:
            self._read_one()
        return ahead

    def _read_one(self) -> bool:
        """Read a packet; False at the end, where all that was read is known."""
        for packet in self._packets:
            if packet.size:
                self._add(packet)
                return True
        while self._heap:
            self._place()
        return False

    def _add(self, packet: Any) -> None:
        data, stamp = bytes(packet), packet.pts
        if stamp is None or packet.is_corrupt:
            raise Unprovable
        counted = not packet.is_discard and not self._hidden(data)
        open_question = counted and not self._over
        ahead = Ahead(packet, len(data), stamp, self._role(data), counted, None if open_question else False)
        self._queue.append(ahead)
        self._bytes += ahead.size
        if not open_question:
            return
        position = self._read
        self._read += 1
        if self._greatest is None or stamp > self._greatest[0]:
            self._greatest = stamp, position
        elif packet.is_keyframe or position - self._greatest[1] > _REORDERED:
            # No keyframe is shown before what is decoded before it; and that other timestamp was an outlier.
            raise Unprovable
        heappush(self._heap, (stamp, position, ahead))
        if len(self._heap) > _AHEAD:
            self._place()

    def _place(self) -> None:
        """Number the frame that is shown next."""
        stamp, position, ahead = heappop(self._heap)
        place = self._placed
        self._placed += 1
        if self._latest is not None:
            step = stamp - self._latest
            # A gap before which packets from behind it are decoded may be an outlier's.
            apart = step > self._gap and self._highest != place - 1
            if step <= 0 or step > self._longest or apart:
                raise Unprovable
        if place - position > _REORDERED or position - place > self._late:
            raise Unprovable
        self._latest, self._highest = stamp, max(self._highest, position)
        choice = self._choose(place, stamp, ahead.packet.duration or 0)
        ahead.wanted = bool(choice)
        if choice is None:
            self._over = True
            for _, _, later in self._heap:
                later.wanted = False
            self._heap.clear()
