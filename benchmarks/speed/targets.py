"""A running target, and one round of a case on it."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from app.settings import Settings
from benchmarks import ROOT
from benchmarks.common.cases import CASES, Case, body, request
from benchmarks.common.http_load import ask, drive
from benchmarks.common.services import gateway, process, wait_http
from deploy.local.triton_server import free_ports

IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds of a round with `IN_FLIGHT` requests in flight, with one in flight, and of a warm-up."""

    busy_s: float = 1.5
    alone_s: float = 0.8
    warm_up_s: float = 0.5


class Unavailable(Exception):
    """A target can't be installed or started here; why."""


class Target(Protocol):
    """Something that answers cases."""

    name: str

    def run(self, case: Case, in_flight: int, seconds: float) -> dict[str, float]:
        """`rate` in requests/s, `p50_ms`, `cpu_ms` and `client_cpu_ms` a request, `rss_mb`, `private_mb`."""

    def cases(self) -> Collection[str]:
        """Names of what it can be asked."""

    def check(self, case: Case) -> str | None:
        """Return the fault of its answer, or None."""

    def memory(self) -> dict[str, float]:
        """Resident memory now, see `resident`."""


class LimitTarget:
    """`limit.py`, told what to do through a pipe."""

    name = "limit"

    def __init__(self, pipe: subprocess.Popen[str], cases: Collection[str]) -> None:
        self._pipe, self._cases = pipe, cases
        self._order(None)

    def run(self, case: Case, in_flight: int, seconds: float) -> dict[str, float]:
        told = self._order({"case": case.name, "in_flight": in_flight, "seconds": seconds})
        return {
            "rate": told["requests"] / told["wall_s"],
            "p50_ms": statistics.median(told["samples_ms"]),
            "cpu_ms": 1000 * told["cpu_s"] / told["requests"],
            "client_cpu_ms": 0.0,
            **self.memory(),
        }

    def memory(self) -> dict[str, float]:
        return resident(psutil.Process(self._pipe.pid))

    def cases(self) -> Collection[str]:
        return self._cases

    def check(self, case: Case) -> str | None:
        return case.check(bytes.fromhex(self._order({"case": case.name, "answer": True})["answer"]))

    def _order(self, order: dict[str, Any] | None) -> dict[str, Any]:
        assert self._pipe.stdin is not None
        assert self._pipe.stdout is not None
        if order is not None:
            self._pipe.stdin.write(json.dumps(order) + "\n")
            self._pipe.stdin.flush()
        told: dict[str, Any] = json.loads(self._pipe.stdout.readline())
        return told


class HttpTarget:
    """A server, and the bytes of every request to it."""

    def __init__(
        self,
        name: str,
        port: int,
        served: psutil.Process,
        requests: Mapping[str, Sequence[bytes]],
        checks: Mapping[str, Callable[[bytes], str | None]] | None = None,
    ) -> None:
        self.name = name
        self.port, self.requests = port, requests
        self._served, self._checks = served, checks or {}

    def cases(self) -> Collection[str]:
        return self.requests

    def check(self, case: Case) -> str | None:
        return self._checks.get(case.name, case.check)(ask(self.port, self.requests[case.name][0]))

    def run(self, case: Case, in_flight: int, seconds: float) -> dict[str, float]:
        before = cpu_seconds(self._served)
        load = drive(self.port, self.requests[case.name], in_flight, seconds)
        count = len(load.samples_ms)
        return {
            "rate": load.rate,
            "p50_ms": statistics.median(load.samples_ms),
            "cpu_ms": 1000 * used(before, cpu_seconds(self._served)) / count,
            "client_cpu_ms": 1000 * load.client_cpu_s / count,
            **self.memory(),
        }

    def memory(self) -> dict[str, float]:
        return resident(self._served)


def family(served: psutil.Process) -> list[psutil.Process]:
    """A server and what it has started."""
    return [served, *served.children(recursive=True)]


def resident(served: psutil.Process, *, below: bool = True) -> dict[str, float]:
    """Memory in MB: resident; the same without the tensors in regions that Triton maps, too; nobody else's at all.

    `below`: with the processes that it has started.
    """
    processes = family(served) if below else [served]
    infos = [one.memory_full_info() for one in processes]
    rss = sum(info.rss for info in infos) / 1e6
    return {
        "rss_mb": rss,
        "without_tensors_mb": rss - sum(map(_shared_mb, processes)),
        "private_mb": sum(info.uss for info in infos) / 1e6,
    }


