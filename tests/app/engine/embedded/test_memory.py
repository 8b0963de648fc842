"""The embedded engine when ONNX Runtime runs out of memory, which it does here in earnest."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import repository as test_repository
from support.models.engines import recover_now
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.weights import WeightsBook
from app.errors import InsufficientGpuMemory
from routing.catalogue import Branch
from routing.policy import Readiness

BRANCH, OTHER = CATALOGUE.branches["yolo11n_320"], CATALOGUE.branches["midas_256"]


def hungry() -> bytes:
    """A graph that answers the mean of its input, and asks for 40 TB on the way where that is 1."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "many"], ["product"]),
        helper.make_node("Cast", ["product"], ["count"], to=TensorProto.INT64),
        helper.make_node("Add", ["count", "one"], ["some"]),
        helper.make_node("Reshape", ["some", "vector"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["mean", "zero"], ["sum"]),
        helper.make_node("Expand", ["sum", "wanted"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1e13), "many"),
        numpy_helper.from_array(np.int64(1), "one"),
        numpy_helper.from_array(np.array([1]), "vector"),
        numpy_helper.from_array(np.array(BRANCH.outputs[0].shape), "wanted"),
    ]
    return test_repository._serialise(BRANCH.models[0], nodes, constants)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A detector that may run out of memory, and a depth model that won't."""
    root = test_repository.build(tmp_path / "models", [BRANCH.name, OTHER.name])
    (root / BRANCH.name / "1" / "model.onnx").write_bytes(hungry())
    return root


@pytest.fixture(params=[0.0, PATIENCE_S], ids=["without warm-up", "with warm-up"])
def engine(models: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedEngine]:
    options = EmbeddedOptions(
        threads=1, warmup_s=request.param, reload_pause_s=3600.0, reload_longest_s=3600.0
    )
    made = EmbeddedEngine(CATALOGUE, models, WeightsBook(None, None), options)
    assert made.loaded.wait(PATIENCE_S)
    yield made
    made.close()


def ask(engine: EmbeddedEngine, value: float, branch: Branch = BRANCH) -> float:
    deadline = Deadline.after(PATIENCE_S)
    with engine.lease(branch, deadline) as lease:
        (array,) = lease.inputs.values()
        array.fill(255 * value if array.dtype == np.uint8 else value)
        lease.run(deadline)
        return float(lease.outputs["output0"].max())


def test_a_session_that_ran_out_of_memory_is_made_anew(engine: EmbeddedEngine) -> None:
    """The branch is out at once and says why, the others serve, and it serves again in a session of its own."""
    assert ask(engine, 0.0) == 0.0
    full = weakref.ref(engine._sessions._loaded[BRANCH.name].session)
    with pytest.raises(
        InsufficientGpuMemory, match="Failed to allocate memory for requested buffer"
    ) as first:
        ask(engine, 1.0)
    assert first.value.retry_after is not None
    state = engine.ready()[BRANCH.name]
    assert state.readiness is Readiness.OUT_OF_MEMORY
    assert "a run was out of memory at" in (state.reason or "")
    with pytest.raises(InsufficientGpuMemory, match="a run was out of memory at"):
        ask(engine, 0.0)
    with engine.lease(OTHER, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))
    del first
    recover_now(engine)
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    assert ask(engine, 0.0) == 0.0
    assert full() is None
    usage = engine.usage()
    assert (usage.out_of_memory, usage.quarantined) == ({BRANCH.name: 1}, frozenset())
    assert usage.recovered == {(BRANCH.name, "reloaded"): 1}


@pytest.mark.parametrize("first", BRANCH.same_weights)
def test_a_branch_and_its_twin_are_made_anew_together(models: Path, first: str) -> None:
    """They run on one session: whichever runs out of memory, both are out until another one takes its place."""
    test_repository.build(models, [f"{BRANCH.name}_uint8"], configs=False)
    (models / BRANCH.name / "1" / "model.onnx").write_bytes(hungry())
    options = EmbeddedOptions(threads=1, reload_pause_s=3600.0, reload_longest_s=3600.0)
    engine = EmbeddedEngine(CATALOGUE, models, WeightsBook(None, None), options)
    assert engine.loaded.wait(PATIENCE_S)
    try:
        full = weakref.ref(engine._sessions._loaded[BRANCH.name].session)
        for name in (first, *BRANCH.same_weights):
            with pytest.raises(InsufficientGpuMemory):
                ask(engine, 1.0, CATALOGUE.branches[name])
        recover_now(engine)
        eventually(lambda: all(engine.ready()[name].ready for name in BRANCH.same_weights))
        assert ask(engine, 0.0) == 0.0
        assert full() is None
        assert engine.usage().recovered == {(first, "reloaded"): 1}
    finally:
        engine.close()


def test_a_branch_whose_files_are_gone_meanwhile_is_missing(engine: EmbeddedEngine, models: Path) -> None:
    """Then there is nothing to reload."""
    with pytest.raises(InsufficientGpuMemory):
        ask(engine, 1.0)
    (models / BRANCH.name / "1" / "model.onnx").unlink()
    recover_now(engine)
    eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.WEIGHTS_MISSING)
    assert engine.usage().recovered == {(BRANCH.name, "gone"): 1}
