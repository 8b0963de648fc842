"""Models that come, go, change and are run for the first time, on a real Triton under explicit model control."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from onnx import helper, numpy_helper
from support.models import repository as test_repository
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.models.timed import Timed
from deploy.local.triton_server import TritonServer
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.triton.engine import TritonEngine
from app.engine.weights import WeightsBook, files_digest
from app.errors import ModelNotFound, ModelNotReady
from routing.policy import Readiness

pytestmark = pytest.mark.triton
BRANCH = CATALOGUE.branches["yolo11n_320"]
Start = Callable[..., TritonEngine]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository that the test may change."""
    return test_repository.build(tmp_path / "models", ["yolo11n_320", "midas_256"])


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[TritonServer]:
    with TritonServer(models, tmp_path / "triton.log") as running:
        yield running
        running.kill()


@pytest.fixture
def start(models: Path, server: TritonServer) -> Iterator[Start]:
    """Makes engines over the server; closed at the end."""
    made: list[TritonEngine] = []

    def build(warmup_s: float = PATIENCE_S) -> TritonEngine:
        book = WeightsBook(models, None)
        made.append(triton_engine(server.grpc_url, book, poll_interval_s=0.05, warmup_s=warmup_s))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def other_weights(models: Path, name: str = BRANCH.name, value: float = 7.0) -> str:
    """Put another model under the name, which answers `value` everywhere; its digest."""
    spec = next(model for model in BRANCH.models if model.name == name)
    nodes = [
        helper.make_node("ReduceMean", [spec.inputs[0].name], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "values"], [spec.outputs[0].name]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.full(spec.outputs[0].shape, value, np.float32), "values"),
    ]
    folder = models / name / "1"
    fresh = folder / ".new"
    fresh.write_bytes(test_repository._serialise(spec, nodes, constants))
    fresh.rename(folder / "model.onnx")
    note = json.loads((folder / "weights.json").read_text())
    digest = files_digest(folder)
    (folder / "weights.json").write_text(json.dumps({**note, "digest": digest}))
    return digest


def digest(engine: TritonEngine) -> str:
    return engine.ready()[BRANCH.name].weights.digest


def answer(engine: TritonEngine) -> tuple[float, str]:
    """One value of an answer, and the digest that it is signed with."""
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))
        return float(lease.outputs["output0"].flat[0]), lease.model.weights.digest


@pytest.fixture
def timed(models: Path) -> Timed:
    """The branch's model, which may hold its runs; asked for before the server."""
    return Timed(models, BRANCH.name)


def test_a_branch_is_run_before_it_is_ready(timed: Timed, server: TritonServer, start: Start) -> None:
    """Ready says that Triton has counted an inference of every branch, none of them a caller's."""
    with timed.held("run"):
        engine = start()
        state = engine.ready()[BRANCH.name]
        assert (state.readiness, state.reason) == (Readiness.LOADING, "waits for its first run")
        with pytest.raises(ModelNotReady), engine.lease(BRANCH, Deadline.after(PATIENCE_S)):
            pass
    eventually(lambda: engine.ready()[BRANCH.name].ready and engine.ready()["midas_256"].ready)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        counts = {row.name: row.inference_count for row in client.get_inference_statistics().model_stats}
    assert (counts[BRANCH.name], counts["midas_256"], counts["midas_256_onnx"]) == (1, 1, 1)


def test_without_warm_up_a_branch_is_ready_at_once(start: Start) -> None:
    """The switch: what Triton calls READY is served."""
    assert start(warmup_s=0).ready()[BRANCH.name].ready


def test_a_branch_that_cannot_run_is_not_served_and_says_so(
    models: Path, server: TritonServer, start: Start
) -> None:
    """READY in Triton, but its first run fails: unavailable with Triton's own words, and the others serve."""
    graph = models / BRANCH.name / "1" / "model.onnx"
    spec = BRANCH.models[0]
    nodes = [  # an index that only a run shows to be none
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "million"], ["far"]),
        helper.make_node("Cast", ["far"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["values", "index"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1e6), "million"),
        numpy_helper.from_array(np.zeros((3, 1, 84, 2100), np.float32), "values"),
    ]
    graph.write_bytes(test_repository._serialise(spec, nodes, constants))
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(BRANCH.name)
    engine = start()
    eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.UNAVAILABLE)
    assert "first run failed: yolo11n_320" in (engine.ready()[BRANCH.name].reason or "")
    assert "Gather" in (engine.ready()[BRANCH.name].reason or "")
    eventually(lambda: engine.ready()["midas_256"].ready)
    with pytest.raises(ModelNotReady, match="first run failed"), engine.lease(BRANCH, Deadline.after(PATIENCE_S)):
        pass


