"""Times of frames from timestamps that are missing, wrong, or start again."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.video.clock import Clock

TICK = Fraction(1, 25)
ORIGIN = 100
HOURS = 3 * 3600 * 25  # in ticks
Stamps = list[int | None]


def clock_of(timestamps: Stamps, longest_s: float = 6 * 3600) -> Clock:
    """A clock that knows the timestamps to come, as a scan of the packets tells them."""
    known = [ORIGIN + t for t in timestamps if t is not None]

    def around(stamp: int, shown: int) -> tuple[list[int], list[int]]:
        position = known.index(stamp, max(0, shown - timestamps.count(None)))
        return known[:position][-64:], known[position + 1 :]

    return Clock(TICK, ORIGIN, TICK, around, longest_s)


def times_of(clock: Clock, timestamps: Stamps) -> list[int]:
    """The times in ticks, which they are at."""
    times = [clock.at(None if t is None else ORIGIN + t) / TICK for t in timestamps]
    assert all(time.denominator == 1 for time in times)
    return [int(time) for time in times]


def replaced(stamps: Stamps, at: int, *others: int | None) -> Stamps:
    return [*stamps[:at], *others, *stamps[at + len(others) :]]


EVEN: Stamps = list(range(40))
STRAIGHT = list(range(40))


@pytest.mark.parametrize(
    ("timestamps", "expected", "odd"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], {}),
        ([0, 1, 1, 2], [0, 1, 1, 2], {"repeated": 1}),
        ([0, None, None, 3], [0, 1, 2, 3], {"missing": 2}),
        ([None, None, 2], [0, 1, 2], {"missing": 2}),
        ([0, 10, 11, 12], [0, 10, 11, 12], {}),
        ([-2, -1, 0, 1], [-2, -1, 0, 1], {}),
        # a timestamp far ahead, several, the last ones before the end but one, the first
        (replaced(EVEN, 20, HOURS), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 20, HOURS, HOURS + 1), STRAIGHT, {"outliers": 2}),
        (replaced(EVEN, 10, *range(HOURS, HOURS + 20)), STRAIGHT, {"outliers": 20}),
        (replaced(EVEN, 38, HOURS), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 0, HOURS), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 20, 26), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 10, HOURS, 11, 12, HOURS), STRAIGHT, {"outliers": 2}),
        # one far behind, and several
        (replaced(EVEN, 20, 0), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 20, -HOURS), STRAIGHT, {"outliers": 1}),
        (replaced(EVEN, 20, 3, 4), STRAIGHT, {"outliers": 2}),
        # streams that start again, twice, and with times of their own
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5], {"jumps": 1}),
        ([*range(20), *range(20)], STRAIGHT, {"jumps": 1}),
        ([*range(20), *range(-HOURS, -HOURS + 20)], STRAIGHT, {"jumps": 1}),
        ([*range(10), *range(30)], STRAIGHT, {"jumps": 1}),
        ([0, 1, 2, 3, 4, 0, 2, 4, 6, 8], [0, 1, 2, 3, 4, 5, 7, 9, 11, 13], {"jumps": 1}),
        # a gap that nothing contradicts is kept, but for one that no video can have
        ([0, 1, 2, HOURS, HOURS + 1], [0, 1, 2, HOURS, HOURS + 1], {"gaps": 1}),
        ([0, 1, 2, 9 * HOURS, 9 * HOURS + 1], [0, 1, 2, 3, 4], {"jumps": 1}),
    ],
)
def test_the_times_of_a_table(timestamps: Stamps, expected: list[int], odd: dict[str, int]) -> None:
    """Outliers stand between their neighbours, jumps are bridged, gaps are kept, and each is counted."""
    clock = clock_of(timestamps)
    assert times_of(clock, timestamps) == expected
    found = {name: getattr(clock, name) for name in ("outliers", "jumps", "missing", "repeated", "gaps")}
    assert {name: count for name, count in found.items() if count} == odd
    assert len(clock.warnings()) == len(odd)


def test_rounded_times_that_fall_by_a_moment_shift_nothing() -> None:
    """A clock that is set back by less than an interval holds, and later times are the stream's."""
    stamps: Stamps = [0, 10, 20, 30, 27, 40, 50]
    clock = Clock(Fraction(1, 250), 0, Fraction(1, 25), lambda *_: ([], []))
    assert [clock.at(stamp) * 250 for stamp in stamps] == [0, 10, 20, 30, 30, 40, 50]


@given(st.lists(st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62)), min_size=2, max_size=30))
def test_times_are_in_order_whatever_the_stream_says(timestamps: Stamps) -> None:
    """No sequence of timestamps makes time fall, with or without what comes after."""
    for clock in (clock_of(timestamps), Clock(TICK, 0, TICK)):
        times = [clock.at(None if t is None else t + ORIGIN) for t in timestamps]
        assert all(a <= b for a, b in pairwise(times))
