"""One analysis of a few short videos, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.analyze_command import ENVIRONMENT
from support.bulk_outputs import analysed, begin, outcome, publish

from app.families import FAMILIES
from app.videos.stores.folder import FolderStore

VIDEOS = {"a.mp4": 12, "cam 1/ü.mp4": 8, "cam 1/b.mp4": 6}


@pytest.fixture(scope="session")
def artefacts(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefacts of three videos; don't write into it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        return analysed(tmp_path_factory.mktemp("run"), repository, VIDEOS)


@pytest.fixture
def output(artefacts: Path, tmp_path: Path) -> Path:
    """A finished run over the three videos."""
    output = tmp_path / "out"
    shutil.copytree(artefacts, output)
    begin(FolderStore(output), len(VIDEOS))
    rows = [outcome(output, name, 2.0 + number) for number, name in enumerate(VIDEOS)]
    publish(FolderStore(output), "r1", *rows)
    return output


@pytest.fixture
def store(output: Path) -> FolderStore:
    return FolderStore(output)


@pytest.fixture(scope="session")
def kinds() -> dict[str, type]:
    return {component.name: component for component in FAMILIES.components}
