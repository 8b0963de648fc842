"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models import repository as test_repository

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer

with suppress(ModuleNotFoundError):  # the exporters' environment has no property tests
    from hypothesis import settings

    # How long an example takes is the machine's affair: the first one may import SciPy.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small test repository, built once; don't write into it."""
    return test_repository.build(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real tritonserver over the test repository; tests that stop or hurt it start their own."""
    from deploy.local.triton_server import TritonServer  # noqa: PLC0415  # `make test-export` has no root on its path

    with TritonServer(repository, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture(scope="session")
def all_families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test repository with a branch of every family; don't write into it."""
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    return test_repository.build(tmp_path_factory.mktemp("all"), names)
