"""Requests of one session in flight: each waits for those before it, and for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded
from app.sessions.session_order import SessionOrder

SOON = Deadline.after(86_400)  # made when the tests are collected


async def _served(timestamps: Sequence[float | None], done_after: Sequence[int]) -> list[int]:
    """Return the order of service for requests joining in this order; number i infers for `done_after[i]` rounds of
    the loop.
    """
    session_order, order = SessionOrder(100), list[int]()

    async def request(number: int) -> None:
        with session_order.join("a", timestamps[number]) as turn:
            for _ in range(done_after[number]):
                await asyncio.sleep(0)
            await turn.come(SOON)
            order.append(number)
            await asyncio.sleep(0)
            assert order[-1] == number, "two at once"

    async with asyncio.TaskGroup() as tasks:
        for number in range(len(timestamps)):
            tasks.create_task(request(number))
    assert not session_order._lines
    return order


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_without_timestamps_they_go_as_they_came(rounds: list[int]) -> None:
    """However long each takes to infer."""
    order = asyncio.run(_served([None] * len(rounds), rounds))
    assert order == list(range(len(rounds)))


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(1, 9)), min_size=1, max_size=8))
def test_with_timestamps_they_go_by_them(frames: list[tuple[float, int]]) -> None:
    """Connections may overtake each other: what is in flight at once is put in order; equal ones go as they came."""
    times, rounds = zip(*frames, strict=True)
    order = asyncio.run(_served(times, rounds))
    assert order == sorted(range(len(times)), key=lambda number: times[number])


def test_one_that_comes_late_doesn_t_interrupt_the_one_served() -> None:
    """An earlier frame that arrives while a later one is tracked waits until that one is done."""

    async def scenario() -> list[str]:
        session_order, events = SessionOrder(100), list[str]()
        with session_order.join("a", 2.0) as second:
            await second.come(SOON)
            with session_order.join("a", 1.0) as first:
                with pytest.raises(DeadlineExceeded):
                    await first.come(Deadline.after(0.05))
                events.append("first waited")
        with session_order.join("a", 1.0) as first:
            await first.come(SOON)
            events.append("first served")
        return events

    assert asyncio.run(scenario()) == ["first waited", "first served"]


def test_one_that_fails_lets_the_next_go() -> None:
    """An error before or in its turn leaves no hole in the line."""

    async def scenario() -> None:
        session_order = SessionOrder(100)
        with session_order.join("a", 3.0) as third:
            for failing in (1.0, 2.0):
                with contextlib.suppress(RuntimeError), session_order.join("a", failing) as turn:
                    if failing == 2.0:
                        await turn.come(SOON)
                    raise RuntimeError
            await third.come(Deadline.after(PATIENCE_S))

    asyncio.run(scenario())


def test_waiting_ends_with_the_deadline() -> None:
    """The one in front takes too long: stage `queue`, and the line goes on without the one that gave up."""

    async def scenario() -> str:
        session_order = SessionOrder(100)
        with session_order.join("a", 1.0):
            with pytest.raises(DeadlineExceeded) as caught, session_order.join("a", 2.0) as second:
                await second.come(Deadline.after(0.02))
            assert len(session_order._lines["a"].turns) == 1
        return caught.value.stage

    assert asyncio.run(scenario()) == "queue"


def test_sessions_don_t_wait_for_each_other() -> None:
    """Each has its own line, which is forgotten with its last request."""

    async def scenario() -> None:
        session_order = SessionOrder(100)
        with session_order.join("a", 1.0), session_order.join("b", 2.0) as other:
            await other.come(Deadline.after(PATIENCE_S))
        assert not session_order._lines

    asyncio.run(scenario())


def test_a_session_may_have_only_so_many_in_flight() -> None:
    """The next one is refused at once, and told when to come again; another session's isn't."""

    async def scenario() -> Overloaded:
        session_order = SessionOrder(2)
        with (
            session_order.join("a", 1.0),
            session_order.join("a", 2.0),
            session_order.join("b", 1.0),
            pytest.raises(Overloaded, match="session a") as caught,
            session_order.join("a", 3.0),
        ):
            pass
        return caught.value

    assert asyncio.run(scenario()).retry_after == 1
