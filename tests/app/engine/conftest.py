"""The engines that keep one contract, in both precisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models import repository as test_repository
from support.models.engines import FP16, FUNCTIONS, TWO_SERVERS, Make, triton_engine, two_servers
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app.engine.base import Engine
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.fake import FakeEngine
from app.engine.weights import WeightsBook

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer


@pytest.fixture(scope="session")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test repository, whose models have the same names and compute in half precision."""
    return test_repository.build(tmp_path_factory.mktemp("halved"), precision="fp16")


@pytest.fixture(scope="session")
def halved_triton(halved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real tritonserver over it."""
    from deploy.local.triton_server import TritonServer  # noqa: PLC0415  # `make test-export` has no root on its path

    with TritonServer(halved, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture(scope="session")
def second_triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Another real tritonserver over the test repository."""
    from deploy.local.triton_server import TritonServer  # noqa: PLC0415  # `make test-export` has no root on its path

    with TritonServer(repository, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture
def make(request: pytest.FixtureRequest, repository: Path) -> Iterator[Make]:
    """Makes an engine of the kind that the test is parametrised with; all are closed at the end."""
    made: list[Engine] = []

    def build(kind: str, leases: int = 2, max_waiting: int = 8) -> Engine:
        half = kind.endswith(FP16)
        kind = kind.removesuffix(FP16)
        models: Path = request.getfixturevalue("halved") if half else repository
        book = WeightsBook(models, None)
        engine: Engine
        if kind == "fake":
            engine = FakeEngine(CATALOGUE, FUNCTIONS, leases, max_waiting)
        elif kind == "embedded":
            embedded = EmbeddedEngine(
                CATALOGUE, models, book, EmbeddedOptions(leases, max_waiting, threads=1)
            )
            assert embedded.loaded.wait(PATIENCE_S)
            engine = embedded
        elif kind == TWO_SERVERS:
            servers = [request.getfixturevalue(name).grpc_url for name in ("triton", "second_triton")]
            engine = two_servers(servers, [book, book], leases=leases, max_waiting=max_waiting)
        else:
            server: TritonServer = request.getfixturevalue("halved_triton" if half else "triton")
            engine = triton_engine(
                server.grpc_url, book, leases=leases, max_waiting=max_waiting, transport=kind, known=True
            )
        made.append(engine)
        return engine

    yield build
    for engine in made:
        engine.close()
