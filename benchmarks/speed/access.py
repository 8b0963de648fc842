"""Cost of API keys per request: microseconds in the event loop, with none, one and fifty keys.

    python -m benchmarks.speed.access [--requests 20000] [--rounds 9]

In one process, without a network: the same ASGI request through the same middleware, the variants taking turns, so that
the ratios hold whatever else the machine does. Printed are the least and the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from app.api.server.access import Guard, rules_of
from app.keys.access import Access, ApiKey, Rate, digest_of, new_key
from app.keys.rate_limit import OwnBuckets, SharedBuckets
from app.metrics import Metrics

RULES = rules_of(("/v1/detect",))
HEADERS = [
    (b"host", b"127.0.0.1:8080"), (b"user-agent", b"curl/8"), (b"accept", b"*/*"),
    (b"content-type", b"image/jpeg"), (b"content-length", b"90000"), (b"x-request-id", b"a" * 32),
]  # fmt: skip


async def nothing(_scope: Any, _receive: Any, send: Any) -> None:
    """The app behind the middleware."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )


def guarded(count: int, rate: Rate | None = None, folder: Path | None = None) -> tuple[Any, list[Any]]:
    """A guard with so many keys, the last of which is the caller's."""
    secrets = [new_key() for _ in range(count)]
    keys = tuple(
        ApiKey(f"k{n}", digest_of(s.encode()), frozenset({"infer"}), rate) for n, s in enumerate(secrets)
    )
    buckets = SharedBuckets(folder) if folder else OwnBuckets()
    headers = [*HEADERS, (b"authorization", f"Bearer {secrets[-1]}".encode())]
    counter = Metrics().key_requests
    access = Access(lambda: keys, buckets, observe=lambda name, said: counter.labels(name, said).inc())
    return Guard(nothing, access, RULES, apart=False), headers


async def timed(app: Any, headers: list[Any], requests: int) -> float:
    """Microseconds a request."""

    async def send(message: Any) -> None:
        """Nobody reads the answer."""

    started = time.perf_counter()
    for _ in range(requests):
        await app({"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers}, None, send)
    return (time.perf_counter() - started) / requests * 1e6


async def measure(requests: int, rounds: int) -> None:
    """All variants, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        limit = Rate(1e9, 1_000_000)
        variants = {
            "no keys": (Guard(nothing, None, RULES, apart=False), HEADERS),
            "1 key": guarded(1),
            "50 keys": guarded(50),
            "1 key, limited": guarded(1, limit),
            "1 key, limited for all workers": guarded(1, limit, Path(folder)),
        }
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, (app, headers) in variants.items():
                taken[name].append(await timed(app, headers, requests))
    base = min(taken["no keys"])
    for name, values in taken.items():
        added = min(values) - base
        print(
            f"{name:32} {min(values):6.2f} us (median {statistics.median(values):6.2f}), added {added:6.2f}"
        )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    asyncio.run(measure(options.requests, options.rounds))


if __name__ == "__main__":
    main()
