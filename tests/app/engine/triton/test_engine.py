"""The engine over a real Triton: how tensors travel, and what happens when the server goes away."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from onnx import helper, numpy_helper
from support.models import repository as test_repository
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.models.timed import Timed
from deploy.local.triton_server import TritonServer
from support.waiting import PATIENCE_S, eventually

from app.engine.triton import shared_memory
from app.deadline import Deadline
from app.engine.base import Engine
from app.engine.triton.engine import TritonEngine
from app.engine.weights import WeightsBook
from app.errors import DeadlineExceeded, GatewayError, ModelNotFound, ModelNotReady, TritonUnavailable
from routing.policy import Readiness

pytestmark = pytest.mark.triton
BRANCH = CATALOGUE.branches["yolo11n_320"]
SHM = Path("/dev/shm")


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """A server that the test may stop, kill and suspend. Killed at the end: it is sooner gone than when asked."""
    with TritonServer(repository, tmp_path / "triton.log", load=[BRANCH.name]) as running:
        yield running
        running.kill()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server whose detector takes some tenths of a second and answers the mean of its input everywhere."""
    models = test_repository.build(tmp_path_factory.mktemp("models"), [BRANCH.name])
    (models / BRANCH.name / "1" / "model.onnx").write_bytes(_slow_mean())
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log", load=[BRANCH.name]) as running:
        yield running
        running.kill()


