"""Small bodies that are dear to decode or to read, in two rounds: what they do to /livez and to resident memory.

    make chaos CHAOS=hostile_memory    # prints a table, writes docs/benchmarks/hostile_memory.json

Scan bombs, pictures of 62 megapixels in a few kB, and prompts that are slow to clean go to a real gateway with its
usual limits, several at a time. Fails where an answer is none of those expected, /livez has a p99 of 0.25 s or more, a
good frame isn't answered afterwards, or the second round leaves over 5 % more resident memory than the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
from PIL import Image
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import server

from tests.chaos.common import percentile
from tests.chaos.hostile_inputs import GOOD, saved

SIDE = 7900
AT_ONCE = 6
MOST_P99_S = 0.25
MOST_GROWTH = 0.05
SETTLED_S = 4.0  # pages go back two seconds after the last large picture
EXPECTED = {200, 400, 413, 429, 504}
RESULT = ROOT / "docs" / "benchmarks" / "hostile_memory.json"
Body = tuple[str, bytes, dict[str, str]]  # path, content, headers


def scan_bomb(side: int, times: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    data = saved("JPEG", Image.new("RGB", (side, side)), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * times + data[-2:]


def bodies() -> list[Body]:
    """One of each kind."""
    flat = Image.new("RGB", (SIDE, SIDE), (90, 120, 30))
    pictures = (
        saved("WEBP", flat, quality=50, method=0),
        saved("WEBP", flat, lossless=True, method=0),
        saved("PNG", flat),
        saved("JPEG", flat, progressive=True),
        scan_bomb(4000, 3000),
        scan_bomb(SIDE, 28),  # within the limit of scans
    )
    prompts = ("&" + "amp;" * 1000, "e" + "\u0301\u0316" * 2000, "é\n" * 2000, "\x80\x81" * 2000)
    text = json.dumps({"prompts": [prompt + str(n) for prompt in prompts for n in range(10)]}).encode()
    return [
        *(("/v1/detect?branch=320", picture, {}) for picture in pictures),
        ("/v1/depth?branch=256", pictures[0], {"accept": "application/x-npy"}),
        ("/v1/clip/text", text, {"content-type": "application/json"}),
    ]


class Probe:
    """Asks /livez all the time, on a thread of its own."""

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        self._url, self._over = url, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as http:
            while not self._over.wait(0.02):
                began = time.perf_counter()
                http.get("/livez").raise_for_status()
                self.seconds.append(time.perf_counter() - began)

    def take(self) -> dict[str, float]:
        """p99 and the longest since the last call."""
        seconds, self.seconds = self.seconds, []
        return {"livez_p99_s": round(percentile(seconds, 99), 4), "livez_most_s": round(max(seconds), 4)}

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def attack(http: httpx2.Client, made: list[Body], times: int) -> Counter[int]:
    """All bodies `times` times, `AT_ONCE` at a time; the statuses."""

    def send(body: Body) -> int:
        path, content, headers = body
        return http.post(path, content=content, headers=headers).status_code

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return Counter(threads.map(send, made * times))


def measured(probe: Probe, process: psutil.Process, work: Callable[[], Counter[int]]) -> dict[str, object]:
    """Return a round's answers, the times of /livez meanwhile, and the settled resident memory."""
    probe.take()
    began = time.perf_counter()
    statuses = work()
    took, livez = time.perf_counter() - began, probe.take()
    until_idle(process)
    resident = round(process.memory_info().rss / 1e6)
    return {"statuses": dict(statuses), "seconds": round(took, 1), **livez, "resident_mb": resident}


def until_idle(process: psutil.Process) -> None:
    """Wait until nothing is decoded any more for callers whose time has run out, and pages have gone back."""
    before, quiet = -1.0, 0.0
    while quiet < SETTLED_S:
        time.sleep(0.5)
        used = sum(process.cpu_times()[:2])
        quiet = quiet + 0.5 if used - before < 0.1 else 0.0  # /livez is still asked
        before = used


def run(result: Path, times: int) -> int:
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    with tempfile.TemporaryDirectory() as folder:
        repository = test_repository.build(Path(folder) / "models", names)
        settings = {"videos_folder": Path(folder) / "videos", "embedded_threads": 1}
        with server(repository, Path(folder) / "gateway.log", **settings) as (http, pid):
            http.timeout = httpx2.Timeout(120)
            process, probe, made = psutil.Process(pid), Probe(str(http.base_url)), bodies()
            try:
                good: list[Body] = [("/v1/detect?branch=320", GOOD, {})]
                rows = {"good frames": measured(probe, process, lambda: attack(http, good, 50))}
                for number in (1, 2):
                    rows[f"round {number}"] = measured(probe, process, lambda: attack(http, made, times))
                after = http.post("/v1/detect?branch=320", content=GOOD).status_code
            finally:
                probe.close()
    return report(rows, after, result)


def report(rows: dict[str, dict[str, object]], after: int, result: Path) -> int:
    faults = [] if after == 200 else [f"a good frame was answered {after} afterwards"]
    for name, row in rows.items():
        print(name, row)
        wrong = set(row["statuses"]) - EXPECTED  # type: ignore[call-overload]  # a dict of statuses
        if wrong:
            faults.append(f"{name}: answered {wrong}")
        if float(str(row["livez_p99_s"])) >= MOST_P99_S:
            faults.append(f"{name}: /livez p99 {row['livez_p99_s']} s")
    first, second = (int(str(rows[f"round {number}"]["resident_mb"])) for number in (1, 2))
    if second > first * (1 + MOST_GROWTH):
        faults.append(f"resident memory grew from {first} to {second} MB")
    result.write_text(json.dumps({"rows": rows, "faults": faults}, indent=1) + "\n")
    print(*(f"! {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--times", type=int, default=2, help="how often each body is sent in a round")
    options = parser.parse_args()
    return run(options.json, options.times)


if __name__ == "__main__":
    sys.exit(main())
