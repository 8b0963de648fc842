"""Closed and open loops, against callers whose behaviour is known."""

from __future__ import annotations

import threading

import pytest
from support.waiting import PATIENCE_S

from app.errors import InsufficientGpuMemory
from benchmarks.matrix import load
from benchmarks.matrix.load import Outcome, Refused, achieved_rate, closed_loop, open_loop, warm_up

FOREVER = float("inf")


class Clock:
    """The time of callers and loops, which passes only where one of them sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(load, "time", clock)
    return clock


class Sleeper:
    """A server that takes its time: `work` seconds a call, one call at a time if `serial`.

    Calls after the first `alone` wait until `together` of them are there.
    """

    def __init__(
        self,
        clock: Clock,
        work: float,
        *,
        serial: bool = False,
        stall_at: int | None = None,
        together: int = 1,
        alone: int = 0,
    ) -> None:
        self.clock, self.work, self.stall_at, self.alone = clock, work, stall_at, alone
        self.calls = self.inside = self.most_inside = self.closed = 0
        self._turn = threading.Lock() if serial else None
        self._count = threading.Lock()
        self._together = threading.Barrier(together, timeout=PATIENCE_S)

    def __call__(self) -> None:
        with self._count:
            self.calls += 1
            number = self.calls
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        if number > self.alone:
            self._together.wait()
        if self._turn:
            with self._turn:
                self._sleep(number)
        else:
            self._sleep(number)
        with self._count:
            self.inside -= 1

    def _sleep(self, number: int) -> None:
        self.clock.sleep(0.4 if number == self.stall_at else self.work)

    def close(self) -> None:
        with self._count:
            self.closed += 1


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_closed_loop_keeps_so_many_in_flight(clock: Clock, in_flight: int) -> None:
    """Exactly the calls asked for, never more at once than asked for, and every client is closed."""
    server = Sleeper(clock, 0.01, together=in_flight)
    outcome = closed_loop(lambda: server, in_flight, 12, FOREVER)
    assert (server.calls, len(outcome.samples_ms)) == (12, 12)
    assert server.most_inside == in_flight
    assert server.closed == in_flight
    assert min(outcome.samples_ms) >= 9.99


def test_a_closed_loop_ends_in_time(clock: Clock) -> None:
    """After the limit nothing more is sent, but what counts is one call a client at least."""
    server = Sleeper(clock, 0.05)
    outcome = closed_loop(lambda: server, 1, 1000, 0.2)
    assert len(outcome.samples_ms) in (4, 5)
    assert len(closed_loop(lambda: Sleeper(clock, 0.05), 2, 1000, 0).samples_ms) == 2


def test_an_open_loop_counts_from_when_a_request_was_due(clock: Clock) -> None:
    """One stall makes every request behind it late, as its sender sees it: no coordinated omission."""
    stalled = Sleeper(clock, 0.001, serial=True, stall_at=3)
    outcome = open_loop(lambda: stalled, 50, 16, FOREVER)
    late = sorted(outcome.samples_ms)[-10:]
    assert len(outcome.samples_ms) == 16
    assert all(value > 100 for value in late)
    closed = closed_loop(lambda: Sleeper(clock, 0.001, serial=True, stall_at=3), 1, 16, FOREVER)
    assert sum(value > 100 for value in closed.samples_ms) == 1


@pytest.mark.parametrize(("work", "kept"), [(0.001, True), (0.05, False)])
def test_a_rate_that_can_not_be_kept_is_seen(clock: Clock, work: float, kept: bool) -> None:  # a parameter
    """A rate of 40/s from a server that manages 20/s is measured as 20/s."""
    outcome = open_loop(lambda: Sleeper(clock, work, serial=True), 40, 20, FOREVER)
    slow = Sleeper(clock, work, serial=True)
    outcome = open_loop(lambda: slow, 40, 20, FOREVER)
    assert (achieved_rate([outcome]) >= 0.9 * 40) is kept


def test_errors_are_counted_by_code() -> None:
    """Every kind of failure has a code, its words are kept, and none ends the loop."""
    failures = iter([InsufficientGpuMemory("no room"), Refused("overloaded", "full"), OSError("gone"), None])

    class Failing:
        def __call__(self) -> None:
            failure = next(failures)
            if failure is not None:
                raise failure

        def close(self) -> None:
            pass

    outcome = closed_loop(Failing, 1, 4, FOREVER)
    assert outcome.errors == {"insufficient_gpu_memory": 1, "overloaded": 1, "client_error": 1}
    assert len(outcome.samples_ms) == 1
    assert "gone" in outcome.detail


def test_warm_up_stops_at_the_first_failure() -> None:
    """An out-of-memory branch isn't asked again and again."""
    calls = 0

    class Broken:
        def __call__(self) -> None:
            nonlocal calls
            calls += 1
            raise InsufficientGpuMemory("no room")

        def close(self) -> None:
            pass

    assert warm_up(Broken, 4, 5, FOREVER).errors == {"insufficient_gpu_memory": 1}
    assert calls == 1


def test_warm_up_reaches_every_client(clock: Clock) -> None:
    """With several in flight, each one's connection and tensors are there before it counts."""
    server = Sleeper(clock, 0.02, together=3, alone=1)
    warm_up(lambda: server, 3, 1, FOREVER)
    assert server.most_inside == 3


def test_a_rate_of_nothing() -> None:
    """Too few completions say no rate."""
    assert achieved_rate([Outcome()]) == 0
