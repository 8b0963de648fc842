"""A gateway that is told to stop goes on serving until balancers know, then finishes what is under way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from support.servers.gateway import png, scene
from support.servers.listening import gateway
from support.servers.raw_http import Line
from support.waiting import PATIENCE_S

from deploy.local.triton_server import free_ports

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(FRAME)

ASK = b"GET /v1/branches HTTP/1.1\r\nHost: x\r\n\r\n"


class Running:
    """A gateway with a port for operation."""

    def __init__(self, pid: int, port: int, operate: int) -> None:
        self.process, self.port, self.operate = psutil.Process(pid), port, operate

    def stop(self) -> None:
        """Send SIGTERM to the one process that a supervisor knows."""
        os.kill(self.process.pid, signal.SIGTERM)

    def readyz(self) -> int:
        return httpx2.get(f"http://127.0.0.1:{self.operate}/readyz", timeout=PATIENCE_S).status_code

    def until_red(self) -> None:
        until(lambda: self.readyz() == 503)

    def detect(self) -> httpx2.Response:
        return httpx2.post(f"http://127.0.0.1:{self.port}/v1/detect", content=FRAME, timeout=PATIENCE_S)


def until(true: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


@contextlib.contextmanager
def running(repository: Path, folder: Path, **settings: object) -> Iterator[Running]:
    port, operate = free_ports(2)
    probe = f"http://127.0.0.1:{operate}/readyz"
    ready = lambda: httpx2.get(probe, timeout=PATIENCE_S).status_code == 200  # noqa: E731  # one line, two uses
    with gateway(repository, folder / "log", ready, port=port, operate_port=operate, **settings) as pid:
        yield Running(pid, port, operate)


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_are_served_while_readyz_is_red(repository: Path, tmp_path: Path, workers: int) -> None:
    """After SIGTERM /readyz is 503 and names the stop, new connections are served, what is under way is finished once
    told again, and the exit code is 0.
    """
    with running(repository, tmp_path, drain_s=600, workers=workers, session_store="memory") as service:
        with Line(service.port) as line:
            line.send(HEAD, FRAME[:100])
            service.stop()
            service.until_red()
            told = httpx2.get(f"http://127.0.0.1:{service.operate}/readyz", timeout=PATIENCE_S).json()
            assert told["failing"][0]["name"] == "gateway"
            assert [service.detect().status_code for _ in range(8)] == [200] * 8
            service.stop()  # this is enough
            until(lambda: not _listens(service.port))
            assert line.send(FRAME[100:]).answer().status == 200
            assert line.over()
        assert service.process.wait(PATIENCE_S) == 0


def _listens(port: int) -> bool:
    try:
        with Line(port, timeout=PATIENCE_S):
            return True
    except ConnectionRefusedError:
        return False


def test_the_public_readyz_is_red_too(repository: Path, tmp_path: Path) -> None:
    """Without a port for operation; who has no key for details sees the status."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}/readyz"
    with gateway(
        repository,
        tmp_path / "log",
        lambda: httpx2.get(url, timeout=PATIENCE_S).status_code == 200,
        port=port,
        drain_s=600,
    ) as pid:
        os.kill(pid, signal.SIGTERM)
        until(lambda: httpx2.get(url, timeout=PATIENCE_S).status_code == 503)
        os.kill(pid, signal.SIGTERM)
        assert psutil.Process(pid).wait(PATIENCE_S) == 0


def test_connections_end_with_an_answer_late_in_the_drain(repository: Path, tmp_path: Path) -> None:
    """A caller that keeps its connection is told to open another one before this one closes."""
    with running(repository, tmp_path, drain_s=8) as service, Line(service.port) as line:
        assert "connection" not in line.send(ASK).answer().headers
        service.stop()
        answers = 0
        while line.send(ASK).answer().headers.get("connection") != "close":
            answers += 1
            time.sleep(0.05)
        assert answers > 0
        assert line.over()
        assert service.process.wait(PATIENCE_S) == 0


def test_a_prober_is_waited_for_without_a_setting(repository: Path, tmp_path: Path) -> None:
    """Somebody asks /readyz all the time: connections are taken until the answer has been red four times."""
    with running(repository, tmp_path) as service:
        assert [service.readyz() for _ in range(3)] == [200] * 3
        service.stop()
        service.until_red()
        assert service.detect().status_code == 200
        with contextlib.suppress(httpx2.TransportError):  # the fourth may be the last thing that it does
            assert [service.readyz() for _ in range(3)] == [503] * 3
        assert service.process.wait(PATIENCE_S) == 0