def _shared_mb(process: psutil.Process) -> float:
    """Pages of /dev/shm that it maps."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("RssShmem:")[2].split()[0]) * 1024 / 1e6


def cpu_seconds(served: psutil.Process) -> dict[int, float]:
    """User and system time by process id."""
    times: dict[int, float] = {}
    for one in family(served):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = one.cpu_times()
            times[one.pid] = spent.user + spent.system
    return times


def used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Seconds between two looks; a process that is new has spent all of its time since."""
    return sum(spent - before.get(pid, 0.0) for pid, spent in after.items())


def take(target: Target, case: Case, effort: Effort) -> dict[str, float]:
    """One round: throughput and CPU with `IN_FLIGHT` in flight, latency with one."""
    busy = target.run(case, IN_FLIGHT, effort.busy_s)
    alone = target.run(case, 1, effort.alone_s)
    return {
        "rate": busy["rate"],
        "cpu_ms": busy["cpu_ms"],
        "client_cpu_ms": busy["client_cpu_ms"],
        "p50_alone_ms": alone["p50_ms"],
        "rss_mb": max(busy["rss_mb"], alone["rss_mb"]),
        "without_tensors_mb": max(busy["without_tensors_mb"], alone["without_tensors_mb"]),
        "private_mb": max(busy["private_mb"], alone["private_mb"]),
    }


def prepare(target: Target, case: Case, effort: Effort) -> None:
    """Warm up, and look whether the answer is one.

    Raises:
        ValueError: it isn't.
    """
    for in_flight in (1, IN_FLIGHT):
        target.run(case, in_flight, effort.warm_up_s)
    fault = target.check(case)
    if fault is not None:
        raise ValueError(f"{target.name} {case.name}: {fault}")


@contextlib.contextmanager
def limit(cases: Collection[str], triton_grpc: str, log: Path) -> Iterator[LimitTarget]:
    command = [sys.executable, "-m", "benchmarks.speed.limit", "--serve", "--triton-url", triton_grpc]
    with log.open("wb") as out:
        pipe = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
        )
    try:
        yield LimitTarget(pipe, cases)
    finally:
        pipe.communicate(timeout=20)  # it stops when its orders end


@contextlib.contextmanager
def bare(cases: Collection[str], triton_grpc: str, log: Path) -> Iterator[HttpTarget]:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "benchmarks.speed.bare_asgi", "--triton-url", triton_grpc]
    with process([*command, "--port", str(port)], log) as served:
        wait_http(served, port, "/", log)
        yield HttpTarget("bare", port, served, {name: requests_of(CASES[name], f"/{name}") for name in cases})


@contextlib.contextmanager
def ours(
    name: str, cases: Collection[str], triton_grpc: str, log: Path, repository: Path
) -> Iterator[HttpTarget]:
    """The gateway with its defaults, as the README starts it; `ours_two` has two workers, `ours_scaled` scaled JPEGs.

    Raises:
        Unavailable: this gateway has no such option.
    """
    arguments = ("--workers", "2") if name == "ours_two" else ()
    environment = {}
    if name == "ours_scaled":
        if "scaled_jpeg" not in Settings.model_fields:
            raise Unavailable("this gateway decodes no JPEG at a fraction of its size")
        environment["GATEWAY_SCALED_JPEG"] = "true"
        cases = [case for case in cases if can_be_scaled(CASES[case])]
    with gateway(triton_grpc, repository, log, arguments, environment) as (port, served):
        requests = {case: requests_of(CASES[case], CASES[case].path) for case in cases}
        yield HttpTarget(name, port, served, requests)


def can_be_scaled(case: Case) -> bool:
    """Return whether half the picture still has the branch's size; detection keeps exact pixels."""
    size = int(case.branch.rpartition("_")[2])
    return case.family != "detect" and min(case.width, case.height) >= 2 * size


def requests_of(case: Case, path: str) -> list[bytes]:
    """Requests of a case, one per picture."""
    made = []
    for frames in case.frames():
        content, kind = body(case, frames)
        made.append(request(path, content, {"Content-Type": kind, "Accept": case.accept}))
    return made
