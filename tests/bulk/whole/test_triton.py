"""`gateway bulk` over the models of a real Triton: processes of this machine, and workers of Ray beside it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.analysis import patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT
from support.analyze_command import options as analyze_options
from support.analyze_command import run as analyze
from support.bulk.command import command, manifests, options
from support.on_ray.cluster import RayCluster
from support.paths import ROOT
from support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton
VIDEOS = 4


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Short videos, and the environment of workers."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(VIDEOS):
        patches(folder / f"{number}.mp4", 6 + number)
    return folder


def _run(*arguments: str | Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*command(*arguments), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 4,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _check(corpus: Path, folder: Path, given: list[str], engine: list[str]) -> None:
    """Every video has the numbers of `gateway analyze` over the same Triton, which the manifest names."""
    single = [*analyze_options(folder / "no models", folder, BOXES), *engine]
    assert analyze("--video-path", corpus, "--output", folder / "single", *single)[0] == 0
    rows = _run(corpus, "--output", folder / "out", *given, *engine)
    assert [row["state"] for row in rows] == ["done"] * VIDEOS
    found = manifests(folder / "out")
    assert len(found) == VIDEOS
    for name, manifest in found.items():
        assert {model["runtime"] for model in manifest["models_used"]} == {"triton"}
        assert same_numbers(folder / "single" / name, folder / "out" / "videos" / name)


def test_processes_of_this_machine_share_a_triton(triton: TritonServer, corpus: Path, tmp_path: Path) -> None:
    """Two workers, no models of their own."""
    given = [*options(tmp_path / "no models", tmp_path, BOXES), "--workers", "2"]
    _check(corpus, tmp_path, given, ["--engine", "triton", "--triton-url", triton.grpc_url])


def test_workers_of_ray_use_the_triton_of_their_node(
    triton: TritonServer, corpus: Path, tmp_path: Path
) -> None:
    """Each takes one unit of the node's resource `triton`."""
    with RayCluster(2, {"triton": 1}) as cluster:
        given = [
            *options(tmp_path / "no models", tmp_path, BOXES),
            "--on", "ray", "--address", cluster.address, "--node-triton", "--worker-cpus", "1",
        ]  # fmt: skip
        _check(corpus, tmp_path, given, ["--engine", "triton", "--triton-url", triton.grpc_url])
