"""Cost that a tracking session adds to a frame with 50 objects: in memory, and in Redis, in one run.

    python -m benchmarks.tracking.sessions [--repeats 400] [--json FILE]

Two real servers on the embedded engine, one with a Redis, and a detector that computes next to nothing, so that the
ratios are the worst case. A 640 x 640 JPEG to JSON, one at a time over kept connections; rounds are interleaved, and
what is added is the median of the differences within a round. `make redis-server` provides the Redis.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import redis

from benchmarks.common import null_models, services
from benchmarks.common.cases import jpeg

TRACKS = 50
WARM_UP = 30
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
    print(
        f"a session with {TRACKS} tracks: {figures['bytes']} bytes in Redis, {figures['calls']} calls per frame"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Medians of each way, and the size of the session's value."""
    models = null_models.build(folder / "models", ["yolo11n_640"], boxes=TRACKS)
    picture, one_thread = jpeg(640, 640, seed=0), {"GATEWAY_EMBEDDED_THREADS": "1"}
    with (
        services.redis(folder / "redis") as store,
        _client(models, folder / "plain.log", one_thread) as plain,
        _client(models, folder / "shared.log", {**one_thread, "GATEWAY_SESSION_STORE": store}) as shared,
    ):
        ways: dict[str, Post] = {
            "none": lambda _: plain.post("/v1/detect", content=picture),
            "memory": lambda at: plain.post(f"/v1/detect?session=a&timestamp={at}", content=picture),
            "redis": lambda at: shared.post(f"/v1/detect?session=a&timestamp={at}", content=picture),
        }
        rows = summary([_round(ways, at) for at in range(WARM_UP + repeats)][WARM_UP:])
        with redis.Redis.from_url(store) as client:
            return {
                "tracks": TRACKS,
                "repeats": repeats,
                "ways": rows,
                "bytes": client.strlen("gateway:session:a"),
                "calls": _calls(client) / (WARM_UP + repeats),
            }


def _calls(client: redis.Redis) -> float:
    """Number of scripts and reads that the gateway has asked for; no script reads a string itself."""
    counted = client.info("commandstats")
    return float(sum(counted[f"cmdstat_{command}"]["calls"] for command in ("evalsha", "get")))


@contextlib.contextmanager
def _client(models: Path, log: Path, environment: Mapping[str, str]) -> Iterator[httpx2.Client]:
    """A client of a gateway on the embedded engine."""
    with (
        services.gateway(None, models, log, environment=environment) as (port, _),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        yield http


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
