"""A gateway over a real Triton that scripts start, watch and kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
from support.models import repository as test_repository
from support.paths import ROOT

from deploy.local.triton_server import TritonServer, free_ports
from tests.chaos.common import client

NAMES = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
SHM = Path("/dev/shm")


@contextlib.contextmanager
def triton(folder: Path) -> Iterator[TritonServer]:
    """A real Triton over models that compute next to nothing, one of every family."""
    repository = test_repository.build(folder / "models", NAMES)
    with TritonServer(repository, folder / "triton.log", load=list(NAMES)) as server:
        yield server


class Service:
    """`gateway serve`, on the same port at every start."""

    def __init__(self, triton_url: str, folder: Path, **settings: object) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "gateway.log"
        given = {
            "engine": "triton", "triton_url": triton_url, "repository": folder / "models", "port": self.port,
            "triton_transport": "shared_memory", "variant": "n", "videos_folder": folder / "videos", **settings,
        }  # fmt: skip
        self._environment = {name: value for name, value in os.environ.items() if name[:8] != "GATEWAY_"}
        self._environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in given.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    async def until_ready(self, seconds: float = 60) -> float:
        """Seconds until /readyz is green."""
        started = time.monotonic()
        async with client(self.url) as http:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        return time.monotonic() - started
                if time.monotonic() - started > seconds:
                    raise RuntimeError(self.log.read_text()[-4000:])
                await asyncio.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def regions(self) -> set[str]:
        """Names of what it maps of the host's shared memory."""
        lines = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8").splitlines()
        return {Path(line.split()[5]).name for line in lines if f"{SHM}/triton-gateway-" in line}


async def registered(http: httpx2.AsyncClient) -> set[str]:
    """Names of the regions that Triton knows."""
    return {row["name"] for row in (await http.get("/v2/systemsharedmemory/status")).json()}
