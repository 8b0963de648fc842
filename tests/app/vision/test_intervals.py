"""The pace of frames: even, uneven, with gaps, and in bursts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from app.vision.bytetrack import ByteTracker
from app.vision.intervals import Pace, pace_of

FRAMES = 100
RATE = 25


def bursts(size: int, apart_s: float, begin: int = 0) -> list[float]:
    """Times of frames at 25 a second that are sent `size` at a time, as long as the first frame from `begin` on."""
    even = [n / RATE for n in range(begin)]
    return even + [(begin + n // size * size) / RATE + n % size * apart_s for n in range(FRAMES - begin)]


def ids_at(times: list[float], speed: float) -> list[int]:
    """Ids of a person 60 px wide who walks evenly at `speed` px/s, whatever times the frames have."""
    tracker, ids = ByteTracker(), []
    for number, time in enumerate(times):
        x = 100 + speed * number / RATE
        box = np.array([[x, 100, x + 60, 300]], np.float32)
        ids += tracker.update(box, np.array([0.9], np.float32), None, time).tolist()
    return ids


@pytest.mark.parametrize("speed", [0, 100, 250])
@pytest.mark.parametrize("begin", [0, 40])
@pytest.mark.parametrize("apart_s", [0.001, 0.005])
@pytest.mark.parametrize("size", [2, 5, 12])
def test_bursts_have_the_ids_of_even_times(size: int, apart_s: float, begin: int, speed: float) -> None:
    """One id for one person, in every frame, whether the bursts begin at once or after a while."""
    assert ids_at(bursts(size, apart_s, begin), speed) == [1] * FRAMES


def test_the_test_above_can_fail() -> None:
    """With the interval alone as time that passed, the person who walks is lost at the end of a burst."""
    tracker, seen = ByteTracker(), set()
    for number in range(20):
        x = 100 + 4 * number * (1 if number < 5 else 40)
        box = np.array([[x, 100, x + 60, 300]], np.float32)
        seen |= set(tracker.update(box, np.array([0.9], np.float32), None, number / RATE).tolist())
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([0.04], Pace(0.04, 0.04, burst=False)),
        ([0.04] * 9, Pace(0.04, 0.04, burst=False)),
        ([0.04, 0.08], Pace(0.04, 0.08, burst=False)),
        ([1 / 240] * 9, Pace(1 / 240, 1 / 240, burst=False)),
        ([0.04] * 9 + [2.5], Pace(0.04, 2.5, burst=False)),  # an interruption
        ([0.04] * 9 + [0.12], Pace(0.04, 0.12, burst=False)),  # two frames are missing
        ([0.04] * 9 + [0.001], Pace(0.04, 0.04, burst=False)),  # sent late, or stamped like the one before
        ([0.04] * 9 + [0.001, 0.079], Pace(0.04, pytest.approx(0.04), burst=False)),
        ([0.04] * 9 + [0.001, 0.119], Pace(0.04, pytest.approx(0.08), burst=False)),
        ([0.001] * 4 + [0.196], Pace(pytest.approx(0.04), pytest.approx(0.04), burst=True)),
        ([0.002, 0.078] * 5, Pace(pytest.approx(0.04), pytest.approx(0.04), burst=True)),
        ([0.001, 0.001, 0.001, 0.001, 60.0], Pace(0.001, 60.0, burst=False)),
    ],
)
def test_the_pace_of_a_table(intervals: list[float], expected: Pace) -> None:
    """Unit and time passed, for rates, gaps, missing frames, late frames and bursts."""
    assert pace_of(intervals) == expected


def test_a_burst_takes_no_more_time_than_passed() -> None:
    """Over many bursts the times that count as passed add up to the time that passed."""
    times = bursts(5, 0.001)
    intervals = [b - a for a, b in pairwise(times)]
    passed = sum(pace_of(intervals[max(0, n - 30) : n + 1]).passed_s for n in range(10, len(intervals)))
    assert passed == pytest.approx(times[-1] - times[10], rel=0.05)
