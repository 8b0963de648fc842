"""A gateway to talk to: in this process, or a real server."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from app.engine.fake import FakeEngine
from app.main import EngineFactory, create_app, create_engine
from app.settings import Settings
from deploy.local.triton_server import free_ports
from routing.catalogue import load
from support.paths import ROOT
from support.waiting import PATIENCE_S

GREY = 114
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def wait_ready(get: Any, seconds: float = PATIENCE_S) -> None:
    """Until /readyz is green."""
    limit = time.monotonic() + seconds
    while get("/readyz").status_code != 200:
        if time.monotonic() > limit:
            raise RuntimeError(get("/readyz").text)
        time.sleep(0.05)


@contextlib.contextmanager
def client(
    repository: Path, engine_factory: EngineFactory = create_engine, *, wait: bool = True, **settings: Any
) -> Iterator[TestClient]:
    """The app in this process, ready unless nobody waits for that."""
    defaults = {
        "repository": repository,
        "variant": "n",
        "manifest": None,
        "embedded_threads": 1,
        "videos_folder": None,
    }
    app = create_app(Settings(**{**defaults, **settings}), engine_factory)
    with TestClient(app, raise_server_exceptions=False) as test_client:
        if wait:
            wait_ready(test_client.get)
        yield test_client


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[TestClient]:
    """A gateway with keys and no models, and a caller without a key; `folder` is an empty repository."""
    entries = f"page sha256:{'0' * 64} scopes=infer"
    engine = FakeEngine(load(), {}, 1, 1)
    with client(folder, lambda *_: engine, wait=False, api_keys=entries) as opened:
        yield opened


@contextlib.contextmanager
def server(repository: Path, log: Path, **settings: Any) -> Iterator[tuple[httpx2.Client, int]]:
    """A real `gateway serve`, ready: a client for it, and its process id."""
    port = free_ports(1)[0]
    environment = {**os.environ, "GATEWAY_REPOSITORY": str(repository), "GATEWAY_VARIANT": "n"}
    environment["GATEWAY_VIDEOS_FOLDER"] = ""
    environment["PYTHONFAULTHANDLER"] = "1"
    environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port)],
            cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
            _wait_listening(http, process, log)
            wait_ready(http.get)
            yield http, process.pid
    finally:
        _end(process, log)


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Stop the server; one that doesn't end writes where its threads are, and is a failure."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        process.wait()
        raise RuntimeError(f"the gateway doesn't end: {log.read_text()[-20_000:]}") from None


def _wait_listening(http: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx2.TransportError):
            http.get("/livez")
            return
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(log.read_text())
        time.sleep(0.05)


def scene(width: int, height: int, *patches: tuple[int, int, int, int]) -> np.ndarray:
    """A grey frame with patches `(class_id, x, y, side)` that the test repository's detector sees."""
    rgb = np.full((height, width, 3), GREY, np.uint8)
    for class_id, x, y, side in patches:
        rgb[y : y + side, x : x + side] = COLOURS[class_id]
    return rgb


def png(rgb: np.ndarray) -> bytes:
    """Lossless, so that colours are exact."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()
