"""The order of requests in a real Redis: processes that die, and a server that is away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.errors import SessionsUnavailable
from app.state.redis.order import RedisOrder, RedisTurn

LEASE_S = 2.0


@asynccontextmanager
async def opened(url: str, lease_s: float = PATIENCE_S) -> AsyncIterator[RedisOrder]:
    """The order of one replica."""
    order = RedisOrder(url, 100, lease_s, timeout_s=PATIENCE_S)
    try:
        yield order
    finally:
        await order.close()


def soon() -> Deadline:
    return Deadline.after(PATIENCE_S)


async def _die(order: RedisOrder) -> None:
    """End what keeps the order's requests alive, as the end of its process would."""
    for task in order._tasks:
        task.cancel()
    await asyncio.gather(*order._tasks, return_exceptions=True)


def test_a_request_of_a_dead_process_leaves_after_its_lease(redis_server: RedisServer) -> None:
    """Others wait for a request that infers or is served as long as its process lives, and then no longer."""

    async def scenario() -> float:
        async with (
            opened(redis_server.url, LEASE_S) as dead,
            opened(redis_server.url, LEASE_S) as alive,
            dead.join("a", 1.0),
            dead.join("a", 2.0),
            alive.join("a", 3.0) as last,
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(last.come(soon()), 2 * LEASE_S)
            await _die(dead)
            died = time.monotonic()
            await last.come(soon())
            return time.monotonic() - died

    assert asyncio.run(scenario()) < PATIENCE_S / 2


def test_nothing_stays_in_redis(redis_server: RedisServer) -> None:
    """A line is three keys while requests are in flight, each with a time to live; then none."""

    async def scenario() -> None:
        with redis.Redis.from_url(redis_server.url) as beside:
            async with opened(redis_server.url) as order, order.join("key/cam", None) as turn:
                await turn.come(soon())
                keys = set(beside.keys())
                name = b"gateway:order:{key/cam}"
                assert keys == {name, name + b":leases", name + b":state"}
                assert all(0 < int(beside.pttl(key)) <= 2000 * PATIENCE_S for key in keys)
            assert beside.keys() == []

    asyncio.run(scenario())


def test_a_lost_message_costs_one_renewal(redis_server: RedisServer) -> None:
    """The subscription is dead: the waiting request asks again."""

    async def scenario() -> None:
        async with (
            opened(redis_server.url, LEASE_S) as one,
            opened(redis_server.url, LEASE_S) as deaf,
            deaf.join("a", 2.0) as second,
        ):
            deaf._tasks[1].cancel()
            async with one.join("a", 1.0) as first:
                waiting = asyncio.create_task(second.come(soon()))
                await first.come(soon())
            await waiting

    asyncio.run(scenario())


async def _wait_behind(order: RedisOrder, joined: asyncio.Event) -> None:
    async with order.join("a", 2.0) as second:
        joined.set()
        await second.come(soon())


def test_without_redis_requests_are_refused_and_then_served_again(redis_server: RedisServer) -> None:
    """A request that joins, comes or waits is refused; one that leaves isn't stopped. The next is served."""

    async def scenario() -> None:
        async with opened(redis_server.url, LEASE_S) as order:
            joined = asyncio.Event()
            async with order.join("a", 1.0) as first:
                waiting = asyncio.create_task(_wait_behind(order, joined))
                await joined.wait()
                redis_server.kill()
                with pytest.raises(SessionsUnavailable, match=f"127.0.0.1:{redis_server.port}"):
                    await first.come(soon())
                with pytest.raises(SessionsUnavailable):
                    await waiting
                with pytest.raises(SessionsUnavailable) as caught:
                    async with order.join("a", 3.0):
                        pass
                assert caught.value.retry_after == 1
            redis_server.start()
            async with order.join("a", 4.0) as next_one:
                await next_one.come(soon())

    asyncio.run(scenario())


def test_requests_keep_their_order_through_a_restart(redis_server: RedisServer) -> None:
    """A server that forgot them is told again, and calls them by their timestamps."""

    async def scenario() -> list[int]:
        served = list[int]()

        async def one(turn: RedisTurn, number: int) -> None:
            await turn.come(soon())
            served.append(number)

        async with opened(redis_server.url) as order, contextlib.AsyncExitStack() as stack:
            third = await stack.enter_async_context(order.join("a", 3.0))
            second = order.join("a", 2.0)
            turn = await second.__aenter__()
            redis_server.kill()
            redis_server.start()
            await order._renew_all()
            waiting = asyncio.create_task(one(third, 3))
            await one(turn, 2)
            await second.__aexit__(None, None, None)
            await waiting
        return served

    assert asyncio.run(scenario()) == [2, 3]


def test_a_call_sent_twice_changes_nothing(redis_server: RedisServer) -> None:
    """The client repeats a batch whose connection broke: the request has one place, and one number of arrival."""

    async def scenario() -> None:
        with redis.Redis.from_url(redis_server.url) as beside:
            async with opened(redis_server.url) as order, order.join("a", 1.0) as turn:
                assert await order._join(turn, 100) == 0
                assert beside.zcard("gateway:order:{a}") == 1
                for _ in range(2):
                    await turn.come(soon())
                    await order._send(turn, "leave")
                assert beside.keys() == []
                assert await order._join(turn, 100) == 0

    asyncio.run(scenario())


def test_a_server_that_hangs_is_given_up(redis_server: RedisServer) -> None:
    """A request is refused within the time limit of an answer, and served when the server goes on."""

    async def scenario() -> None:
        order = RedisOrder(redis_server.url, 100, LEASE_S, timeout_s=0.3)
        async with order.join("a", 1.0):
            pass
        redis_server.suspend()
        try:
            with pytest.raises(SessionsUnavailable, match=r"(?i)timeout"):
                async with order.join("a", 1.0):
                    pass
        finally:
            redis_server.resume()

        async def served() -> bool:
            with contextlib.suppress(SessionsUnavailable):
                async with order.join("a", 1.0) as turn:
                    await turn.come(soon())
                    return True
            return False

        while not await served():
            await asyncio.sleep(0.01)
        await order.close()

    asyncio.run(scenario())
