"""Real gateways for the tests, run by the service's own environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client import Client, GatewayError

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0
# The interpreter of the service's environment, which isn't that of the tests.
PYTHON = os.environ.get("GATEWAY_PYTHON", str(ROOT / ".venv" / "bin" / "python"))


KEY, OPERATOR, SLOW, SPENT, OTHER = "gw_camera", "gw_operator", "gw_slow", "gw_spent", "gw_other"
# A red, a green or a blue patch is one box of class 0, 1 or 2 for the test repository's detector.
_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@dataclass(frozen=True)
class Service:
    """A running gateway."""

    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def environment(**more: object) -> dict[str, str]:
    """This process's variables without settings of the gateway, and others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "PYTHON"))}
    return kept | {name: str(value) for name, value in more.items()}


def make_inputs(folder: Path) -> Path:
    """Write models and videos into a folder."""
    script = Path(__file__).with_name("make_inputs.py")
    path = os.pathsep.join([str(ROOT / "tests" / "helpers"), str(ROOT)])
    subprocess.run([PYTHON, str(script), str(folder)], cwd=ROOT, env=environment(PYTHONPATH=path), check=True)
    return folder


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def gateway(models: Path, folder: Path, **settings: object) -> Iterator[Service]:
    """A `gateway serve` that is ready; settings by their names in lower case."""
    port = free_port()
    given = {
        "repository": models,
        "variant": "n",
        "manifest": "",
        "embedded_threads": 1,
        "port": port,
        "videos_folder": folder / "videos",
        **settings,
    }
    variables = {f"GATEWAY_{name.upper()}": value for name, value in given.items()}
    log = folder / "gateway.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [PYTHON, "-m", "app.cli", "serve"],
            cwd=ROOT,
            env=environment(**variables),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        service = Service(f"http://127.0.0.1:{port}")
        with Client(service.url) as client:
            _wait(client, process, log)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:  # as long as it lives: a busy machine takes its time
        try:
            client.wait_ready(timeout=1)
        except GatewayError:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()) from None
        else:
            return


def entry(name: str, key: str, **fields: object) -> str:
    """An entry of GATEWAY_API_KEYS."""
    words = [name, f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"]
    return " ".join([*words, *(f"{field}={value}" for field, value in fields.items())])


def scene(*patches: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A grey frame of 320 x 320 with patches of 32 pixels: class, x, y."""
    rgb = np.full((320, 320, 3), 114, np.uint8)
    for class_id, x, y in patches:
        rgb[y : y + 32, x : x + 32] = _COLOURS[class_id]
    return rgb
