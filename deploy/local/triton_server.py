"""A real tritonserver as a child of a test or benchmark, on free ports; it never outlives its parent."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil

LAUNCHER = Path(__file__).with_name("triton.py")
START_SECONDS = 300
_ABORTS = 3
_PORTS = 2_000
_RESUME_S = 10.0


class TritonServer:
    """Start with `with TritonServer(repository, log):`; `load` names the models (default: all that are there).

    `ports`: of HTTP, gRPC and metrics; default: free ones. `address`: the one to listen on. `prefix`: words before the
    command that starts it, such as those of `nsenter`. Leaving the block kills the server, which takes no time;
    `stop` is polite and takes seconds.
    """

    def __init__(
        self,
        repository: Path,
        log: Path,
        load: Sequence[str] | None = None,
        extra: Sequence[str] = (),
        ports: Sequence[int] | None = None,
        launcher: Path = LAUNCHER,
        *,
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.log = log
        self._address = address
        self._ports = list(ports or free_ports(3))
        self._command = [*prefix, sys.executable, str(launcher), "--repository", str(repository)]
        self._command += [] if address == "127.0.0.1" else ["--host", address]
        for name, port in zip(("http", "grpc", "metrics"), self._ports, strict=True):
            self._command += [f"--{name}-port", str(port)]
        if load is not None:
            self._command += [f"--load-model={name}" for name in load] or ["--load"]
        self._command += ["--exit-with-stdin", *(["--", *extra] if extra else [])]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http_url(self) -> str:
        return f"http://{self._address}:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        return f"{self._address}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self._address}:{self._ports[2]}/metrics"

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Return once the launcher says that it is ready.

        It is started again if it aborts over a lock of its Python backend, as 2.51 does at times on a busy machine.
        """
        for _ in range(_ABORTS):
            if self._begin():
                return
        raise RuntimeError(f"tritonserver didn't become ready:\n{self.log.read_text()[-4000:]}")

    def _begin(self) -> bool:
        """Start once; return False if the server aborted as `start` says."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            # The launcher stops when this pipe ends: with stop(), and with a parent that is killed.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )
        limit = time.monotonic() + START_SECONDS
        while b"triton: ready," not in self.log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.kill()
                if b"boost::interprocess::lock_exception" in self.log.read_bytes():
                    return False
                raise RuntimeError(f"tritonserver didn't become ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        return True

    def processes(self) -> list[psutil.Process]:
        """The launcher, the server and its stubs."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(self._process.pid)
            return [launcher, *launcher.children(recursive=True)]
        return []

    def stop(self) -> None:
        """Stop the server as an operator would: SIGTERM, then wait."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """Kill the server as a crash would: SIGKILL; the launcher then ends by itself."""
        if self._process is None:
            return
        family = self.processes()
        for process in family[1:] or family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=20)
        self._forget()

    def kill_launcher(self) -> list[psutil.Process]:
        """SIGKILL to the launcher alone; what was below it."""
        below = self.processes()[1:]
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._forget()
        return below

    def suspend(self) -> None:
        """SIGSTOP to the server, then to its stubs: it hangs, its sockets stay open."""
        for process in self.processes()[1:]:
            _send(process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the stubs, and to the server once these run.

        A server that runs before its stubs takes them for dead, and fails or forgets their runs.
        """
        server, stubs = self.processes()[1:2], self.processes()[2:]
        turns = {stub: _turns(stub) for stub in stubs if _stopped(stub)}
        for stub in stubs:
            _send(stub, signal.SIGCONT)
        limit = time.monotonic() + _RESUME_S
        for stub, before in turns.items():
            while not _all_ran(before, _turns(stub)) and time.monotonic() < limit:
                time.sleep(0.001)
        for process in server:
            _send(process, signal.SIGCONT)

    @property
    def died(self) -> bool:
        """True if it has ended by itself, as 2.51 does at times when it is resumed or its connections are cut."""
        return self._process is not None and self._process.poll() is not None

    def revived(self) -> bool:
        """Start it again if it has died, which no client can help."""
        if self.died:
            self._forget()
            self.start()
        return True

    def restart(self) -> None:
        """Stop, and start on the same ports."""
        self.stop()
        self.start()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def _turns(process: psutil.Process) -> dict[str, int]:
    """Number of times that each thread of the process was given a processor; empty if the process is over."""
    found = {}
    for thread in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            found[thread.name] = int((thread / "schedstat").read_text().split()[2])
    return found


def _all_ran(before: dict[str, int], now: dict[str, int]) -> bool:
    """Return whether each thread that is still there has run since."""
    return all(now[thread] > count for thread, count in before.items() if thread in now)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment.

    They lie below the range from which the kernel takes the ports of outgoing connections. Each parallel test process
    draws from a part of its own, and draws none twice before it has drawn all: a server may take seconds to listen.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _ports(10_000 + worker % 10 * 2_000)
    free: list[int] = []
    for port in itertools.islice(ports, _PORTS):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("no free ports")


@functools.cache
def _ports(first: int) -> Iterator[int]:
    """The ports of one part, in any order, again and again."""
    return itertools.cycle(random.sample(range(first, first + _PORTS), _PORTS))
