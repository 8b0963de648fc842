"""The rules of a drain, with a clock of the test's."""

from __future__ import annotations

import threading

import pytest
from support.waiting import PATIENCE_S

from app.process.drain import Drain


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At 100 s."""
    return Clock()


def _asked(drain: Drain, clock: Clock, times: int, every: float) -> None:
    for _ in range(times):
        drain.probed(green=not drain.begun)
        clock.now += every


def test_nothing_has_begun_before_the_order(clock: Clock) -> None:
    """Neither asking nor waiting starts it."""
    drain = Drain(5, clock)
    _asked(drain, clock, 9, 1)
    assert (drain.begun, drain.closing, drain.ended) == (False, False, False)


def test_a_drain_of_fixed_length_closes_connections_in_its_second_half(clock: Clock) -> None:
    """6 s: connections go on until 3 s, and red answers don't shorten it."""
    drain = Drain(6, clock)
    assert drain.begin() == 6
    _asked(drain, clock, 20, 0.1)
    assert (drain.begun, drain.closing, drain.ended) == (True, False, False)
    clock.now = 103
    assert (drain.closing, drain.ended) == (True, False)
    clock.now = 106
    drain.wait()
    assert drain.ended


def test_without_a_length_and_a_prober_it_is_over_at_once(clock: Clock) -> None:
    """One question, or two that lie apart, make no prober."""
    drain = Drain(0, clock)
    drain.probed(green=True)
    assert drain.begin() == 0
    assert (drain.begun, drain.closing, drain.ended) == (True, True, True)
    rare = Drain(0, clock)
    _asked(rare, clock, 3, 10)
    assert rare.begin() == 0


def test_without_a_length_a_prober_sees_four_red_answers(clock: Clock) -> None:
    """A balancer that asks twice a second has given the gateway up by then."""
    drain = Drain(0, clock)
    _asked(drain, clock, 3, 0.5)
    assert drain.begin() == 3
    _asked(drain, clock, 3, 0.5)
    assert not drain.ended
    _asked(drain, clock, 1, 0.5)
    assert drain.ended


def test_a_prober_that_falls_silent_is_waited_for_3_seconds(clock: Clock) -> None:
    """No longer."""
    drain = Drain(0, clock)
    _asked(drain, clock, 3, 1)
    drain.begin()
    clock.now += 3
    drain.wait()
    assert drain.ended


def test_red_answers_before_the_order_make_no_prober(clock: Clock) -> None:
    """Nobody sends requests to a gateway that has never been ready."""
    drain = Drain(0, clock)
    for _ in range(5):
        drain.probed(green=False)
    assert drain.begin() == 0


def test_it_can_be_cut() -> None:
    """A waiting caller continues."""
    drain = Drain(3600)
    drain.begin()
    waiting = threading.Thread(target=drain.wait)
    waiting.start()
    assert not drain.ended
    drain.cut()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
