"""Throughput by `--workers` on one core and on two, memory per worker, and the sum for a larger host.

    python -m benchmarks.processes.workers                       # about 4 minutes
    python -m benchmarks.processes.workers --write               # docs/benchmarks/workers.json and workers.md
    python -m benchmarks.processes.workers --py-spy PATH         # with the time that a request holds the interpreter

Gateways with 1, 2 and 4 workers run side by side over one Triton, whose models compute next to nothing, and are asked
in turns. For each turn, every thread of the gateway is pinned, as by `taskset -acp`: to the first core, with Triton
and the client on the second; then to both, which Triton and the client share, since there are no more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import ROOT
from benchmarks.common import null_models
from benchmarks.common.cases import CASES, select
from benchmarks.common.environment import environment
from benchmarks.common.http_load import drive
from benchmarks.common.services import gateway, triton
from benchmarks.processes.host import page
from benchmarks.speed.ratios import rounded
from benchmarks.speed.targets import (
    Effort,
    HttpTarget,
    cpu_seconds,
    family,
    prepare,
    requests_of,
    resident,
    used,
)

WORKERS = (1, 2, 4)
IN_FLIGHT = 8
GIL_SECONDS, GIL_RATE = 3, 500
FOLDER = ROOT / "docs" / "benchmarks"
Rows = list[dict[str, Any]]


def pin(processes: Iterable[psutil.Process], cores: Sequence[int]) -> None:
    """Let every thread of the processes run on these cores alone; threads that they start later inherit it."""
    for process in processes:
        for task in Path(f"/proc/{process.pid}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


class Bench:
    """The gateways, and the processes that are pinned with them."""

    def __init__(self, folder: Path, cases: Sequence[str], stack: contextlib.ExitStack) -> None:
        self.cores = sorted(os.sched_getaffinity(0))[:2]
        repository = null_models.build(folder / "models")
        server = stack.enter_context(triton(repository, folder / "triton.log"))
        self.triton_url = server.grpc_url
        self.others = psutil.Process().children(recursive=True)
        self.gateways: dict[int, HttpTarget] = {}
        self.served: dict[int, psutil.Process] = {}
        requests = {name: requests_of(CASES[name], CASES[name].path) for name in cases}
        for count in WORKERS:
            arguments = ("--workers", str(count))
            log = folder / f"{count}.log"
            port, served = stack.enter_context(gateway(self.triton_url, repository, log, arguments))
            self.served[count] = served
            self.gateways[count] = HttpTarget(str(count), port, served, requests)

    def lay_out(self, count: int, cores: int) -> None:
        """Pin one gateway to one core or two."""
        ours, theirs = (self.cores[:1], self.cores[1:]) if cores == 1 else (self.cores, self.cores)
        pin(family(self.served[count]), ours)
        pin([psutil.Process(), *self.others], theirs)

    def load(self, count: int, case: str, seconds: float) -> dict[str, float]:
        """One turn under load."""
        target, served = self.gateways[count], self.served[count]
        before = cpu_seconds(served)
        load = drive(target.port, target.requests[case], IN_FLIGHT, seconds)
        answered = len(load.samples_ms)
        return {
            "rate": answered / load.wall_s,
            "p50_ms": statistics.median(load.samples_ms),
            "cpu_ms": 1000 * used(before, cpu_seconds(served)) / answered,
        }

    def memory(self, count: int) -> dict[str, float]:
        """MB of the parent, and of a worker without the tensors that it shares with Triton."""
        served = self.served[count]
        workers = [served] if count == 1 else _workers(served)
        each = [resident(one, below=False) for one in workers]
        return {
            "parent_mb": 0.0 if count == 1 else rounded(served.memory_info().rss / 1e6),
            "worker_mb": rounded(statistics.fmean(row["without_tensors_mb"] for row in each)),
            "worker_private_mb": rounded(statistics.fmean(row["private_mb"] for row in each)),
        }

    def gil_ms(self, case: str, py_spy: str) -> float:
        """Milliseconds for which a request of the only worker holds the interpreter's lock, by sampling."""
        self.lay_out(1, 2)
        with tempfile.NamedTemporaryFile() as out:
            command = [py_spy, "record", "--gil", "--nonblocking", "-f", "raw", "-o", out.name]
            command += ["-r", str(GIL_RATE), "-d", str(GIL_SECONDS), "-p", str(self.served[1].pid)]
            sampler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            row = self.load(1, case, GIL_SECONDS + 1)
            sampler.wait(60)
            lines = Path(out.name).read_text(encoding="utf-8").splitlines()
        samples = sum(int(line.rpartition(" ")[2]) for line in lines)
        return rounded(1000 * samples / GIL_RATE / GIL_SECONDS / row["rate"])


def _workers(parent: psutil.Process) -> list[psutil.Process]:
    """The parent's workers, without helpers such as the resource tracker."""
    return [one for one in parent.children() if "resource_tracker" not in " ".join(one.cmdline())]


def measure(cases: Sequence[str], rounds: int, seconds: float, py_spy: str | None) -> dict[str, Any]:
    """All layouts in turns: medians by case, cores and workers, and memory."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        bench = Bench(Path(name), cases, stack)
        for target in bench.gateways.values():
            for case in cases:
                prepare(target, CASES[case], Effort(0, 0, 0.3))
        places = [(case, cores, count) for case in cases for cores in (1, 2) for count in WORKERS]
        taken: dict[tuple[str, int, int], list[dict[str, float]]] = {place: [] for place in places}
        for number in range(rounds):
            for place in places if number % 2 else reversed(places):
                case, cores, count = place
                bench.lay_out(count, cores)
                taken[place].append(bench.load(count, case, seconds))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        bench.lay_out(1, 2)
        return {
            "command": "python -m benchmarks.processes.workers",
            "environment": environment(bench.triton_url, "http://127.0.0.1:9", {}),
            "rows": [_row(place, rows) for place, rows in taken.items()],
            "memory": {str(count): bench.memory(count) for count in WORKERS},
            "gil_ms": {case: bench.gil_ms(case, py_spy) for case in cases} if py_spy else {},
        }


def _row(place: tuple[str, int, int], rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    case, cores, count = place
    figures = {key: rounded(statistics.median(row[key] for row in rows)) for key in rows[0]}
    rates = [row["rate"] for row in rows]
    return {"case": case, "cores": cores, "workers": count, **figures,
            "rate_least": rounded(min(rates)), "rate_greatest": rounded(max(rates))}  # fmt: skip


def main() -> None:
    """Measure, print, and write what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="detect_640x480,detect_1080p,depth_1080p")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--py-spy", help="a py-spy that may trace the gateway")
    parser.add_argument("--write", action="store_true", help="workers.json and workers.md in docs/benchmarks")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, write the page again")
    options = parser.parse_args()
    figures = FOLDER / "workers.json"
    if options.redraw:
        found = json.loads(figures.read_text(encoding="utf-8"))
    else:
        found = measure(select(options.cases), options.rounds, options.seconds, options.py_spy)
    print(page(found))
    if options.write:
        figures.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.write or options.redraw:
        (FOLDER / "workers.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
