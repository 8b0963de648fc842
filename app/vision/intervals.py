"""The pace of a video's frames from the intervals between their timestamps, also where frames come in bursts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A short interval is less than this, and less than this share of the mean interval. Cameras that take more than 66
# pictures per second exist, but their intervals are even.
SHORT_S, SHORT_SHARE = 0.015, 1 / 3
# Frames come in bursts when this share of the intervals is short, over the latest so many.
BURST_SHARE = 1 / 3
WINDOWS = (8, 16, 31)
# A longer interval is an interruption; the wait between two bursts is shorter.
WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """`unit_s`: the typical interval; `passed_s`: the time that passed before the latest frame was taken.

    `burst`: the unit is the mean interval of frames that come in bursts, else the median (the lower one of two).
    """

    unit_s: float
    passed_s: float
    burst: bool


def pace_of(intervals: Sequence[float]) -> Pace:
    """The pace at the end of these intervals (s, each > 0, at least one).

    A frame that comes much too early was sent late: it counts as one unit after the frame before it, and the wait that
    follows is shortened by as much, to no less than a unit.
    """
    ordered = sorted(intervals)
    median = ordered[(len(ordered) - 1) // 2]
    if ordered[0] >= SHORT_S:  # none is short
        return Pace(median, intervals[-1], burst=False)
    bursts = (_burst_unit(intervals[-window:]) for window in WINDOWS)
    mean = next((unit for unit in bursts if unit is not None), None)
    unit, last = median if mean is None else mean, intervals[-1]
    early = _early(intervals[:-1], unit)
    if _is_short(last, unit) or early:
        last = max(unit, last - early)
    return Pace(unit, last, burst=mean is not None)


def _is_short(interval: float, unit: float) -> bool:
    return interval < min(SHORT_S, SHORT_SHARE * unit)


def _burst_unit(intervals: Sequence[float]) -> float | None:
    """The mean interval of frames that come in bursts; None where they don't."""
    counted = [interval for interval in intervals if interval <= WAIT_S]
    if len(counted) < 2:
        return None
    mean = sum(counted) / len(counted)
    short = sum(_is_short(interval, mean) for interval in counted)
    return mean if short >= BURST_SHARE * len(counted) else None


def _early(intervals: Sequence[float], unit: float) -> float:
    """Seconds by which the last frames, those after the last wait, came too early."""
    early = 0.0
    for interval in reversed(intervals):
        if not _is_short(interval, unit):
            break
        early += unit - interval
    return early
