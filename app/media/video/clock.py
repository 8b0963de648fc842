"""Times of a stream's frames, from timestamps that may be missing, wrong, or start again in the middle.

Pure; exact arithmetic on the stream's own clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

# For a timestamp and the number of frames shown so far: the timestamps of the frames decoded just before the one with
# it, and of those decoded after it, in that order; both empty where they aren't known.
Future = Callable[[int, int], tuple[Sequence[int], Sequence[int]]]

# A step of more typical intervals than this is looked into, and at first one of more seconds.
_USUAL_STEPS = 3
_USUAL_S = Fraction(1, 4)
_INTERVALS = 15
_SHOWN = 64  # decoders reorder 16 frames at most
_LOOKS = 2000  # a stream with more odd timestamps is taken frame by frame
_LONG_GAP_S = 10


class Clock:
    """Times of frames in the order of presentation, in seconds from the first; they never fall.

    - A timestamp ahead of frames that are still to come, or behind its predecessor and followed by later ones, is an
      outlier: the frame is shown one typical interval after the one before it.
    - Where timestamps start again at a lower value, or jump ahead by more than `longest_s`, time continues without
      the jump.
    - A gap that nothing contradicts is believed: a camera may stand still for an hour.
    - A frame without a timestamp is shown one typical interval after the one before it. Frames may share a time.
    """

    def __init__(
        self,
        time_base: Fraction,
        origin: int,
        step: Fraction,
        future: Future | None = None,
        longest_s: float | None = None,
    ) -> None:
        """`step`: the nominal interval in seconds; `origin`: the timestamp that is time 0."""
        self._time_base = time_base
        self._origin = origin
        self._step = step
        self._future = future
        self._longest = longest_s
        self._usual = min(_USUAL_STEPS * step, _USUAL_S)
        self._last: Fraction | None = None
        self._shift = Fraction(0)
        self._intervals: deque[Fraction] = deque(maxlen=_INTERVALS)
        self._shown: deque[int] = deque(maxlen=_SHOWN)
        self._looks = self._count = 0
        self.outliers = self.jumps = self.missing = self.repeated = self.gaps = 0

    @property
    def bridged(self) -> bool:
        """True if the times differ from the timestamps."""
        return bool(self.outliers or self.jumps or self.missing)

    @property
    def typical(self) -> Fraction:
        """The typical interval of the latest frames, in seconds; the nominal one before there are any."""
        return _median(self._intervals) if self._intervals else self._step

    def at(self, timestamp: int | None) -> Fraction:
        """The time of the next frame."""
        last = self._last
        time = self._time(timestamp)
        if last is not None and time > last:
            self._intervals.append(time - last)
        self.repeated += time == last
        if timestamp is not None:
            self._shown.append(timestamp)
        self._last = time
        self._count += 1
        return time

    def warnings(self) -> list[str]:
        """Sentences about what was found, for people."""
        said = (
            (self.outliers, "timestamps out of line: {} frames are placed between their neighbours"),
            (self.jumps, "timestamps start again or jump too far: {} jumps are bridged"),
            (self.missing, "timestamps are missing: {} frames are placed after their predecessors"),
            (self.repeated, "timestamps come twice: {} frames share the time of the frame before"),
            (self.gaps, "gaps between frames of more than 10 seconds: {}; they are kept"),
        )
        return [words.format(count) for count, words in said if count]

    def _time(self, timestamp: int | None) -> Fraction:
        last = self._last
        if timestamp is None:
            self.missing += 1
            return Fraction(0) if last is None else last + self.typical
        stamp = self._seconds(timestamp)
        if last is None:
            return self._first(timestamp, stamp)
        if stamp < last:
            return self._behind(timestamp, stamp, last)
        return stamp if stamp - last <= self._usual else self._beyond(timestamp, stamp, last)

    def _first(self, timestamp: int, stamp: Fraction) -> Fraction:
        """A first frame far behind the beginning is an outlier where earlier ones follow, and none at all else."""
        least = self._stamp(-self._usual)
        if stamp > self._usual and any(least <= ahead < timestamp for ahead in self._ahead(timestamp)):
            self.outliers += 1
            return Fraction(0)
        return stamp

    def _beyond(self, timestamp: int, stamp: Fraction, last: Fraction) -> Fraction:
        typical = self.typical
        self._usual = _USUAL_STEPS * typical
        if stamp - last <= self._usual:
            return stamp
        least = self._stamp(last)
        skipped = [ahead for ahead in self._ahead(timestamp) if least < ahead < timestamp]
        if skipped:
            self.outliers += 1
            return min(last + typical, self._seconds(min(skipped)))
        if self._longest is not None and stamp - last > self._longest:
            return self._continued(stamp, last + typical)
        self.gaps += stamp - last > _LONG_GAP_S
        return stamp

    def _behind(self, timestamp: int, stamp: Fraction, last: Fraction) -> Fraction:
        typical = self.typical
        if last - stamp <= typical:  # rounding, and clocks that are set by a moment
            return last
        least, ahead = self._stamp(last), self._ahead(timestamp)
        number = next((n for n, later in enumerate(ahead, 1) if later > least), 0)
        if number:
            back = self._seconds(ahead[number - 1])
            # Behind an outlier come the frames that follow `last`; behind a new start those that follow `stamp`.
            follows_last = last + (number + 1) * typical
            follows_stamp = stamp + number * self._pace([timestamp, *ahead[: number - 1]])
            if abs(follows_last - back) < abs(follows_stamp - back):
                self.outliers += 1
                return min(last + typical, back)
        return self._continued(stamp, last + typical)

    def _pace(self, timestamps: Sequence[int]) -> Fraction:
        """The typical interval of a few timestamps; of the latest frames where these are too few."""
        steps = [Fraction(b - a) for a, b in pairwise(timestamps) if b > a]
        return _median(steps) * self._time_base if len(steps) > 1 else self.typical

    def _continued(self, stamp: Fraction, time: Fraction) -> Fraction:
        self.jumps += 1
        self._shift += time - stamp
        return time

    def _ahead(self, timestamp: int) -> list[int]:
        """The timestamps of frames that are still to be shown."""
        self._looks += 1
        if self._future is None or self._looks > _LOOKS:
            return []
        before, after = self._future(timestamp, self._count)
        early = Counter(self._shown) - Counter(before)  # shown before they were due to be decoded
        ahead = []
        for stamp in after:
            if early[stamp] > 0:
                early[stamp] -= 1
            else:
                ahead.append(stamp)
        return ahead

    def _seconds(self, timestamp: int) -> Fraction:
        return (timestamp - self._origin) * self._time_base + self._shift

    def _stamp(self, time: Fraction) -> int:
        """The timestamp of a time, rounded down."""
        return math.floor((time - self._shift) / self._time_base) + self._origin


def _median(values: Iterable[Fraction]) -> Fraction:
    """The lower median; `statistics` takes a decoder's process long to import."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
