"""The engine over a real Triton: how tensors travel, and what happens when the server goes away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from support import repository as test_repository
from support.repository import CATALOGUE
from support.triton_server import TritonServer

from app.engine import triton_client
from app.engine.base import Deadline, Engine
from app.engine.triton import TritonEngine, TritonOptions
from app.engine.weights import WeightsBook
from app.errors import DeadlineExceeded, GatewayError, ModelNotReady, TritonUnavailable
from routing.policy import Readiness

pytestmark = pytest.mark.triton
BRANCH = CATALOGUE.branches["yolo11n_320"]
SHM = Path("/dev/shm")


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """A server that the test may stop, kill and suspend."""
    with TritonServer(repository, tmp_path / "triton.log", load=[BRANCH.name]) as running:
        yield running


@pytest.fixture
def connect(repository: Path) -> Iterator[Callable[..., TritonEngine]]:
    """Makes engines that are closed at the end."""
    made: list[TritonEngine] = []

    def build(server: TritonServer, **options: object) -> TritonEngine:
        book = WeightsBook(repository, None)
        engine = TritonEngine(CATALOGUE, server.grpc_url, book, TritonOptions(**options))  # type: ignore[arg-type]  # named by the tests
        made.append(engine)
        return engine

    yield build
    for engine in made:
        engine.close()


Connect = Callable[..., TritonEngine]


def ask(engine: Engine, seconds: float = 10) -> float:
    """One inference whose answer is known: raises unless it is right."""
    deadline = Deadline.after(seconds)
    with engine.lease(BRANCH, deadline) as lease:
        lease.inputs["images"].fill(0)
        lease.inputs["images"][0, 0, :32, :32] = 1
        lease.run(deadline)
        scores = lease.outputs["output0"][0, 4]
        assert np.flatnonzero(scores > 0.5).tolist() == [2000]  # the first 32-pixel cell
        return float(scores[2000])


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it didn't happen in time"
        time.sleep(0.02)


def serves(engine: Engine) -> bool:
    try:
        ask(engine, 2)
    except GatewayError:
        return False
    return True


def regions(engine: TritonEngine) -> list[str]:
    assert engine._instance is not None
    return [path.name for path in SHM.glob(f"{engine._instance.name}-*")]


def test_shared_memory_is_found_by_trying(triton: TritonServer, connect: Connect) -> None:
    """On one host tensors lie in regions that end with the engine."""
    engine = connect(triton)
    assert engine.transport == "shared_memory"
    ask(engine)
    assert len(regions(engine)) == 1
    name = engine._instance.name if engine._instance else ""
    engine.close()
    assert list(SHM.glob(f"{name}*")) == []


def test_bytes_leave_shared_memory_alone(triton: TritonServer, connect: Connect) -> None:
    """Asked for bytes, the engine makes no region and no claim."""
    before = set(SHM.iterdir())
    engine = connect(triton, transport="bytes")
    ask(engine)
    assert {path for path in SHM.iterdir() if path.name.startswith("triton-gateway-")} <= before


def test_forgotten_regions_are_registered_again(triton: TritonServer, connect: Connect) -> None:
    """A server that lost its regions unnoticed (a restart between two polls) costs no request."""
    engine = connect(triton, poll_interval_s=3600.0)
    ask(engine)
    with grpcclient.InferenceServerClient(triton.grpc_url) as client:
        client.unregister_system_shared_memory()
    ask(engine)
    assert len(regions(engine)) == 1


def test_the_engine_outlives_a_restart(server: TritonServer, connect: Connect) -> None:
    """Killed: unavailable, and said so; back on the same address: served again, through shared memory."""
    engine = connect(server, poll_interval_s=0.1)
    ask(engine)
    server.kill()
    with pytest.raises(TritonUnavailable):
        ask(engine)
    eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.UNREACHABLE)
    with pytest.raises(TritonUnavailable):
        ask(engine)
    server.start()
    eventually(lambda: serves(engine))
    with engine.lease(BRANCH, Deadline.after(5)) as lease:
        assert lease.transport == "shared_memory"


def test_a_server_that_hangs_costs_the_deadline_and_no_more(server: TritonServer, connect: Connect) -> None:
    """Suspended: 504 in time, and tensors that the server may still write into are never handed out again."""
    engine = connect(server, poll_interval_s=3600.0, leases=1)
    ask(engine)
    (region,) = regions(engine)
    server.suspend()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as failure:
        ask(engine, 0.5)
    assert failure.value.stage == "infer"
    assert time.monotonic() - started < 5
    server.resume()
    eventually(lambda: serves(engine))
    assert region not in regions(engine)


def test_a_server_that_comes_later_is_found(repository: Path, tmp_path: Path, connect: Connect) -> None:
    """An engine made while nobody listens says so, and serves once somebody does."""
    server = TritonServer(repository, tmp_path / "late.log", load=[BRANCH.name])
    engine = connect(server, poll_interval_s=0.1)
    assert {state.readiness for state in engine.ready().values()} == {Readiness.UNREACHABLE}
    with pytest.raises(TritonUnavailable):
        ask(engine)
    with server:
        eventually(lambda: serves(engine))


def test_models_come_and_go(server: TritonServer, connect: Connect) -> None:
    """Unloaded in Triton: not ready here; loaded again: served."""
    engine = connect(server, poll_interval_s=0.1)
    assert engine.ready()["midas_256"].readiness is Readiness.UNAVAILABLE
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.unload_model(BRANCH.name)
        eventually(lambda: not engine.ready()[BRANCH.name].ready)
        with pytest.raises(ModelNotReady):
            ask(engine)
        client.load_model(BRANCH.name)
        eventually(lambda: serves(engine))


def test_a_model_unloaded_between_two_polls_is_an_error_of_the_contract(
    server: TritonServer, connect: Connect
) -> None:
    """Triton's own refusal comes out as model_not_ready."""
    engine = connect(server, poll_interval_s=3600.0)
    ask(engine)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.unload_model(BRANCH.name)
        with pytest.raises(ModelNotReady):
            ask(engine)


