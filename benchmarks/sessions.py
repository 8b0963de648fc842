"""Cost that a tracking session adds to a frame with 50 objects: in memory, and in Redis, in one run.

    python benchmarks/sessions.py [--repeats 400] [--json FILE]

Two real servers on the embedded engine, one with a Redis, and a detector that computes next to nothing, so that the
ratios are the worst case. A 640 x 640 PNG to JSON, one at a time over kept connections; rounds are interleaved, and
what is added is the median of the differences within a round. `make redis-server` provides the Redis.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "helpers"))

from support.models import repository  # noqa: E402  # the path above
from support.servers.gateway import png, scene, server  # noqa: E402
from support.servers.redis_server import RedisServer  # noqa: E402

TRACKS = 50
WARM_UP = 30
BODY = png(scene(640, 640, *[(n % 3, 64 * (n % 10), 64 * (n // 10), 32) for n in range(TRACKS)]))
Post = Callable[[int], Any]


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=400, help="frames a way")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.repeats)
    for name, row in figures["ways"].items():
        print(f"{name:8} {row['ms']:8.2f} ms  {row['added_ms']:+6.2f} ms  {row['ratio']:5.2f}x")
    print(f"a session with {TRACKS} tracks: {figures['bytes']} bytes in Redis")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Medians of each way, and the size of the session's value."""
    models = repository.build(folder / "models")
    with (
        RedisServer(folder / "redis") as store,
        server(models, folder / "plain.log", embedded_threads=1) as (plain, _),
        server(models, folder / "redis.log", embedded_threads=1, session_store=store.url) as (shared, _),
    ):
        ways: dict[str, Post] = {
            "none": lambda _: plain.post("/v1/detect", content=BODY),
            "memory": lambda at: plain.post(f"/v1/detect?session=a&timestamp={at}", content=BODY),
            "redis": lambda at: shared.post(f"/v1/detect?session=a&timestamp={at}", content=BODY),
        }
        rows = summary([_round(ways, at) for at in range(WARM_UP + repeats)][WARM_UP:])
        with redis.Redis.from_url(store.url) as client:
            return {
                "tracks": TRACKS,
                "repeats": repeats,
                "ways": rows,
                "bytes": client.strlen("gateway:session:a"),
            }


def _round(ways: Mapping[str, Post], at: int) -> dict[str, float]:
    """Milliseconds of one frame each way."""
    times = {}
    for name, post in ways.items():
        started = time.perf_counter()
        answer = post(at)
        times[name] = (time.perf_counter() - started) * 1000
        assert len(answer.json()["detections"]) == TRACKS
    return times


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, median difference to no session, and ratio of the medians."""
    base = statistics.median(row["none"] for row in rounds)
    rows = {}
    for name in rounds[0]:
        ms = statistics.median(row[name] for row in rounds)
        added = statistics.median(row[name] - row["none"] for row in rounds)
        rows[name] = {"ms": round(ms, 3), "added_ms": round(added, 3), "ratio": round(ms / base, 3)}
    return rows


if __name__ == "__main__":
    main()