def test_a_first_run_that_takes_too_long_is_given_up(server: TritonServer, start: Start) -> None:
    """The time is bounded: a server that hangs in the first run leaves a reason, not a gateway that waits."""
    engine = start()
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.unload_model(BRANCH.name)
        eventually(lambda: not engine.ready()[BRANCH.name].ready)
        client.load_model(BRANCH.name)
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    stubs = [p for p in server.processes() if p.name().startswith("triton_python_b")]
    for stub in stubs:
        stub.suspend()
    assert engine._warmer is not None
    engine._warmer._limit_s = 0.3
    engine._warmer.again(BRANCH.name)
    eventually(lambda: not engine.ready()[BRANCH.name].ready)
    assert engine.ready()[BRANCH.name].reason == "first run failed: it took longer than 0.3 s"
    for stub in stubs:
        stub.resume()


def test_a_model_that_appears_is_run_and_served(models: Path, server: TritonServer, start: Start) -> None:
    """New in the repository and loaded by an operator: missing, then ready, with its own digest; nothing restarted."""
    engine = start()
    fresh = CATALOGUE.branches["yolo11n_640"]
    assert engine.ready()[fresh.name].readiness in (Readiness.MISSING, Readiness.UNAVAILABLE)
    test_repository.build(models, [fresh.name], configs=False)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(fresh.name)
    eventually(lambda: engine.ready()[fresh.name].ready)
    eventually(lambda: engine.ready()[fresh.name].weights.digest == files_digest(models / fresh.name / "1"))


def test_a_model_that_vanishes_is_refused(models: Path, server: TritonServer, start: Start) -> None:
    """Unloaded and removed: not served, with the reason; back again, it is run again and served."""
    engine = start()
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    folder, aside = models / BRANCH.name, models.parent / "aside"
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.unload_model(BRANCH.name)
        shutil.move(folder, aside)
        eventually(
            lambda: engine.ready()[BRANCH.name].readiness in (Readiness.MISSING, Readiness.UNAVAILABLE)
        )
        with pytest.raises((ModelNotFound, ModelNotReady)), engine.lease(BRANCH, Deadline.after(PATIENCE_S)):
            pass
        shutil.move(aside, folder)
        client.load_model(BRANCH.name)
    eventually(lambda: engine.ready()[BRANCH.name].ready)


def test_other_weights_under_the_same_version_change_the_digest(
    models: Path, server: TritonServer, start: Start
) -> None:
    """Reloaded without ever leaving READY: the new digest from then on, and never a gap in serving."""
    engine = start()
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    _, old = answer(engine)
    assert old == files_digest(models / BRANCH.name / "1")
    new = other_weights(models)
    eventually(lambda: digest(engine) == "unknown")  # the files are not what Triton has
    value, said = answer(engine)
    assert (value == 7.0, said) == (False, "unknown")
    states = set()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(BRANCH.name)
    eventually(lambda: states.add(engine.ready()[BRANCH.name].readiness) or digest(engine) == new)
    assert states <= {Readiness.READY}
    assert answer(engine) == (7.0, new)


def test_another_version_changes_version_and_digest(models: Path, server: TritonServer, start: Start) -> None:
    """Version 2 beside version 1: what serves is named, and version 1's note says nothing of it."""
    engine = start()
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    first = models / BRANCH.name / "1"
    second = models / BRANCH.name / "2"
    second.mkdir()
    other_weights(models)
    for path in first.iterdir():
        (second / path.name).write_bytes(path.read_bytes())
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(BRANCH.name)
    eventually(lambda: engine.ready()[BRANCH.name].version == "2" and engine.ready()[BRANCH.name].ready)
    eventually(lambda: digest(engine) == files_digest(second))
    assert answer(engine) == (7.0, files_digest(second))
    (second / "weights.json").unlink()
    eventually(lambda: digest(engine) == "unknown")
