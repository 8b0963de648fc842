"""Clients of other languages and libraries, as they are, against a real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT
from support.servers.gateway import png, scene, server

HERE = Path(__file__).parent
CLIENTS = ROOT / ".venv-clients" / "bin"
CONFIG = ROOT / "clients" / "openapi-python-client.yaml"
FRAME = scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32))
BOXES = {"bicycle": [64, 96, 96, 128], "car": [224, 32, 256, 64]}

needs_clients = pytest.mark.skipif(not CLIENTS.is_dir(), reason="make .venv-clients")


@pytest.fixture(scope="module")
def url(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `gateway serve`."""
    with server(repository, tmp_path_factory.mktemp("clients") / "gateway.log") as (http, _):
        yield str(http.base_url).rstrip("/")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG with two objects."""
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    path.write_bytes(png(FRAME))
    return path


def run(*command: str | Path, **environment: str) -> list[dict[str, list[float]]]:
    """Run a client, which prints one answer per line, and return the boxes of each answer."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [{row["class_name"]: row["box"] for row in answer["detections"]} for answer in answers]


@pytest.mark.skipif(shutil.which("java") is None, reason="there is no java")
def test_java(url: str, picture: Path) -> None:
    """Its client offers h2c with every request; its connection serves the next one too."""
    assert run("java", HERE / "Post.java", url, picture) == [BOXES] * 2


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_node(url: str, picture: Path) -> None:
    """`fetch`, with bytes and with a form."""
    assert run("node", HERE / "post.mjs", url, picture) == [BOXES] * 2


@needs_clients
def test_requests(url: str, picture: Path) -> None:
    """Bytes, and a form whose list is repeated."""
    assert run(CLIENTS / "python", HERE / "post_requests.py", url, picture) == [BOXES] * 2


@needs_clients
def test_aiohttp(url: str, picture: Path) -> None:
    """Bytes, chunks, a form, and what it compresses itself."""
    assert run(CLIENTS / "python", HERE / "post_aiohttp.py", url, picture) == [BOXES] * 5


@pytest.fixture(scope="module")
def generated(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a client made from the service's own description, and what its generator said."""
    folder = tmp_path_factory.mktemp("generated")
    command = [
        CLIENTS / "openapi-python-client",
        "generate",
        "--url",
        f"{url}/openapi.json",
        "--meta",
        "none",
    ]
    command += ["--config", CONFIG, "--output-path", folder / "gateway_client", "--fail-on-warning"]
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@needs_clients
def test_a_client_is_generated_without_a_warning(generated: tuple[Path, str]) -> None:
    """But for those that clients/openapi-python-client.yaml explains."""
    folder, said = generated
    assert "warning" not in said.lower()
    assert (folder / "gateway_client" / "api" / "detection" / "detect.py").is_file()


@needs_clients
def test_a_generated_client(url: str, picture: Path, generated: tuple[Path, str]) -> None:
    """Bytes, a form and JSON, with every default of the description spelt out; a refusal is a `Problem`."""
    command = (CLIENTS / "python", HERE / "post_generated.py", url, picture)
    assert run(*command, PYTHONPATH=str(generated[0])) == [BOXES] * 3
