"""One engine over two real Tritons with different weights: what moves to the other one, and what must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.models.engines import two_servers
from support.models.repository import CATALOGUE
from support.models.two_tritons import TwoTritons, two_tritons
from support.waiting import PATIENCE_S, eventually
from support.witness import STEADY

from app import context
from app.deadline import Deadline
from app.engine.base import ModelState
from app.engine.endpoints.engine import TritonEndpoints
from app.engine.weights import WeightsBook
from app.errors import ModelNotReady, TritonUnavailable

pytestmark = [pytest.mark.long, pytest.mark.triton]
DETECTOR = CATALOGUE.branches[STEADY]


def soon() -> Deadline:
    return Deadline.after(PATIENCE_S)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoTritons]:
    with two_tritons(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture
def engine(pair: TwoTritons) -> Iterator[TritonEndpoints]:
    for server in pair.servers:
        if not server.processes():
            server.start()
    books = [WeightsBook(models, None) for models in pair.repositories]
    made = two_servers([server.grpc_url for server in pair.servers], books, leases=2)
    yield made
    made.close()


def write(lease: Any) -> None:
    """A red square, which the first server calls class 0 and the second class 1."""
    lease.inputs["images"].fill(0)
    lease.inputs["images"][0, 0].fill(1)


def found(lease: Any) -> int:
    """The server that the numbers come from."""
    return int(np.argmax(lease.outputs["output0"][0, 4:].max(axis=1)))


def ask(engine: TritonEndpoints) -> tuple[int, ModelState]:
    """One run: the server by its numbers, and the model by the lease."""
    with engine.lease(DETECTOR, soon()) as lease:
        write(lease)
        lease.run(soon())
        return found(lease), lease.model


def true(pair: TwoTritons, server: int, model: ModelState) -> bool:
    """Return True if the model is that server's."""
    return (model.endpoint, model.weights.digest, model.version) == (
        pair.servers[server].grpc_url, pair.truth[1 + server], str(1 + server),
    )  # fmt: skip


def test_runs_of_no_answer_take_turns(pair: TwoTritons, engine: TritonEndpoints) -> None:
    """Idle servers are taken in turn, and each run names the weights, the version and the server that made it."""
    runs = [ask(engine) for _ in range(8)]
    assert sorted(server for server, _ in runs) == [0] * 4 + [1] * 4
    assert all(true(pair, server, model) for server, model in runs)


def test_the_server_with_the_least_in_flight_is_taken(engine: TritonEndpoints) -> None:
    """While one server has a run, the other gets the next ones; a full one gets none while the other has room."""
    with engine.lease(DETECTOR, soon()) as first, engine.lease(DETECTOR, soon()) as second:
        assert first.model.endpoint != second.model.endpoint
        with engine.lease(DETECTOR, soon()) as third, engine.lease(DETECTOR, soon()) as fourth:
            assert third.model.endpoint != fourth.model.endpoint
            assert {one.in_flight for one in engine.usage().endpoints.values()} == {2}
    assert {one.in_flight for one in engine.usage().endpoints.values()} == {0}


def test_an_answer_has_one_kind_of_weights(engine: TritonEndpoints) -> None:
    """Runs of one answer all have the weights of its first, and another answer may have others."""
    seen = set()
    for _ in range(4):
        with context.one_answer():
            runs = {ask(engine)[0] for _ in range(5)}
        assert len(runs) == 1
        seen |= runs
    assert seen == {0, 1}


def test_a_steady_answer_begins_with_the_first_server(engine: TritonEndpoints) -> None:
    """Frames of a session, which are several answers, begin with the same weights wherever they are first."""
    for _ in range(4):
        with context.one_answer() as pins:
            pins.steady = True
            assert ask(engine)[0] == 0


def test_the_state_is_that_of_the_server_that_would_serve(pair: TwoTritons, engine: TritonEndpoints) -> None:
    """Outside of an answer it is the first server's; inside it is that of the pinned weights. Both are listed."""
    assert true(pair, 0, engine.ready()[STEADY])
    with context.one_answer() as pins:
        pins.confirm(STEADY, engine._members.all[1].state(STEADY).weights_key)
        assert true(pair, 1, engine.serving(STEADY))
    assert engine.serving(STEADY) is engine.ready()[STEADY]
    assert [*engine.endpoints()] == [server.grpc_url for server in pair.servers]


def test_a_run_moves_from_a_dead_server_once(pair: TwoTritons, engine: TritonEndpoints) -> None:
    """A server that dies under a lease costs one more call: the other computes the same inputs, and is named."""
    with engine.lease(DETECTOR, soon()) as lease:
        write(lease)
        lease.workspace["pad"] = "of the first server's tensors"
        dead = next(n for n, server in enumerate(pair.servers) if server.grpc_url == lease.model.endpoint)
        pair.servers[dead].kill()
        lease.run(soon())
        assert found(lease) == 1 - dead
        assert true(pair, 1 - dead, lease.model)
        assert lease.workspace == {}
    moved = {name: one.moved for name, one in engine.usage().endpoints.items()}
    assert moved == {pair.servers[dead].grpc_url: 1, pair.servers[1 - dead].grpc_url: 0}
    eventually(lambda: true(pair, 1 - dead, engine.ready()[STEADY]))
    assert {ask(engine)[0] for _ in range(4)} == {1 - dead}
    assert engine.usage().connected
    assert not engine.usage().breaker_open


def test_an_answer_never_changes_its_weights(pair: TwoTritons, engine: TritonEndpoints) -> None:
    """The next run is refused if the server of an answer's first run is gone, though the other one is READY."""
    with context.one_answer():
        server, model = ask(engine)
        pair.servers[server].kill()
        with pytest.raises((ModelNotReady, TritonUnavailable)) as refusal:
            ask(engine)
        assert refusal.value.retry_after
        eventually(lambda: not engine.endpoints()[pair.servers[server].grpc_url][STEADY].ready)
        with pytest.raises(ModelNotReady, match=model.weights.digest):
            ask(engine)
        pair.servers[server].start()
        eventually(lambda: true(pair, server, engine.serving(STEADY)))
        assert ask(engine)[0] == server
    assert ask(engine)[0] in (0, 1)
