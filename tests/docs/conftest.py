"""A folder like a clone in which somebody has followed the README, and a gateway to ask."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import repository as test_repository
from support.models.checkpoints import network as checkpoint
from support.models.checkpoints import write
from support.models.own import loaded, three_classes
from support.paths import ROOT
from support.servers.gateway import server

from export.weights import SEED
from export.yolo11 import architecture

# What a clone has that the pages speak of.
CLONED = (
    ".venv", "Makefile", "app", "benchmarks", "constraints.txt", "deploy", "docs", "export", "profiles",
    "pyproject.toml", "routing", "setup.py",
)  # fmt: skip
# The branches that docs/astronaut.jpg takes, and the starter's detectors with what prepares their pixels in Triton.
DETECTORS = ("yolo11n_320", "yolo11n_640", "yolo11n_960")
BRANCHES = (
    *DETECTORS, *(f"{name}_uint8" for name in DETECTORS), "midas_512", "raft_512", "clip_image_448", "clip_text",
    "places365_resnet50_448",
)  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a branch of every family, and the starter's detectors."""
    return test_repository.build(tmp_path_factory.mktemp("models"), BRANCHES)


@pytest.fixture(scope="session")
def gateway_port(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a gateway for the pages that start none."""
    folder = tmp_path_factory.mktemp("gateway")
    with server(models, folder / "log", videos_folder=folder / "videos") as (http, _):
        assert http.base_url.port is not None
        yield http.base_url.port


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of the reader's own: a random YOLO11n, and one with three classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    network = architecture.random("n", SEED)
    write(folder / "yolo11n.pt", checkpoint(loaded(network)))
    three_classes(folder / "best.pt", network, {0: "helmet", 1: "head", 2: "vest"})
    return folder


@pytest.fixture
def clone(models: Path, tmp_path: Path) -> Path:
    """A folder with links to the clone's files, and models.

    `make` must find the installation up to date, or it would install the folder.
    """
    installed = (ROOT / ".venv" / ".serve").stat().st_mtime
    needs = [(ROOT / name).stat().st_mtime for name in ("pyproject.toml", "setup.py", "constraints.txt")]
    assert installed >= max(needs), "run: make .venv/.dev"
    for name in CLONED:
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(models, tmp_path / "triton" / "models")
    return tmp_path
