"""Time until the gateway stops working on a video whose caller has closed the connection, as Stop on the page does.

    python -m benchmarks.video.stopping [--rounds 20] [--repository triton/models] [--branch yolo11n_640]

`POST /v1/detect` with every frame of a video, on the embedded engine; after some lines the connection is closed. From
then on this process looks at the gateway without a pause. All times are of this process's clock, in ms after the close:

- `last inference`: the end of the last look that found more inferences (`gateway_inferences_total`) than before;
- `released`: the end of the first look that found no stream in progress and no decoder's process.

Each round goes on looking for a second after that, and fails if an inference is counted then. Without `--repository`
the models compute next to nothing; with it, they are those that `make models` built.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.common import null_models, services, test_videos
from benchmarks.common.http_calls import lines

LINES = 20
AFTERWARDS_S = 1.0
_LIMIT_S = 60.0


class Look(NamedTuple):
    """Counters of the gateway, and the processes below it; `at` in seconds of `time.perf_counter`, after the look."""

    at: float
    inferences: float
    streams: float
    below: int


class Watcher:
    """Looks at one gateway over one connection."""

    def __init__(self, port: int, gateway: psutil.Process) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._gateway = gateway

    def close(self) -> None:
        self._connection.close()

    def look(self) -> Look:
        """Return the state of now."""
        self._connection.request("GET", "/metrics")
        text = self._connection.getresponse().read().decode()
        below = len(self._gateway.children(recursive=True))
        return Look(
            time.perf_counter(),
            _sum(text, "gateway_inferences_total"),
            _sum(text, "gateway_video_streams_in_progress"),
            below,
        )


def _sum(text: str, metric: str) -> float:
    return sum(map(float, re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)", text, re.MULTILINE)))


def stopped(watcher: Watcher, idle: int, port: int, path: str, video: Path) -> tuple[float, float]:
    """Begin a video, close the connection, and return `last inference` and `released` in seconds.

    Args:
        watcher: of the gateway.
        idle: processes below it while it has no video.
        port: of the gateway.
        path: of the request.
        video: that is sent.

    Raises:
        RuntimeError: the work doesn't end.
    """
    stream = lines(port, path, video)
    for _ in range(LINES):
        next(stream)
    stream.close()
    closed = time.perf_counter()
    before = watcher.look()
    last = before.at
    released = None
    while released is None or before.at < released + AFTERWARDS_S:
        now = watcher.look()
        if now.inferences > before.inferences:
            last = now.at
        if released is None and now.streams == 0 and now.below == idle:
            released = now.at
        if now.at > closed + _LIMIT_S or (released is not None and last > released):
            raise RuntimeError(f"the gateway still works after {now.at - closed:.1f} s")
        before = now
    return last - closed, released - closed


def main() -> None:
    """Measure, and print each round and the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repository", type=Path, help="models that are built; default: null models")
    parser.add_argument("--branch", default="yolo11n_640")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stopping-") as folder:
        rounds = measure(Path(folder), options.repository, options.branch, options.rounds)
    for name, place in (("last inference", 0), ("released", 1)):
        values = [1000 * one[place] for one in rounds]
        print(
            f"{name}: median {statistics.median(values):.0f} ms, longest {max(values):.0f} ms of {len(values)} stops"
        )


def measure(folder: Path, repository: Path | None, branch: str, rounds: int) -> list[tuple[float, float]]:
    """Return the times of each round, in seconds."""
    models = null_models.build(folder / "models", [branch]) if repository is None else repository.resolve()
    video = test_videos.make(folder / "film.mp4", 640, 480, 60)
    with services.gateway(None, models, folder / "log") as (port, served):
        path = f"/v1/detect?branch={branch}"
        with contextlib.closing(Watcher(port, served)) as watcher:
            idle = watcher.look().below
            return [stopped(watcher, idle, port, path, video) for _ in range(rounds)]


if __name__ == "__main__":
    main()
