"""A real PostgreSQL for tests, on a free port; it never outlives the test process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
import pytest

from deploy.local.triton_server import free_ports
from support.waiting import PATIENCE_S, eventually

_USER = "gateway"
# PostgreSQL refuses to run as root.
_OTHER_USER: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
# The shell ends the server when its input ends: with stop(), and with a test process that is killed.
_GUARD = '"$@" >&2 & echo $!; cat >/dev/null; kill -QUIT $! 2>/dev/null; wait'
_OPTIONS = (
    "fsync=off",  # the machine doesn't fail, only processes do
    "dynamic_shared_memory_type=mmap",  # nothing in /dev/shm
    "unix_socket_directories=",
    "max_connections=100",
    "shared_buffers=16MB",
)


def program(name: str) -> str:
    """Return the path of a program; without it the test is skipped, and under CI it fails."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"no {name}; install the package postgresql")
    return found


class PostgresServer:
    """Start with `with PostgresServer() as server:`; its data outlives `stop` and `kill`, and goes at the end.

    `address`: of this machine; hosts of its networks may connect.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self.port = free_ports(1)[0]
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """The database that is there from the start."""
        return self._url("postgres")

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}@{self._address}:{self.port}/{database}"

    def __enter__(self) -> PostgresServer:
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        try:
            self._initialise()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._remove()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _other_user(self) -> dict[str, Any]:
        return _OTHER_USER if os.geteuid() == 0 else {}

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, _OTHER_USER["user"], _OTHER_USER["group"])
        made = subprocess.run(
            [
                program("initdb"), "--pgdata", str(self._data), "--username", _USER, "--auth", "trust",
                "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            capture_output=True, text=True, check=False, cwd="/", **self._other_user,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def start(self) -> None:
        """Return once it answers."""
        options = [word for option in _OPTIONS for word in ("-c", option)]
        command = [
            program("postgres"), "-D", str(self._data), "-p", str(self.port), "-h", self._address, *options,
        ]  # fmt: skip
        log = self._folder / "postgres.log"
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, cwd="/", **self._other_user,
            )  # fmt: skip
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        try:
            eventually(self._answers)
        except AssertionError:
            self.stop()
            raise RuntimeError(log.read_text()) from None

    def stop(self) -> None:
        """End the server, and connections with it; it also ends a server that is suspended."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self.resume()
        self._guard.stdin.close()
        self._guard.wait(PATIENCE_S)
        self._guard.stdout.close()
        self._guard = None

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._signal(signal.SIGKILL)
        self.stop()

    def suspend(self) -> None:
        """Suspend the server: nobody gets a new connection. Its processes of open ones go on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _answers(self) -> bool:
        assert self._guard is not None
        if self._guard.poll() is not None:
            raise AssertionError
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False

    def _remove(self) -> None:
        """Remove the folder, and the segment of shared memory that a killed server leaves."""
        with contextlib.suppress(FileNotFoundError):
            found = re.search(r"^ *\d+ +(\d+)$", (self._data / "postmaster.pid").read_text(), re.MULTILINE)
            if found:
                subprocess.run(["ipcrm", "-m", found[1]], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)
