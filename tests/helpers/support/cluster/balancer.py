"""A real HAProxy in front of gateways on several hosts, which tests tell what to think of them."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from deploy.local.triton_server import free_ports
from support.cluster.hosts import Host
from support.servers.programs import program
from support.waiting import eventually

# As in docs/replicas.md. No second try and no other server: what a gateway fails to answer, a caller sees. The first
# connection that fails takes a gateway out at once; its /readyz brings it back.
CONFIG = """global
  stats socket {control} mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 10s
  timeout client 120s
  timeout server 120s
  timeout check 10s
  timeout http-keep-alive 60s
  retries 0
  no option redispatch
frontend callers
  bind {address}:{port}
  default_backend gateways
backend gateways
  balance roundrobin
  http-reuse safe
  option httpchk GET /readyz
  default-server check inter 500ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
  http-after-response set-header X-Served-By %[srv_name]
{servers}
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """A gateway as the balancer knows it: its name, its address, and the ports of callers and of probes."""

    name: str
    address: str
    port: int
    operate_port: int

    def line(self) -> str:
        """Its line of the configuration."""
        return f"  server {self.name} {self.address}:{self.port} port {self.operate_port}"


class ClusterBalancer:
    """Start with `with ClusterBalancer(host, folder, backends):`.

    `X-Served-By` of an answer is the name of the gateway that it came from, or that it should have come from.
    """

    def __init__(self, host: Host, folder: Path, backends: Sequence[Backend]) -> None:
        self._host = host
        self._port = free_ports(1)[0]
        self._control = folder / "haproxy.sock"
        self._log = folder / "haproxy.log"
        config = folder / "haproxy.cfg"
        config.write_text(
            CONFIG.format(
                control=self._control, address=host.address, port=self._port,
                servers="\n".join(backend.line() for backend in backends),
            )
        )  # fmt: skip
        self._command = [
            *host.enter,
            program("haproxy"),
            "-f",
            str(config),
            "-W",
            "-S",
            f"{self._control}.master",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for callers."""
        return f"http://{self._host.address}:{self._port}"

    def __enter__(self) -> ClusterBalancer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Return once callers can connect."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out, start_new_session=True)
        eventually(self._listens)

    def kill(self) -> None:
        """Kill it as a crash would, with all that it has started."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def reload(self) -> None:
        """Have another process take over the sockets, as after a change of the configuration."""
        assert self._process is not None
        before = self._ask("show info")
        self._process.send_signal(signal.SIGUSR2)
        pid = _fact(before, "Pid")
        eventually(lambda: _fact(self._ask("show info"), "Pid") not in ("", pid))

    def drain(self, name: str) -> None:
        """Send this gateway no further request."""
        self._ask(f"set server gateways/{name} state maint")

    def admit(self, name: str) -> None:
        """End that; its /readyz decides again."""
        self._ask(f"set server gateways/{name} state ready")

    def states(self) -> Mapping[str, str]:
        """Each gateway's state in the balancer's eyes: UP, DOWN, MAINT or on its way (UP 1/2)."""
        rows = csv.DictReader(self._ask("show stat").removeprefix("# ").splitlines())
        return {
            row["svname"]: row["status"]
            for row in rows
            if row["pxname"] == "gateways" and row["svname"] != "BACKEND"
        }

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(self._log.read_text())
        try:
            socket.create_connection((self._host.address, self._port), 10).close()
        except OSError:
            return False
        return self._ask("show info") != ""

    def _ask(self, command: str) -> str:
        """The answer of the control socket; empty while there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(self._control))
                sock.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError:
            return ""


def _fact(text: str, name: str) -> str:
    return next((line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{name}: ")), "")
