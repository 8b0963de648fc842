"""Videos per second, CPU time per video and the start of `gateway bulk`: locally, on Ray, and beside a bare loop.

    python -m benchmarks.bulk.cost [--videos 40] [--seconds 4] [--rounds 3] [--json FILE]

One worker each, the embedded engine, models that compute next to nothing, and videos that are copies of one film. The
bare loop is `gateway analyze` with one video at a time: the same analysis in one process. On Ray, the run joins a
cluster that is already there. Videos per second and CPU time are those between the rows of the fourth video and the
last one, so that starts don't count. CPU time is that of the command, workers, decoders and Ray's own processes.
Ratios compare the medians of the rounds, in which the ways take turns. `first_s` is the time from the command's start
until the first video begins.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from benchmarks.common import null_models, test_videos
from benchmarks.common.services import variables

BRANCH = "yolo11n_640"
PROFILE = f"components: {{core_object_detections: {{variant: n, branch: {BRANCH}}}}}\n"
WARM = 4
ENVIRONMENT = {"GATEWAY_EMBEDDED_THREADS": "1", "GATEWAY_VARIANT": "n", "RAY_USAGE_STATS_ENABLED": "0"}


def main() -> int:
    """Print the rows of all ways as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.videos <= WARM:
        parser.error(f"--videos: more than {WARM} are needed")
    with tempfile.TemporaryDirectory() as name, variables(ENVIRONMENT), _cluster() as address:
        folder = Path(name)
        _prepare(folder, given.videos, given.seconds)
        bulk = ["bulk", str(folder / "videos"), "--workers", "1"]
        ways = {
            "bare": ["analyze", "--video-path", str(folder / "videos"), "--jobs", "1"],
            "local": [*bulk, "--on", "local"],
            "ray": [*bulk, "--on", "ray", "--address", address, "--worker-cpus", "1"],
        }
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(given.rounds):
            for way in list(ways)[:: -1 if number % 2 else 1]:
                found[way].append(_measured(folder, ways[way]))
    rows = {way: _medians(rounds) for way, rounds in found.items()}
    ratios = {
        "videos_per_s, local / bare": rows["local"]["videos_per_s"] / rows["bare"]["videos_per_s"],
        "cpu_s_per_video, local / bare": rows["local"]["cpu_s_per_video"] / rows["bare"]["cpu_s_per_video"],
        "cpu_s_per_video, ray / local": rows["ray"]["cpu_s_per_video"] / rows["local"]["cpu_s_per_video"],
    }
    text = json.dumps(
        {
            "videos": given.videos,
            "seconds": given.seconds,
            "ways": rows,
            "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
            "rounds": found,
        },
        indent=1,
    )
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    return 0


@contextlib.contextmanager
def _cluster() -> Iterator[str]:
    """Run a cluster of one node with one CPU; yields its address."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster()
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def _prepare(folder: Path, number: int, seconds: float) -> None:
    null_models.build(folder / "models", [BRANCH])
    (folder / "profile.yaml").write_text(PROFILE)
    (folder / "videos").mkdir()
    film = test_videos.make(folder / "film.mp4", 640, 360, seconds)
    for index in range(number):
        shutil.copy(film, folder / "videos" / f"{index:04}.mp4")


def _measured(folder: Path, way: Sequence[str]) -> dict[str, float]:
    """Run all videos; what the module's docstring says of a way."""
    profile = "--profile-path" if way[0] == "analyze" else "--profile"
    command = [
        sys.executable, "-m", "app.cli", *way, profile, str(folder / "profile.yaml"),
        "--repository", str(folder / "models"), "--output", str(folder / "out"), "--json",
    ]  # fmt: skip
    started = time.time()
    rows: list[dict[str, Any]] = []
    cpu: list[float] = []
    ended: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            rows.append(json.loads(line))
            cpu.append(_cpu_s(os.getpid()))
            ended.append(time.monotonic())
    shutil.rmtree(folder / "out")
    assert process.returncode == 0, f"exit code {process.returncode}"
    counted = len(rows) - WARM
    found = {
        "videos_per_s": round(counted / (ended[-1] - ended[WARM - 1]), 3),
        "cpu_s_per_video": round((cpu[-1] - cpu[WARM - 1]) / counted, 4),
    }
    begun = [datetime.fromisoformat(row["started_at"]).timestamp() for row in rows if "started_at" in row]
    return found | ({"first_s": round(min(begun) - started, 2)} if begun else {})


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}


def _cpu_s(parent: int) -> float:
    """CPU seconds of all processes below one, ended ones included if they were waited for."""
    total = 0.0
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    sys.exit(main())
