"""Two gateways behind a real balancer are restarted one after the other, and no caller notices."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest
from support.servers.gateway import png, scene
from support.servers.haproxy_server import HAProxy
from support.servers.listening import gateway
from support.waiting import PATIENCE_S

from deploy.local.triton_server import free_ports

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
CALLERS, PER_CALLER_S = 4, 6


class Callers:
    """Send frames through the balancer, 24 a second, and count what comes back."""

    def __init__(self, port: int) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self.served: collections.Counter[str] = collections.Counter()  # by port
        self._port, self._over = port, threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CALLERS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_served(self, port: int) -> None:
        """Wait for some more answers of one gateway."""
        limit = time.monotonic() + 120
        wanted = self.served[str(port)] + 20
        while self.served[str(port)] < wanted:
            assert time.monotonic() < limit, self.seen
            time.sleep(0.05)

    def _send(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.is_set():
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection(
                    "127.0.0.1", self._port, timeout=PATIENCE_S
                )
                connection.request("POST", "/v1/detect?branch=320", FRAME)
                answer = connection.getresponse()
                text = answer.read()
                self.served[answer.getheader("X-Served-By", "")] += 1
                self.seen["200" if answer.status == 200 else f"{answer.status} {text[:200]!r}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.seen[repr(error)] += 1
                connection = None
            self._over.wait(max(0.0, 1 / PER_CALLER_S - (time.monotonic() - began)))
        if connection is not None:
            connection.close()


def _ready(port: int) -> Callable[[], bool]:
    return lambda: httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    ("drain_s", "workers"), [(0, 1), (5, 1), (5, 2)], ids=["prober", "setting", "workers"]
)
def test_a_rolling_restart_fails_no_request(
    repository: Path, tmp_path: Path, drain_s: float, workers: int
) -> None:
    """Without retries in the balancer every frame is answered 200, whether GATEWAY_DRAIN_S gives it time to see the
    red /readyz, or its own probes do.
    """
    ports = free_ports(2)

    def start(port: int, log: str) -> contextlib.AbstractContextManager[int]:
        return gateway(
            repository, tmp_path / log, _ready(port), port=port, drain_s=drain_s, workers=workers,
            session_store="memory", models="yolo11n_320",
        )  # fmt: skip

    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(start(port, f"{port}.log")) for port in ports]
        balancer = stack.enter_context(HAProxy(tmp_path, ports))
        with Callers(balancer.port) as callers:
            for port in ports:
                callers.until_served(port)
            for port, pid in zip(ports, running, strict=True):
                os.kill(pid, signal.SIGTERM)
                assert psutil.Process(pid).wait(PATIENCE_S) == 0
                stack.enter_context(start(port, f"{port}-again.log"))
                callers.until_served(port)
    assert set(callers.seen) == {"200"}, callers.seen
