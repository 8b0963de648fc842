"""Runs the whole stack under mixed load, asks every panel's query, and draws each dashboard from the answers.

    pip install matplotlib
    python benchmarks/dashboards.py [--seconds 300] [--output docs/dashboards]

Triton, the gateway (2 workers), Redis and Prometheus through deploy/local/stack.py, with the test repository's tiny
models; callers that send a little of everything (tests/helpers/support/servers/traffic.py). Needs no Docker
and no Grafana. The exit code is 1 if a panel has no data that should have some.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from dashboards_draw import Source, draw

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "helpers"))

from support import analysis, dashboards  # noqa: E402  # the path above
from support.models import repository  # noqa: E402  # the path above
from support.servers.traffic import Traffic  # noqa: E402

POINTS = 100
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
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "dashboards")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.draw:
        return picture(options.draw, time.time() - options.seconds, options.output)
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder)) as addresses:
        video = analysis.patches(Path(folder) / "video.mp4", 24).read_bytes()
        started = time.time()
        rounds = load(addresses["gateway"], video, options.callers, options.seconds)
        print(f"{rounds} rounds in {options.seconds:.0f} s")
        return picture(addresses["prometheus"], started, options.output)


@contextlib.contextmanager
def stack(folder: Path) -> Iterator[dict[str, str]]:
    """The stack over the test repository's models: the addresses of its parts."""
    names = (*repository.DETECTORS, *repository.DEPTH, *repository.OTHERS)
    models = repository.build(folder / "models", names)
    command = [sys.executable, str(ROOT / "deploy" / "local" / "stack.py"), "--repository", str(models)]
    command += ["--workers", "2", "--scrape-interval", SCRAPE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
        for name, board in dashboards.boards().items():
            path = output / f"{name}.png"
            empty = draw(board, source, path)
            print(
                f"{path.name}: {len(dashboards.panels(board))} panels, {path.stat().st_size >> 10} KiB, empty: {empty}"
            )
            missing += [title for title in empty if not _may_be_empty(title)]
    return 1 if missing else 0


def _may_be_empty(title: str) -> bool:
    return title in MAY_BE_EMPTY or title.endswith(dashboards.GPU_ONLY)


def filled(expr: str) -> str:
    """Return the query as Grafana would send it, with everything chosen."""
    return dashboards.substituted(expr, RATE_INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