def _slow_mean() -> bytes:
    """Convolutions for nothing, then `mean + 0 * result`."""
    constants = {"zero": np.float32(0), "one": np.ones(3, np.int64), "shape": np.array([1, 84, 2100])}
    nodes = []
    value = "images"
    for layer in range(8):
        constants[f"w{layer}"] = np.zeros((48, 48 if layer else 3, 3, 3), np.float32)
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        value = f"c{layer}"
    nodes += [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", [value], ["result"], keepdims=0),
        helper.make_node("Mul", ["result", "zero"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["sum"]),
        helper.make_node("Reshape", ["sum", "one"], ["cube"]),
        helper.make_node("Expand", ["cube", "shape"], ["output0"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return test_repository._serialise(BRANCH.models[0], nodes, tensors)


@pytest.fixture
def connect(repository: Path) -> Iterator[Callable[..., TritonEngine]]:
    """Makes engines that are closed at the end."""
    made: list[TritonEngine] = []

    def build(server: TritonServer, **options: object) -> TritonEngine:
        made.append(triton_engine(server.grpc_url, WeightsBook(repository, None), **{"silence_s": 5.0, **options}))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


Connect = Callable[..., TritonEngine]


def ask(engine: Engine, seconds: float = PATIENCE_S) -> float:
    """One inference whose answer is known: raises unless it is right."""
    deadline = Deadline.after(seconds)
    with engine.lease(BRANCH, deadline) as lease:
        lease.inputs["images"].fill(0)
        lease.inputs["images"][0, 0, :32, :32] = 1
        lease.run(deadline)
        scores = lease.outputs["output0"][0, 4]
        assert np.flatnonzero(scores > 0.5).tolist() == [2000]  # the first 32-pixel cell
        return float(scores[2000])


def serves(engine: Engine) -> bool:
    try:
        ask(engine, PATIENCE_S / 10)
    except GatewayError:
        return False
    return True


def regions(engine: TritonEngine) -> list[str]:
    assert engine._instance is not None
    return [path.name for path in SHM.glob(f"{engine._instance.name}-*")]


def registered(client: grpcclient.InferenceServerClient, engine: TritonEngine) -> list[str]:
    """Regions of this engine that the server has mapped."""
    assert engine._instance is not None
    names = client.get_system_shared_memory_status().regions
    return [name for name in names if name.startswith(engine._instance.name)]


def held() -> set[str]:
    """Regions and claims that this process has open or mapped."""
    process = psutil.Process()
    paths = {row.path for row in process.memory_maps()} | {row.path for row in process.open_files()}
    return {path for path in paths if "triton-gateway-" in path}


def ask_anything(engine: Engine) -> None:
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))


def give_up(engine: Engine) -> None:
    """Leave Triton with a run that nobody waits for."""
    ask_anything(engine)
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.inputs["images"].fill(9)
        with pytest.raises(DeadlineExceeded) as failure:
            lease.run(Deadline.after(0.05))
    assert failure.value.stage == "infer"


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
    """Asked for bytes, the engine makes no region and no claim: this process neither maps nor opens one more."""
    before = held()
    engine = connect(triton, transport="bytes")
    assert engine.transport == "bytes"
    ask(engine)
    assert held() <= before


def test_a_full_shared_memory_means_bytes(
    triton: TritonServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that finds no room goes by bytes; where shared memory was demanded, that is said instead."""
    auto, demanding = connect(triton), connect(triton, transport="shared_memory")

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with auto.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        assert lease.transport == "bytes"
    ask(auto)
    with pytest.raises(TritonUnavailable, match="No space"):
        ask(demanding)


def test_without_shared_memory_tensors_go_as_bytes(
    triton: TritonServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without a writable /dev/shm is served by bytes, unless shared memory was demanded."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shared_memory, "Instance", refused)
    auto, demanding = connect(triton), connect(triton, connects=False, transport="shared_memory")
    assert auto.transport == "bytes"
    ask(auto)
    eventually(
        lambda: "shared memory was asked for" in (demanding.ready()[BRANCH.name].reason or "")
    )
    assert demanding.ready()[BRANCH.name].readiness is Readiness.UNREACHABLE


def test_proxies_of_the_environment_are_not_asked(
    triton: TritonServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`http_proxy` and the like stand between nobody and a Triton on this host."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ask(connect(triton))


def test_forgotten_regions_are_registered_again(triton: TritonServer, connect: Connect) -> None:
    """A server that lost its regions unnoticed (a restart between two polls) costs no request."""
    engine = connect(triton, poll_interval_s=3600.0)
    ask(engine)
    with grpcclient.InferenceServerClient(triton.grpc_url) as client:
        client.unregister_system_shared_memory()
    ask(engine)
    assert len(regions(engine)) == 1


def test_a_restart_that_nobody_noticed_costs_nothing(server: TritonServer, connect: Connect) -> None:
    """Restarted between two polls, on the same ports: the same engine serves on through the same region."""
    engine = connect(server, poll_interval_s=3600.0)
    ask(engine)
    before = regions(engine)
    server.kill()  # one that is told to stop takes connections for a moment, and says that it isn't ready
    server.start()
    ask(engine)
    ask(engine)
    assert regions(engine) == before
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        assert registered(client, engine) == before


def test_the_engine_outlives_a_restart(server: TritonServer, connect: Connect) -> None:
    """Killed: unavailable, and said so; back on the same address: served again, through shared memory."""
    engine = connect(server, poll_interval_s=0.1)
    ask(engine)
    server.kill()
    started = time.monotonic()
    with pytest.raises(TritonUnavailable):
        ask(engine)
    assert time.monotonic() - started < PATIENCE_S / 2
    eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.UNREACHABLE)
    with pytest.raises(TritonUnavailable):
        ask(engine)
    server.start()
    eventually(lambda: serves(engine))
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        assert lease.transport == "shared_memory"


def test_a_server_that_hangs_costs_the_deadline_and_no_more(server: TritonServer, connect: Connect) -> None:
    """Suspended: 504 in time, and tensors that the server may still write into are never handed out again.

    The bound is wide, but half the control timeout: the caller waits for no other call to the server either.
    """
    engine = connect(server, poll_interval_s=3600.0, leases=1)
    ask(engine)
    (region,) = regions(engine)
    server.suspend()
    started = time.monotonic()
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease, pytest.raises(DeadlineExceeded) as failure:
        lease.run(Deadline.after(0.5))
    assert failure.value.stage == "infer"
    assert time.monotonic() - started < PATIENCE_S / 2
    server.resume()
    eventually(lambda: server.revived() and serves(engine))
    assert len(regions(engine)) == 1
    assert region not in regions(engine)


def test_a_server_that_hangs_is_seen_to_hang(server: TritonServer, connect: Connect) -> None:
    """Suspended, it is unreachable in `ready`; resumed, it serves by new regions and keeps none of the old."""
    engine = connect(server, poll_interval_s=0.1, silence_s=2.0)
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))
        server.suspend()
        with pytest.raises(DeadlineExceeded):
            lease.run(Deadline.after(0.1))
    eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.UNREACHABLE)
    with pytest.raises(TritonUnavailable):
        ask(engine)
    server.resume()
    eventually(lambda: server.revived() and serves(engine))
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        assert lease.transport == "shared_memory"
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        eventually(lambda: registered(client, engine) == regions(engine))


def test_a_run_that_was_given_up_writes_into_nobody_s_tensors(slow: TritonServer, connect: Connect) -> None:
    """Triton finishes what the deadline has cut off; the next callers get their own answers, not that one's."""
    engine = connect(slow, poll_interval_s=3600.0, leases=1)
    give_up(engine)
    for value in (2.0, 3.0):
        with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
            lease.inputs["images"].fill(value)
            lease.run(Deadline.after(PATIENCE_S))
            output = lease.outputs["output0"]
            assert output.min() == output.max() == value
    assert len(regions(engine)) == 1


def test_the_region_of_a_run_that_was_given_up_is_unregistered(slow: TritonServer, connect: Connect) -> None:
    """A run cut off by its deadline doesn't cost Triton the memory of a lease for ever."""
    engine = connect(slow, poll_interval_s=0.1, leases=1)
    give_up(engine)
    ask_anything(engine)  # one instance: the run that was given up is over now
    with grpcclient.InferenceServerClient(slow.grpc_url) as client:
        eventually(lambda: registered(client, engine) == regions(engine))


def test_a_closed_engine_serves_nobody(triton: TritonServer, connect: Connect) -> None:
    """Asked after its end it answers with an error of ours, and makes no region."""
    engine = connect(triton)
    ask(engine)
    instance = engine._instance
    engine.close()
    with pytest.raises(GatewayError):
        ask(engine)
    assert instance is not None
    assert list(SHM.glob(f"{instance.name}*")) == []


def test_a_server_that_comes_later_is_found(repository: Path, tmp_path: Path, connect: Connect) -> None:
    """An engine made while nobody listens says so, and serves once somebody does."""
    server = TritonServer(repository, tmp_path / "late.log", load=[BRANCH.name])
    engine = connect(server, connects=False, poll_interval_s=0.1)
    assert {state.readiness for state in engine.ready().values()} == {Readiness.UNREACHABLE}
    with pytest.raises(TritonUnavailable):
        ask(engine)
    with server:
        eventually(lambda: serves(engine))
        server.kill()


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


def test_a_model_on_its_way_is_loading(tmp_path: Path, connect: Connect) -> None:
    """Between `load` and READY the state is `loading`: an operator waits instead of searching."""
    models = test_repository.build(tmp_path / "models", [BRANCH.name])
    timed = Timed(models, BRANCH.name)
    with TritonServer(models, tmp_path / "triton.log", load=[BRANCH.name]) as server:
        engine = connect(server, poll_interval_s=0.01)
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            client.unload_model(BRANCH.name)
            eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.UNAVAILABLE)
            with timed.held("load"):
                loading = threading.Thread(target=client.load_model, args=(BRANCH.name,))
                loading.start()
                eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.LOADING)
            loading.join()
            eventually(lambda: engine.ready()[BRANCH.name].ready)


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


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with a 256-pixel model under the name of the 320-pixel one, and no midas_512 at all."""
    models = test_repository.build(tmp_path_factory.mktemp("models"), [])
    small = replace(BRANCH.models[0], inputs=(replace(BRANCH.inputs[0], shape=(1, 3, 256, 256)),))
    small = replace(small, outputs=(replace(BRANCH.outputs[0], shape=(1, 84, 1344)),))
    test_repository.write_model(models, small, replace(BRANCH, size=256))
    config = models / BRANCH.name / "config.pbtxt"
    config.write_text(config.read_text().replace("320, 320", "256, 256").replace("2100", "1344"))
    shutil.rmtree(models / "midas_512")
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log", load=[BRANCH.name]) as running:
        yield running
        running.kill()


def test_a_model_with_other_tensors_is_not_served(odd: TritonServer, connect: Connect) -> None:
    """READY in Triton isn't enough: the tensors must be the catalogue's, and the reason names both."""
    with grpcclient.InferenceServerClient(odd.grpc_url) as client:
        assert client.is_model_ready(BRANCH.name)
    engine = connect(odd)
    state = engine.ready()[BRANCH.name]
    assert state.readiness is Readiness.CONTRACT_MISMATCH
    assert "256" in (state.reason or "")
    assert "320" in (state.reason or "")
    with pytest.raises(ModelNotReady, match="256"):
        ask(engine)


def test_a_model_that_triton_does_not_know_is_missing(odd: TritonServer, connect: Connect) -> None:
    """A model that isn't in the repository index is `missing`, and leasing it is model_not_found."""
    engine = connect(odd)
    assert engine.ready()["midas_512"].readiness is Readiness.MISSING
    with (
        pytest.raises(ModelNotFound, match="midas_512"),
        engine.lease(CATALOGUE.branches["midas_512"], Deadline.after(PATIENCE_S)),
    ):
        pass
