"""A real HAProxy for tests, on a free port; it never outlives the test process."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from types import TracebackType

from deploy.local.triton_server import free_ports
from support.servers.programs import program

START_SECONDS = 120
# No second try, no other server: what a gateway fails to answer, a caller sees.
CONFIG = """defaults
  mode http
  timeout connect 20s
  timeout client 120s
  timeout server 120s
  timeout check 20s
  timeout http-keep-alive 60s
  retries 0
  no option redispatch
frontend callers
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  balance roundrobin
  http-reuse safe
  option httpchk GET /readyz
  http-response set-header X-Served-By %[srv_name]
{servers}
"""


class HAProxy:
    """Start with `with HAProxy(folder, ports):`; it asks each server's /readyz twice a second.

    `X-Served-By` of an answer is the port that it came from.
    """

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.port = free_ports(1)[0]
        self._log = folder / "haproxy.log"
        config = folder / "haproxy.cfg"
        servers = [f"  server {port} 127.0.0.1:{port} check inter 500ms fall 2 rise 1" for port in ports]
        config.write_text(CONFIG.format(port=self.port, servers="\n".join(servers)))
        self._command = [program("haproxy"), "-f", str(config), "-db"]

    def __enter__(self) -> HAProxy:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out)
        while self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), START_SECONDS).close()
            except ConnectionRefusedError:
                continue
            return self
        raise RuntimeError(self._log.read_text())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
