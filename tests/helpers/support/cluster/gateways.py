"""A `gateway serve` on a host of the cluster, which is killed and started again on the same ports."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from deploy.local.triton_server import free_ports
from support.cluster.balancer import Backend
from support.cluster.hosts import Host
from support.paths import ROOT
from support.waiting import PATIENCE_S

_SHM = Path("/dev/shm")


class ClusterGateway:
    """Start with `with ClusterGateway(host, folder, settings):`; leaving kills it.

    Args:
        host: the host it runs on; its name is the gateway's.
        folder: for its log.
        settings: by their names in lower case; names in upper case are other variables of the environment.
    """

    def __init__(self, host: Host, folder: Path, settings: Mapping[str, object]) -> None:
        self.host = host
        port, operate_port = free_ports(2)
        self.backend = Backend(host.name, host.address, port, operate_port)
        self.log = folder / f"{host.name}.log"
        given = {**settings, "host": host.address, "port": port, "operate_port": operate_port}
        self._environment = {name: value for name, value in os.environ.items() if name[:8] != "GATEWAY_"}
        self._environment |= {
            name if name.isupper() else f"GATEWAY_{name.upper()}": str(value) for name, value in given.items()
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The port of callers."""
        return f"http://{self.backend.address}:{self.backend.port}"

    @property
    def operate_url(self) -> str:
        """The port of probes and metrics."""
        return f"http://{self.backend.address}:{self.backend.operate_port}"

    @property
    def pid(self) -> int:
        """Its process id; the words before the command replace themselves by it."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> ClusterGateway:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Return at once; see `until_ready`."""
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*self.host.enter, sys.executable, "-m", "app.cli", "serve"],
                cwd=ROOT, env=self._environment, stdout=out, stderr=out,
            )  # fmt: skip

    def ready(self) -> bool:
        """Return whether /readyz is green now."""
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.operate_url}/readyz", timeout=20, trust_env=False).status_code == 200
        return False

    def until_ready(self) -> None:
        """Return once /readyz is green.

        Raises:
            RuntimeError: it ended, or took too long; with the end of its log.
        """
        limit = time.monotonic() + PATIENCE_S
        while not self.ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(self.log.read_text()[-6000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it as a crash would; its decoders end by themselves."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def regions(self) -> set[str]:
        """Names of the regions of shared memory that it maps: its transport to a Triton on its own host."""
        lines = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8").splitlines()
        return {Path(line.split()[5]).name for line in lines if f"{_SHM}/triton-gateway-" in line}
