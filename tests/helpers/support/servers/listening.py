"""A real `gateway serve` of which a test says itself when it is up: other ports, TLS, several workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from support.paths import ROOT
from support.waiting import PATIENCE_S


@contextlib.contextmanager
def gateway(repository: Path, log: Path, up: Callable[[], bool], **variables: object) -> Iterator[int]:
    """The process's id, once `up` is true; a refused connection counts as false. Variables in upper case are taken as
    they are, all others are settings.
    """
    settings = {"repository": repository, "variant": "n", "videos_folder": "", "manifest": "", **variables}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {n if n.isupper() else f"GATEWAY_{n.upper()}": str(v) for n, v in settings.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"],
            cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + PATIENCE_S
        while not _is(up):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()


def _is(up: Callable[[], bool]) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return up()
    return False
