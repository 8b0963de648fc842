"""Runs the whole stack under mixed load, asks every panel's query, and draws each dashboard from the answers.

    pip install matplotlib
    python -m benchmarks.dashboards [--seconds 300] [--output out/dashboards]

deploy/local/stack.py starts Triton, the gateway (2 workers), Redis and Prometheus over models that compute next to
nothing; callers send a little of everything (benchmarks/common/traffic.py), and `gateway bulk` runs beside them. Needs
no Docker and no Grafana. The exit code is 1 if a panel has no data that should have some.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import ROOT
from benchmarks.common import null_models, test_videos
from benchmarks.common.traffic import Traffic
from benchmarks.dashboards.bulk_run import bulk_run
from benchmarks.dashboards.draw import Source, draw
from deploy.grafana import queries
from export import repository
from routing import catalogue as catalogues

POINTS = 100
BRANCHES = (
    *("yolo11n_320", "yolo11n_640", "midas_256", "raft_256"),
    *("clip_image_224", "clip_text", "places365_resnet50_224"),
)
MODELS, STACK = "models", "stack"
SCRAPE = "5s"
RATE_INTERVAL = "30s"  # Grafana takes at least four scrapes
# Without data by right, beside what exists on GPU hosts alone.
MAY_BE_EMPTY = {"Sessions that ended by themselves"}  # in memory; with two workers they are in Redis


def main() -> int:
    """Start, load, ask, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300, help="of load")
    parser.add_argument(
        "--callers", type=int, default=3, help="that send rounds one after another, at the same time"
    )
    parser.add_argument("--draw", metavar="URL", help="only draw the last SECONDS of this Prometheus")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "dashboards")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.draw:
        return picture(options.draw, time.time() - options.seconds, options.output)
    with tempfile.TemporaryDirectory() as made, stack(folder := Path(made)) as addresses:
        video = test_videos.make(folder / "video.mp4", 320, 256, 1)
        with bulk_run(folder / "bulk", video, folder / MODELS, folder / STACK):
            started = time.time()
            rounds = load(addresses["gateway"], video.read_bytes(), options.callers, options.seconds)
            print(f"{rounds} rounds in {options.seconds:.0f} s")
            return picture(addresses["prometheus"], started, options.output)


@contextlib.contextmanager
def stack(folder: Path) -> Iterator[dict[str, str]]:
    """The stack over null models of some branches: the addresses of its parts."""
    models = folder / MODELS
    repository.write_configs(repository.configs(catalogues.load()), models)  # the others lack their weights
    null_models.build(models, BRANCHES)
    command = [sys.executable, str(ROOT / "deploy" / "local" / "stack.py"), "--repository", str(models)]
    (folder / STACK / "bulk").mkdir(parents=True)
    command += ["--workers", "2", "--scrape-interval", SCRAPE, "--folder", str(folder / STACK)]
    environment = {**os.environ, "GATEWAY_REQUIRE_READY": BRANCHES[0]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            ready = next(line for line in lines if line.startswith("stack: ready "))
            yield json.loads(ready.removeprefix("stack: ready "))
        finally:
            process.terminate()


def load(gateway: str, video: bytes, callers: int, seconds: float) -> int:
    """Rounds that were sent; what wasn't answered as it should have been is printed."""
    sent = []

    def call(number: int) -> None:
        with httpx2.Client(base_url=gateway, timeout=60) as http:
            traffic = Traffic(http, video, f"camera{number}")
            sent.append(traffic.run(seconds, pause=0.2))
            for fault in sorted(set(traffic.failed))[:5]:
                print(f"caller {number}: {fault}")

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent)


def picture(prometheus: str, started: float, output: Path) -> int:
    """Draw every dashboard; 1 if a panel is empty that shouldn't be."""
    ended = time.time()
    with httpx2.Client(base_url=prometheus, timeout=60) as http:

        def ask(path: str, **parameters: Any) -> list[dict[str, Any]]:
            answer = http.post(
                f"/api/v1/{path}", data={name: str(value) for name, value in parameters.items()}
            )
            series: list[dict[str, Any]] = answer.json()["data"]["result"]
            return series

        def over_time(expr: str) -> list[dict[str, Any]]:
            step = max(1.0, (ended - started) / POINTS)
            return ask("query_range", query=filled(expr), start=started, end=ended, step=step)

        source = Source(over_time, lambda expr: ask("query", query=filled(expr), time=ended))
        missing = []
        for name, board in queries.boards().items():
            path = output / f"{name}.png"
            empty = draw(board, source, path)
            print(
                f"{path.name}: {len(queries.panels(board))} panels, {path.stat().st_size >> 10} KiB, empty: {empty}"
            )
            missing += [title for title in empty if not _may_be_empty(title)]
    return 1 if missing else 0


def _may_be_empty(title: str) -> bool:
    return title in MAY_BE_EMPTY or title.endswith(queries.GPU_ONLY)


def filled(expr: str) -> str:
    """Return the query as Grafana would send it, with everything chosen."""
    return queries.substituted(expr, RATE_INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
