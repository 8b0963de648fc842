"""TLS connections that nobody uses don't hold a stop: it ends as soon as with plain HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from support.servers.authority import Authority
from support.servers.gateway import png, scene
from support.servers.listening import gateway
from support.servers.raw_http import HOST, Line

from deploy.local.triton_server import free_ports

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
ASK = b"GET /v1/branches HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
POST = (
    b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    % len(FRAME)
)
# What requests under way are given; a stop that waits for idle connections takes that long.
REQUESTS_S = 300


class Service:
    """A gateway that speaks TLS."""

    def __init__(self, pid: int, port: int, context: ssl.SSLContext) -> None:
        self.process, self.port, self.context = psutil.Process(pid), port, context

    def line(self) -> Line:
        return Line(self.port, self.context)

    def stop(self) -> int | None:
        """Send SIGTERM; the exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        code: int | None = self.process.wait(REQUESTS_S / 5)
        return code


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def service(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Iterator[Service]:
    """Ready."""
    authority = Authority(tmp_path / "tls")
    (cert, key), port = authority.signed("server"), free_ports(1)[0]
    context = ssl.create_default_context(cafile=authority.ca)
    url = f"https://localhost:{port}/readyz"

    def up() -> bool:
        return httpx2.get(url, verify=context).status_code == 200

    with gateway(
        repository, tmp_path / "log", up, port=port, tls_cert=cert, tls_key=key,
        shutdown_timeout_s=REQUESTS_S, idle_timeout_s=REQUESTS_S, workers=request.param,
    ) as pid:  # fmt: skip
        yield Service(pid, port, context)


def test_connections_that_nobody_uses_end_at_once(service: Service) -> None:
    """Idle after an answer, closed by the answer, without a request yet, and in the middle of the handshake: their
    peers read nothing, and say no goodbye; the exit code is 0.
    """
    with contextlib.ExitStack() as stack:
        idle, closed, silent = (stack.enter_context(service.line()) for _ in range(3))
        assert idle.send(ASK % b"").answer().status == 200
        assert closed.send(ASK % b"Connection: close\r\n").answer().status == 200
        half = stack.enter_context(socket.create_connection((HOST, service.port), 60))
        half.sendall(b"\x16\x03\x01\x02\x00")
        assert service.stop() == 0
        assert half.recv(1) == b""
        assert silent.over()


def test_an_answer_that_waits_is_taken_whole(service: Service) -> None:
    """A request under way is answered after SIGTERM, to the last byte, and its connection ends then."""
    with service.line() as line:
        assert line.send(POST).answer().status == 100  # the gateway reads the body
        line.send(FRAME[:100])
        os.kill(service.process.pid, signal.SIGTERM)
        line.send(FRAME[100:])
        assert len(line.answer().json()["detections"]) == 1
        assert line.over()
        assert service.process.wait(REQUESTS_S / 5) == 0


def test_a_long_answer_that_closes_is_taken_whole(service: Service) -> None:
    """An answer of megabytes to a reader that takes its time isn't cut off by the end of its connection."""
    with service.line() as line:
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
        head = b"POST /v1/depth?branch=256 HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-npy\r\n"
        large = png(scene(1600, 1200))
        line.send(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(large) + large)
        time.sleep(2)  # long enough for everything that the gateway can send to be sent
        answer = line.answer()
        assert answer.status == 200, answer.body
        assert len(answer.body) > 1600 * 1200 * 4
        assert line.over()
