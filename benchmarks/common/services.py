"""Services that are measured: a real Triton with cheap models, and the gateway as it is served."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks import ROOT
from deploy.local.triton_server import TritonServer, free_ports

# One ONNX Runtime thread a model, which never spins (the backend's own default), and memory that stays mapped: what
# Triton takes of the shared cores is the same for every target and hides what they take.
TRITON_ENVIRONMENT = {
    "TRITON_ORT_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
START_SECONDS = 90


@contextlib.contextmanager
def triton(
    repository: Path, log: Path, load: Sequence[str] | None = None, ports: Sequence[int] | None = None
) -> Iterator[TritonServer]:
    """A real tritonserver over `repository`, on free ports unless `ports` (HTTP, gRPC, metrics) says otherwise."""
    with variables(TRITON_ENVIRONMENT):
        server = TritonServer(repository, log, load, ports=ports)
        server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def gateway(
    triton_url: str | None,
    repository: Path,
    log: Path,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, psutil.Process]]:
    """`gateway serve --triton-url … --variant n` with defaults, ready: its port, and its process.

    Without `triton_url` it serves on the embedded engine. `arguments` and `environment` (`GATEWAY_…`) add to that;
    `repository` is where it finds the weights' digests.
    """
    port = free_ports(1)[0]
    command = [
        *(sys.executable, "-m", "app.cli", "serve", "--variant", "n"),
        *(("--engine", "embedded") if triton_url is None else ("--triton-url", triton_url)),
        *("--port", str(port), "--repository", str(repository), *arguments),
    ]
    with process(command, log, {"GATEWAY_VIDEOS_FOLDER": "", **(environment or {})}) as served:
        wait_http(served, port, "/readyz", log)
        yield port, served


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A real redis-server without persistence: its URL."""
    script = ROOT / "deploy" / "local" / "redis.sh"
    program = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    port, log = free_ports(1)[0], folder / "redis.log"
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with process([*command, "--save", "", "--appendonly", "no"], log) as served:
        wait_for(lambda: _accepts(port), served, log)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def process(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Iterator[psutil.Process]:
    """A process with its output in `log`; it and what it started are gone afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        started = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    family = psutil.Process(started.pid)
    try:
        yield family
    finally:
        below = _below(family)
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(20)
        for left in below if started.poll() is not None else [family, *below]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        started.wait(20)


def _below(parent: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(parent.children(recursive=True))
    return []


def wait_http(
    served: psutil.Process,
    port: int,
    path: str,
    log: Path,
    ready: Callable[[int], bool] = lambda status: status == 200,
    seconds: float = START_SECONDS,
) -> None:
    """Until GET `path` answers a status that is `ready`.

    Raises:
        RuntimeError: the process has ended, or the time is over; with the end of its log.
    """
    wait_for(lambda: ready(_status(port, path)), served, log, seconds)


def wait_for(
    answers: Callable[[], bool], served: psutil.Process, log: Path, seconds: float = START_SECONDS
) -> None:
    """Until `answers` is true and raises nothing.

    Raises:
        RuntimeError: the process has ended, or the time is over; with the end of its log.
    """
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if answers():
                return
        gone = not served.is_running() or served.status() == psutil.STATUS_ZOMBIE
        if gone or time.monotonic() > limit:
            raise RuntimeError(f"not ready:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def _status(port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for what is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
