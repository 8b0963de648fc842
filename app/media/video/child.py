"""Starts, watches and kills a decoder's process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
# The search path is given whole: neither the working directory nor the environment decides what the process imports,
# and leaving out `site` halves the time that Python takes to start.
_START = "import sys; sys.path += sys.argv[1:-3]; from app.media.video.process import main; main()"


class DecoderProcess:
    """One process, started by a thread that lives exactly as long.

    The kernel kills a process with the *thread* that started it (PR_SET_PDEATHSIG), so it must not be a thread of some
    pool that happens to end earlier. The same thread takes the exit status: no zombie waits for anybody.
    """

    def __init__(self, child_end: socket.socket, *descriptors: int) -> None:
        """Start it, with `child_end` as its standard input (closed here) and the descriptors open.

        Raises:
            OSError: no process can be made.
        """
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(
            target=self._live, args=(child_end, descriptors), name="video-decoder", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            child_end.close()
            raise OSError(str(error)) from error
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None  # noqa: S101  # for the type checker: the constructor waited for it
        return self._process.pid

    def _live(self, child_end: socket.socket, descriptors: tuple[int, ...]) -> None:
        try:
            self._process = process = _start(child_end, descriptors)
        except OSError as error:
            self._error = error
            return
        finally:
            child_end.close()
            self._started.set()
        if not hasattr(os, "waitid"):  # macOS, up to Python 3.12
            process.wait()
            return
        with suppress(ChildProcessError):  # somebody else took the exit status
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            process.wait()

    def activity(self) -> tuple[float, bool]:
        """Processor time that it has taken, in seconds, and whether it waits for nothing but a processor."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has ended
            return 0.0, False
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == b"R"

    def kill(self) -> None:
        """Kill it at once if it runs. Thread-safe."""
        with self._lock:  # the kernel doesn't reuse its number before its status is read
            if self._process is not None and self._process.returncode is None:
                self._process.kill()  # looks first if it has ended

    def join(self, timeout: float | None = None) -> int | None:
        """Wait for its end: the exit status, negative for a signal; None when it still runs."""
        self._thread.join(timeout)
        return None if self._process is None else self._process.returncode


def _start(child_end: socket.socket, descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    codecs = find_spec("av")
    if codecs is None or codecs.origin is None:
        raise FileNotFoundError("PyAV is not installed")
    paths = [str(_ROOT), str(Path(codecs.origin).parents[1])]
    return subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-I", "-S", "-c", _START, *paths, str(os.getpid()), *map(str, descriptors)],
        stdin=child_end.fileno(),
        stdout=subprocess.DEVNULL,
        pass_fds=descriptors,
        cwd="/",
        process_group=0,  # Ctrl-C on a terminal is for the gateway, which may want to finish what it has
        env={},  # the gateway's secrets are nothing for a process that reads strangers' files
    )
