"""The four engines that keep one contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models.engines import FUNCTIONS, Make, triton_engine
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app.engine.base import Engine
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.fake import FakeEngine
from app.engine.weights import WeightsBook

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer


@pytest.fixture
def make(request: pytest.FixtureRequest, repository: Path) -> Iterator[Make]:
    """Makes an engine of the kind that the test is parametrised with; all are closed at the end."""
    made: list[Engine] = []

    def build(kind: str, leases: int = 2, max_waiting: int = 8) -> Engine:
        book = WeightsBook(repository, None)
        engine: Engine
        if kind == "fake":
            engine = FakeEngine(CATALOGUE, FUNCTIONS, leases, max_waiting)
        elif kind == "embedded":
            embedded = EmbeddedEngine(
                CATALOGUE, repository, book, EmbeddedOptions(leases, max_waiting, threads=1)
            )
            assert embedded.loaded.wait(PATIENCE_S)
            engine = embedded
        else:
            server: TritonServer = request.getfixturevalue("triton")
            engine = triton_engine(
                server.grpc_url, book, leases=leases, max_waiting=max_waiting, transport=kind, known=True
            )
        made.append(engine)
        return engine

    yield build
    for engine in made:
        engine.close()
