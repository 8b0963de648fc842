"""Choice of a video's frames and their times: exact arithmetic on the stream's own clock.

Pure, and the same in the gateway and in the decoder's process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from app.errors import InvalidParameter

# Containers round times to their clock (Matroska to milliseconds), so a frame of 1/12 s stands at 83 ms and would
# miss a grid point at 83.33: a time counts as reached less than one tick early, and never more than a millisecond.
_TICK_SHARE = Fraction(999, 1000)
_LONGEST_TICK = Fraction(1, 1000)
_FPS_DENOMINATOR = 1_000_000
# Bounds of the parameters: far beyond any video, and within what every clock, file and answer can hold.
LEAST_FPS, MOST_FPS = 1e-4, 1000.0
MOST_EVERY = 10**9
MOST_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Sampling:
    """Choice of frames among those shown in `[start_s, end_s)`. Without `fps` and `every`: all of them.

    `fps`: at most so many a second of video time. The range is cut into cells of 1/fps seconds from `start_s` on, and
    the first frame of each cell is taken; so a variable frame rate is sampled by time and no frame comes twice.
    `every`: every n-th frame in the order of presentation, the first of the range included. Where damage took the
    frame whose turn it is, the next one is taken, and the ones after that are the same as without the damage.
    `keyframes`: only frames that stand for themselves; `fps` and `every` then choose among those.

    Times are seconds from the stream's first frame. A frame counts as shown at a time when its timestamp is less than
    one tick of the container's clock (at most 1 ms) before it.

    Raises:
        InvalidParameter: both `fps` and `every`, or a value out of range.
    """

    fps: float | None = None
    every: int | None = None
    keyframes: bool = False
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if self.fps is not None and self.every is not None:
            raise InvalidParameter("fps and every exclude each other")
        _check("fps", self.fps, LEAST_FPS, MOST_FPS)
        _check("every", self.every, 1, MOST_EVERY)
        _check("start", self.start_s, 0, MOST_SECONDS)
        _check("end", self.end_s, 0, MOST_SECONDS)
        if self.end_s is not None and not self.start_s < self.end_s:
            raise InvalidParameter(f"end is {self.end_s:g}; it has to lie after start ({self.start_s:g})")

    def span(self, duration: float | None) -> float | None:
        """Seconds of video that are asked for, of a video of so many; None where nobody knows."""
        end = min((e for e in (self.end_s, duration) if e is not None), default=None)
        return None if end is None else max(0.0, end - self.start_s)

    def expected(self, duration: float | None, rate: float | None) -> int:
        """About how many frames will be chosen, by what the container says; 0 where that can't be said."""
        span = self.span(duration)
        if span is None or self.keyframes or (rate is None and self.fps is None):
            return 0
        rates = [r for r in (self.fps, rate) if r is not None]
        return int(span * min(rates)) // (self.every or 1)


def _check(name: str, value: float | None, least: float, greatest: float) -> None:
    if value is not None and not least <= value <= greatest:
        # A number of a million digits is not repeated.
        given = f", not {value:.6g}" if abs(value) < 1e12 else ""
        raise InvalidParameter(f"{name} has to lie between {least:g} and {greatest:g}{given}")


class Choice(Enum):
    """Decision about one frame."""

    SKIP = 0
    TAKE = 1
    END = 2  # it and all later ones lie behind the range


class Sampler:
    """The rule of one `Sampling`, over frames in the order of presentation."""

    def __init__(self, sampling: Sampling, tick: Fraction) -> None:
        self._early = min(tick, _LONGEST_TICK) * _TICK_SHARE
        self._start = _exact(sampling.start_s)
        self._end = None if sampling.end_s is None else _exact(sampling.end_s)
        self._fps = None if sampling.fps is None else _exact(sampling.fps)
        self._every = sampling.every or 1
        self._of_keyframes = sampling.keyframes
        self._seen = 0
        self._first: int | None = None
        self._cell: int | None = None

    def choose(self, time: Fraction, index: int) -> Choice:
        """Decide about the next frame, shown at `time` (seconds from the stream's first frame), by its number."""
        reached = time + self._early
        # Nothing comes before the beginning, even where a frame's time is negative.
        if reached < self._start and self._start > 0:
            return Choice.SKIP
        if self._end is not None and reached >= self._end:
            return Choice.END
        if self._fps is not None:
            return self._first_of_cell(math.floor((reached - self._start) * self._fps))
        number = self._seen if self._of_keyframes else index
        self._seen += 1
        self._first = number if self._first is None else self._first
        return self._first_of_cell((number - self._first) // self._every)

    def _first_of_cell(self, cell: int) -> Choice:
        if self._cell is not None and cell <= self._cell:
            return Choice.SKIP
        self._cell = cell
        return Choice.TAKE


def _exact(value: float) -> Fraction:
    """The number that was meant: 0.1 is one tenth, 29.97 is 2997/100."""
    return Fraction(value).limit_denominator(_FPS_DENOMINATOR)