def test_a_model_with_other_tensors_is_not_served(repository: Path, tmp_path: Path, connect: Connect) -> None:
    """READY in Triton isn't enough: the tensors must be the catalogue's."""
    wrong = tmp_path / "models"
    test_repository.build(wrong, ["yolo11n_640"])
    shutil.rmtree(wrong / "yolo11n_320")
    shutil.copytree(wrong / "yolo11n_640", wrong / "yolo11n_320")
    config = wrong / "yolo11n_320" / "config.pbtxt"
    config.write_text(config.read_text().replace("yolo11n_640", "yolo11n_320"))
    with TritonServer(wrong, tmp_path / "triton.log", load=["yolo11n_320"]) as server:
        engine = connect(server)
        state = engine.ready()["yolo11n_320"]
        assert state.readiness is Readiness.CONTRACT_MISMATCH
        assert "640" in (state.reason or "")
        with pytest.raises(ModelNotReady):
            ask(engine)


def test_a_model_that_triton_does_not_know_is_missing(tmp_path: Path, connect: Connect) -> None:
    """What isn't in the repository index is `missing`."""
    models = test_repository.build(tmp_path / "models", ["yolo11n_320"])
    shutil.rmtree(models / "midas_512")
    with TritonServer(models, tmp_path / "triton.log", load=["yolo11n_320"]) as server:
        assert connect(server).ready()["midas_512"].readiness is Readiness.MISSING


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_grpc_status_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    """Whatever gRPC answers, now or in a later version, callers see the domain's errors."""
    error = triton_client._translate("model", code, "words")
    assert isinstance(error, GatewayError)
    assert isinstance(error, DeadlineExceeded) or "words" in str(error)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Request for unknown model: 'x' is not found", "ModelNotReady"),
        ("Request for unknown model: 'x' has no available versions", "ModelNotReady"),
        ("Inference request for unknown model 'x' is not at ready state", "ModelNotReady"),
        ("Unable to find shared memory region: 'r'", "RegionLost"),
        ("Failed to allocate memory for requested buffer of size 1", "InsufficientGpuMemory"),
        ("CUDA failure 2: out of memory", "InsufficientGpuMemory"),
        ("failed to connect to all addresses", "TritonUnavailable"),
    ],
)
def test_triton_s_words_come_before_grpc_s_codes(words: str, name: str) -> None:
    """One status stands for several failures; the text tells them apart."""
    assert type(triton_client._translate("model", grpc.StatusCode.UNAVAILABLE, words)).__name__ == name
