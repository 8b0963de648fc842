"""Rate limits in a real Redis: one bucket of all replicas, and a server that is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.keys.access import Rate
from app.keys.rate_limit import OwnBuckets
from app.state.redis import buckets as module
from app.state.redis.buckets import RedisBuckets

SLOW = Rate(0.01, 20)  # one request in 100 s


@asynccontextmanager
async def replicas(
    url: str, count: int, fallbacks: list[int] | None = None
) -> AsyncIterator[list[RedisBuckets]]:
    """The limits of so many replicas; those that Redis doesn't decide are noted in `fallbacks`."""
    noted = [] if fallbacks is None else fallbacks
    made = [
        RedisBuckets(url, OwnBuckets(), lambda: noted.append(1), timeout_s=PATIENCE_S) for _ in range(count)
    ]
    try:
        yield made
    finally:
        for buckets in made:
            await buckets.close()


def test_replicas_share_one_bucket(redis_server: RedisServer) -> None:
    """Two replicas that take at once get the burst together, not each; other keys have buckets of their own."""

    async def scenario() -> list[float]:
        async with replicas(redis_server.url, 2) as made:
            waits = await asyncio.gather(*(made[n % 2].take("north", SLOW) for n in range(60)))
            assert await made[0].take("south", SLOW) == 0
        return waits

    waits = asyncio.run(scenario())
    assert waits.count(0.0) == SLOW.burst
    assert all(99 < wait <= 100 for wait in waits if wait)


def test_a_bucket_refills_by_the_server_s_clock(redis_server: RedisServer) -> None:
    """After the time that a refusal names there is one request, and not two; the key ends when the bucket is full."""

    async def scenario() -> None:
        with redis.Redis.from_url(redis_server.url) as beside:
            async with replicas(redis_server.url, 1) as (buckets,):
                waits = [await buckets.take("north", Rate(0.01, 3)) for _ in range(4)]
                assert beside.keys() == [b"gateway:rate:north"]
                assert 299_000 < int(beside.pttl("gateway:rate:north")) <= 300_002
                full_at = beside.get("gateway:rate:north")
                assert isinstance(full_at, bytes)
                beside.set(
                    "gateway:rate:north", repr(float(full_at) - waits[-1] * 1e6)
                )  # as if it had passed
                assert await buckets.take("north", Rate(0.01, 3)) == 0
                assert await buckets.take("north", Rate(0.01, 3)) > 99
                assert await buckets.take("north", Rate(10, 1)) == 0, "a changed rate begins full"

    asyncio.run(scenario())


@pytest.mark.parametrize("per_s", [1e-9, 1e-300, 0.1, 1 / 3, 60 / 7, 1e6])
def test_every_rate_can_be_counted(redis_server: RedisServer, per_s: float) -> None:
    """However long its bucket takes to fill."""

    async def scenario() -> float:
        fallbacks: list[int] = []
        async with replicas(redis_server.url, 1, fallbacks) as (buckets,):
            wait = await buckets.take("north", Rate(per_s, 1))
        assert fallbacks == []
        return wait

    assert asyncio.run(scenario()) == 0


def test_without_redis_each_replica_limits_on_its_own(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is logged once, and counted with each request; Redis is asked again, and then counts again."""
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        fallbacks: list[int] = []
        async with replicas(redis_server.url, 1, fallbacks) as (buckets,):
            assert await buckets.take("north", SLOW) == 0
            redis_server.kill()
            waits = [await buckets.take("north", SLOW) for _ in range(SLOW.burst + 1)]
            assert waits[:-1] == [0.0] * SLOW.burst
            assert waits[-1] > 99
            assert len(fallbacks) == SLOW.burst + 1
            redis_server.start()
            monkeypatch.setattr(module, "PAUSE_S", 0.0)
            buckets._again_at = 0.0
            assert await buckets.take("north", SLOW) == 0
            assert len(fallbacks) == SLOW.burst + 1

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if record.name == "app.state.redis.buckets"]
    assert [text.split(":")[1] for text in said] == [" each replica limits on its own", " shared again"]


def test_a_server_that_hangs_delays_only_a_few_requests(redis_server: RedisServer) -> None:
    """Those of the first time limit wait for it; all others are limited at once."""

    async def scenario() -> None:
        buckets = RedisBuckets(redis_server.url, OwnBuckets(), timeout_s=0.2)
        assert await buckets.take("north", SLOW) == 0
        redis_server.suspend()
        try:
            waits = await asyncio.wait_for(
                asyncio.gather(*(buckets.take("north", SLOW) for _ in range(SLOW.burst))), PATIENCE_S
            )
            assert waits == [0.0] * SLOW.burst
            buckets._again_at = float("inf")  # nobody tries again within this test
            taken = buckets.take("north", SLOW)
            with pytest.raises(StopIteration):  # it waits for nothing
                taken.send(None)
        finally:
            redis_server.resume()
        await buckets.close()

    asyncio.run(scenario())
