"""A real redis-server for tests, on a free port and without persistence; it never outlives the test process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from deploy.local.triton_server import free_ports
from support.servers.programs import program

START_SECONDS = 120
# The shell ends the server when its input ends: with stop(), and with a test process that is killed.
_GUARD = '"$@" >&2 & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null; wait'


class RedisServer:
    """Start with `with RedisServer(folder):`; an empty database at every start. `address`: of this machine."""

    def __init__(self, folder: Path, password: str | None = None, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self._address = address
        self.port = free_ports(1)[0]
        self._password = password
        self._command = [
            program("redis-server"), "--port", str(self.port), "--bind", address, "--dir", str(folder),
            "--save", "",
            "--appendonly", "no", "--protected-mode", "no", *(("--requirepass", password) if password else ()),
        ]  # fmt: skip
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}{self._address}:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", *self._command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
            )  # fmt: skip
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        limit = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > limit:
                self.stop()
                raise RuntimeError(log.read_text())
            time.sleep(0.01)

    def stop(self) -> None:
        """Nothing is kept, so there is nothing to wait for; it also ends a server that is suspended."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.wait(START_SECONDS)
        self._guard.stdout.close()
        self._guard = None

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._signal(signal.SIGKILL)
        self.stop()

    def suspend(self) -> None:
        """Suspend the server: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self._address, self.port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(64)[:1] in (b"+", b"-")  # -NOAUTH is an answer too
        return False
