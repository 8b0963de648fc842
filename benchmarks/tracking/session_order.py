"""Cost of the order of a session's frames: in this process, and in Redis for all replicas, in one run.

    python -m benchmarks.tracking.session_order [--rounds 5] [--frames 400] [--json FILE]

A frame joins, comes and leaves; nothing is detected or tracked. Printed are microseconds per frame, the least of the
rounds, which are interleaved: of time, and of this process's processor. `read and write` is what a session in Redis
costs anyhow. `handed over` alternates two frames in flight between two replicas, so that each waits for a message.
`make redis-server` provides the Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.deadline import Deadline
from app.sessions.session_order import LocalOrder, SessionOrder
from app.state.redis.order import RedisOrder
from app.state.redis.store import RedisStore
from benchmarks.common import services

Way = Callable[[int], Awaitable[None]]
SOON = Deadline.after(86_400)
VALUE = bytes(9000)  # of a session with 50 tracks
_LEASE_S = 5.0  # default of GATEWAY_SESSION_LEASE_S


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=400, help="per round and way")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, services.redis(Path(folder)) as url:
        figures = asyncio.run(measure(url, options.rounds, options.frames))
    for name, row in figures.items():
        print(f"{name:26} {row['us']:8.1f} µs {row['cpu_us']:8.1f} µs of the processor  {row['ratio']:5.2f}x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


async def measure(url: str, rounds: int, frames: int) -> dict[str, dict[str, float]]:
    """Microseconds per frame of each way; `ratio` is to reading and writing a session."""
    local, one, other = LocalOrder(100), RedisOrder(url, 100, _LEASE_S), RedisOrder(url, 100, _LEASE_S)
    store = RedisStore(url, 60)
    ways: dict[str, Way] = {
        "read and write": lambda count: _store(store, count),
        "order, this process": lambda count: _alone(local, count),
        "order, Redis": lambda count: _alone(one, count),
        "order, Redis, 8 in flight": lambda count: _together(one, count, 8),
        "order, Redis, handed over": lambda count: _handed_over(one, other, count),
    }
    least = {name: [float("inf")] * 2 for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            await way(frames)
            taken = time.perf_counter() - wall, time.process_time() - processor
            least[name] = [min(*pair) for pair in zip(least[name], taken, strict=True)]
    await one.close()
    await other.close()
    store.close()
    base = least["read and write"][0]
    return {
        name: {
            "us": round(wall / frames * 1e6, 1),
            "cpu_us": round(processor / frames * 1e6, 1),
            "ratio": round(wall / base, 2),
        }
        for name, (wall, processor) in least.items()
    }


async def _store(store: RedisStore, count: int) -> None:
    def update() -> None:
        held = store.load("a")
        store.save("a", VALUE, None if held is None else held.token)

    for _ in range(count):
        await asyncio.to_thread(update)


async def _alone(order: SessionOrder, count: int) -> None:
    for at in range(count):
        async with order.join("a", at) as turn:
            await turn.come(SOON)


async def _together(order: SessionOrder, count: int, in_flight: int) -> None:
    async def some(first: int) -> None:
        for at in range(first, count, in_flight):
            async with order.join("b", at) as turn:
                await turn.come(SOON)

    await asyncio.gather(*map(some, range(in_flight)))


async def _handed_over(one: SessionOrder, other: SessionOrder, count: int) -> None:
    await asyncio.gather(_together(one, count // 2, 1), _together(other, count // 2, 1))


if __name__ == "__main__":
    main()
