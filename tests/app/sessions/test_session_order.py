"""Contract of both orders: each request of a session in flight waits for those before it, and for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded
from app.sessions.session_order import LocalOrder, SessionOrder
from app.state.redis.order import RedisOrder

# Opens the orders of two replicas, or twice that of one.
Opened = Callable[..., AbstractAsyncContextManager[list[SessionOrder]]]
SOON = Deadline.after(86_400)  # made when the tests are collected
# Fewer examples than usual: most of them make calls to a server.
few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for this module's tests."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["local", "redis", "two replicas"])
def opened(request: pytest.FixtureRequest, shared_redis: RedisServer) -> Opened:
    """Opens two orders of the same requests, which are the same one unless there are two replicas."""

    @asynccontextmanager
    async def opened(most: int = 100) -> AsyncIterator[list[SessionOrder]]:
        orders: list[SessionOrder] = [LocalOrder(most)]
        if request.param != "local":
            count = 2 if request.param == "two replicas" else 1
            orders = [RedisOrder(shared_redis.url, most, PATIENCE_S, PATIENCE_S) for _ in range(count)]
        try:
            yield [orders[0], orders[-1]]
        finally:
            for order in orders:
                await order.close()

    return opened


async def _served(opened: Opened, timestamps: Sequence[float | None], done_after: Sequence[int]) -> list[int]:
    """Return the order of service for requests joining in this order; number i infers for `done_after[i]` rounds of
    the loop, in turns at one and the other replica.
    """
    order = list[int]()
    joined = [asyncio.Event() for _ in timestamps]

    async def request(session_order: SessionOrder, number: int) -> None:
        async with session_order.join("a", timestamps[number]) as turn:
            joined[number].set()
            for _ in range(done_after[number]):
                await asyncio.sleep(0)
            await joined[-1].wait()
            await turn.come(SOON)
            order.append(number)
            await asyncio.sleep(0)
            assert order[-1] == number, "two at once"

    async with opened() as orders, asyncio.TaskGroup() as tasks:
        for number in range(len(timestamps)):
            tasks.create_task(request(orders[number % 2], number))
            if orders[0] is not orders[1]:
                await joined[number].wait()
    return order


@few
@given(rounds=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_without_timestamps_they_go_as_they_came(opened: Opened, rounds: list[int]) -> None:
    """However long each takes to infer."""
    order = asyncio.run(_served(opened, [None] * len(rounds), rounds))
    assert order == list(range(len(rounds)))


@few
@given(frames=st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(1, 9)), min_size=1, max_size=8))
def test_with_timestamps_they_go_by_them(opened: Opened, frames: list[tuple[float, int]]) -> None:
    """Connections may overtake each other: what is in flight at once is put in order; equal ones go as they came."""
    times, rounds = zip(*frames, strict=True)
    order = asyncio.run(_served(opened, times, rounds))
    assert order == sorted(range(len(times)), key=lambda number: times[number])


def test_one_that_comes_late_doesn_t_interrupt_the_one_served(opened: Opened) -> None:
    """An earlier frame that arrives while a later one is tracked waits until that one is done."""

    async def scenario() -> list[str]:
        events = list[str]()
        async with opened() as (one, other):
            async with one.join("a", 2.0) as second:
                await second.come(SOON)
                async with other.join("a", 1.0) as first:
                    with pytest.raises(DeadlineExceeded):
                        await first.come(Deadline.after(0.05))
                    events.append("first waited")
            async with other.join("a", 1.0) as first:
                await first.come(SOON)
                events.append("first served")
        return events

    assert asyncio.run(scenario()) == ["first waited", "first served"]


def test_one_that_fails_lets_the_next_go(opened: Opened) -> None:
    """An error before or in its turn leaves no hole in the line."""

    async def scenario() -> None:
        async with opened() as (one, other), one.join("a", 3.0) as third:
            for failing in (1.0, 2.0):
                with contextlib.suppress(RuntimeError):
                    async with other.join("a", failing) as turn:
                        if failing == 2.0:
                            await turn.come(SOON)
                        raise RuntimeError
            await third.come(Deadline.after(PATIENCE_S))

    asyncio.run(scenario())


def test_one_that_is_cancelled_while_it_waits_lets_the_next_go(opened: Opened) -> None:
    """Its caller has left: nobody waits for it."""

    async def waiting(order: SessionOrder, joined: asyncio.Event) -> None:
        async with order.join("a", 2.0) as second:
            joined.set()
            await second.come(SOON)

    async def scenario() -> None:
        async with opened() as (one, other), other.join("a", 3.0) as third:
            async with one.join("a", 1.0):
                joined = asyncio.Event()
                leaving = asyncio.create_task(waiting(one, joined))
                await joined.wait()
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            await third.come(Deadline.after(PATIENCE_S))

    asyncio.run(scenario())


def test_waiting_ends_with_the_deadline(opened: Opened) -> None:
    """The one in front takes too long: stage `queue`, and the line goes on without the one that gave up."""

    async def scenario() -> str:
        async with opened() as (one, other):
            async with one.join("a", 1.0):
                with pytest.raises(DeadlineExceeded) as caught:
                    async with other.join("a", 2.0) as second:
                        await second.come(Deadline.after(0.02))
            async with one.join("a", 3.0) as third:
                await third.come(Deadline.after(PATIENCE_S))
        return caught.value.stage

    assert asyncio.run(scenario()) == "queue"


def test_sessions_don_t_wait_for_each_other(opened: Opened) -> None:
    """Each has its own line."""

    async def scenario() -> None:
        async with opened() as (one, other), one.join("a", 1.0), other.join("b", 2.0) as turn:
            await turn.come(Deadline.after(PATIENCE_S))

    asyncio.run(scenario())


def test_a_session_may_have_only_so_many_in_flight(opened: Opened) -> None:
    """The next one is refused at once, and told when to come again; another session's isn't."""

    async def scenario() -> Overloaded:
        async with (
            opened(2) as (one, other),
            one.join("a", 1.0),
            other.join("a", 2.0),
            one.join("b", 1.0),
        ):
            with pytest.raises(Overloaded, match="session a") as caught:
                async with other.join("a", 3.0):
                    pass
        return caught.value

    assert asyncio.run(scenario()).retry_after == 1


def test_nothing_stays_of_a_session_without_requests() -> None:
    """Its line is forgotten with its last request."""

    async def scenario() -> None:
        order = LocalOrder(100)
        async with order.join("a", 1.0), order.join("b", 2.0) as other:
            await other.come(Deadline.after(PATIENCE_S))
        assert not order._lines

    asyncio.run(scenario())
