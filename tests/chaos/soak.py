"""A long mixed load over a real Triton: memory, descriptors, threads and shared memory stay where they are.

    make chaos CHAOS=soak CHAOS_ARGS='--minutes 20'

Every route, with sessions, prompts, streams, jobs and mistakes (`benchmarks.common.traffic`), from several callers. The
gateway and Triton are sampled every few seconds; the first fifth of the time is warm-up. Growth is that of a straight
line through the samples after it (Theil-Sen, so that a peak counts little), over all of that time. Prints percent;
2 % or more of resident memory, more descriptors or more in /dev/shm make it fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import httpx2
import numpy as np
import psutil
from support import videos

from benchmarks.common.traffic import Traffic
from tests.chaos.service import SHM, Service, triton

MOST_PERCENT = 2.0
WARM_UP = 0.2
CALLERS = 3
# Few jobs are kept, so that their number isn't what grows.
SETTINGS = {
    "videos_keep_bytes": 20 << 20,
    "text_cache_bytes": 1 << 20,
    "session_ttl_s": 20,
    "max_sessions": 200,
}


@dataclass(slots=True)
class Samples:
    """Samples of one process: seconds and values per measured quantity."""

    at: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def take(self, at: float, processes: list[psutil.Process], more: dict[str, float] | None = None) -> None:
        self.at.append(at)
        taken = {
            "rss_mb": sum(process.memory_info().rss for process in processes) / 1e6,
            "private_mb": sum(private(process) for process in processes) / 1e6,
            "fds": sum(process.num_fds() for process in processes),
            "threads": sum(process.num_threads() for process in processes),
        }
        for name, value in (taken | (more or {})).items():
            self.values.setdefault(name, []).append(float(value))

    def rows(self, begin: float) -> dict[str, dict[str, float]]:
        """After the warm-up: where it began, the growth in percent, the least and the most."""
        later = [index for index, at in enumerate(self.at) if at >= begin]
        at = np.array([self.at[index] for index in later])
        return {
            name: self._row(at, np.array([values[i] for i in later])) for name, values in self.values.items()
        }

    @staticmethod
    def _row(at: np.ndarray, values: np.ndarray) -> dict[str, float]:
        slope = theil_sen(at, values)
        start = float(np.median(values - slope * (at - at[0])))
        growth = slope * (at[-1] - at[0])
        return {
            "begin": round(start, 1),
            "growth": round(growth, 2),
            "growth_percent": round(100 * growth / start, 2) if start else 0.0,
            "least": round(float(values.min()), 1),
            "most": round(float(values.max()), 1),
        }


def private(process: psutil.Process) -> int:
    """Bytes that are this process's alone: without regions and libraries."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def theil_sen(at: np.ndarray, values: np.ndarray) -> float:
    """The median slope of all pairs of samples (Theil 1950, Sen 1968)."""
    pairs = combinations(range(0, len(at), max(1, len(at) // 300)), 2)
    slopes = [(values[b] - values[a]) / (at[b] - at[a]) for a, b in pairs]
    return float(np.median(slopes)) if slopes else 0.0


class Callers:
    """Threads that send rounds of everything until they are told to stop."""

    def __init__(self, url: str, video: bytes) -> None:
        self._url = url
        self._video = video
        self._stop = threading.Event()
        self.rounds: Counter[int] = Counter()
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        with httpx2.Client(base_url=self._url, timeout=60) as http:
            traffic = Traffic(http, self._video, f"camera{number}")
            while not self._stop.is_set():
                try:
                    traffic.round()
                except httpx2.TransportError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                self.rounds[number] += 1
                self.failed += traffic.failed
                traffic.failed.clear()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def shared(service: Service) -> dict[str, float]:
    """Return the gateway's regions in shared memory, and their bytes."""
    files = [SHM / name for name in service.regions()]
    return {
        "regions": len(files),
        "regions_mb": sum(path.stat().st_size for path in files if path.exists()) / 1e6,
    }


def watch(seconds: float, every: float, service: Service, family: list[psutil.Process]) -> dict[str, Samples]:
    """Sample both for so long; decoders, which come and go, aren't the gateway's own."""
    found = {"gateway": Samples(), "triton": Samples()}
    began = time.monotonic()
    while (at := time.monotonic() - began) < seconds:
        found["gateway"].take(at, [psutil.Process(service.pid)], shared(service))
        found["triton"].take(at, [process for process in family if process.is_running()])
        time.sleep(every)
    return found


def run(minutes: float, every: float) -> int:
    seconds = minutes * 60
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with triton(folder) as server:
            service = Service(server.grpc_url, folder, **SETTINGS)
            service.start()
            try:
                wait(service)
                video = videos.count(folder / "v.mp4", 24).read_bytes()
                callers = Callers(service.url, video)
                try:
                    watch(seconds * WARM_UP, every, service, server.processes())
                    found = watch(seconds * (1 - WARM_UP), every, service, server.processes())
                    regions = service.regions()
                finally:
                    callers.stop()
            finally:
                code = service.stop()
            left = sorted(name for name in regions if (SHM / name).exists())
        return report(minutes, callers, found, left, code)


def wait(service: Service) -> None:
    limit = time.monotonic() + 60
    while True:
        try:
            if httpx2.get(f"{service.url}/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        if time.monotonic() > limit:
            raise RuntimeError(service.log.read_text()[-4000:])
        time.sleep(0.05)


def report(minutes: float, callers: Callers, found: dict[str, Samples], left: list[str], code: int) -> int:
    processes = {name: samples.rows(0.0) for name, samples in found.items()}
    rows = {
        "minutes": minutes,
        "rounds of every route": sum(callers.rounds.values()),
        "unexpected answers": len(callers.failed),
        "regions left in /dev/shm": left,
        "exit code": code,
        **processes,
    }
    print(json.dumps(rows, indent=1))
    for line in callers.failed[:5]:
        print("!", line)
    bad = []
    for name, row in processes.items():
        if row["rss_mb"]["growth_percent"] >= MOST_PERCENT:
            bad.append(f"{name}: resident memory grew by {row['rss_mb']['growth_percent']} %")
        if row["fds"]["growth"] >= 3:
            bad.append(f"{name}: {row['fds']['growth']} more descriptors")
    if processes["gateway"]["regions_mb"]["growth_percent"] >= MOST_PERCENT:
        bad.append("the gateway's regions grew")
    for line in bad:
        print("!", line)
    return 1 if bad or callers.failed or left or code else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=3, help="seconds between samples")
    given = parser.parse_args()
    return run(given.minutes, given.every)


if __name__ == "__main__":
    sys.exit(main())
