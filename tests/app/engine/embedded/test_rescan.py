"""The embedded engine follows its repository: what appears, changes and vanishes, without a caller noticing."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.models import repository as test_repository
from support.models.repository import CATALOGUE
from support.servers.gateway import client
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.weights import WeightsBook, files_digest
from app.errors import GatewayError, ModelNotReady, WeightsMissing
from routing.policy import Readiness
from routing.provenance import UNKNOWN

BRANCH = CATALOGUE.branches["yolo11n_320"]
OTHER = CATALOGUE.branches["yolo11n_640"]
Start = Callable[..., EmbeddedEngine]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository that the test may change."""
    return test_repository.build(tmp_path / "models", [BRANCH.name])


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes engines that look at their files all the time; closed at the end."""
    made: list[EmbeddedEngine] = []

    def build(models: Path, **options: float) -> EmbeddedEngine:
        settings = EmbeddedOptions(**{"threads": 1, "rescan_s": 0.02, **options})  # type: ignore[arg-type]  # numbers
        made.append(EmbeddedEngine(CATALOGUE, models, WeightsBook(models, None), settings))
        assert made[-1].loaded.wait(PATIENCE_S)
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def constant(models: Path, value: float) -> str:
    """Put a model there that answers `value` everywhere, as the exporter does: whole, by one rename; its digest."""
    spec = BRANCH.models[0]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "values"], ["output0"]),
    ]
    tensors = {"zero": np.float32(0), "values": np.full(spec.outputs[0].shape, value, np.float32)}
    return put(models, nodes, [numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()])


def put(models: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> str:
    folder = models / BRANCH.name / "1"
    (folder / ".fresh").write_bytes(test_repository._serialise(BRANCH.models[0], nodes, constants))
    (folder / ".fresh").rename(folder / "model.onnx")
    digest = files_digest(folder)
    (folder / ".note").write_text(json.dumps({"digest": digest, "weights": "random"}))
    (folder / ".note").rename(folder / "weights.json")
    return digest


def digest(engine: EmbeddedEngine) -> str:
    return engine.ready()[BRANCH.name].weights.digest


def answer(engine: EmbeddedEngine) -> tuple[float, str]:
    """One value of an answer, and the digest that it is signed with."""
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))
        return float(lease.outputs["output0"].flat[0]), lease.model.weights.digest


def test_a_model_that_appears_is_served(models: Path, start: Start) -> None:
    """A branch built while the gateway runs needs no restart."""
    engine = start(models, warmup_s=PATIENCE_S)
    assert engine.ready()[OTHER.name].readiness is Readiness.WEIGHTS_MISSING
    test_repository.build(models, [OTHER.name], configs=False)
    eventually(lambda: engine.ready()[OTHER.name].ready)
    with engine.lease(OTHER, Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))


def test_a_model_that_vanishes_is_refused_and_may_come_back(models: Path, start: Start) -> None:
    """A caller that holds the model finishes; the next one is told that it is missing."""
    engine = start(models)
    graph = models / BRANCH.name / "1" / "model.onnx"
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        graph.rename(models / "aside")
        eventually(lambda: engine.ready()[BRANCH.name].readiness is Readiness.WEIGHTS_MISSING)
        lease.run(Deadline.after(PATIENCE_S))
    with pytest.raises(WeightsMissing), engine.lease(BRANCH, Deadline.after(PATIENCE_S)):
        pass
    (models / "aside").rename(graph)
    eventually(lambda: engine.ready()[BRANCH.name].ready)
    answer(engine)


def test_every_answer_is_signed_with_the_weights_that_gave_it(models: Path, start: Start) -> None:
    """Callers in a row while weights change five times: no error, no gap, and value and digest belong together.

    A model that is loaded before its weights.json is there is signed `unknown`, as nothing is known of it.
    """
    values = {constant(models, 0.0): 0.0}
    engine = start(models, warmup_s=PATIENCE_S)
    stop = threading.Event()
    seen: set[tuple[float, str]] = set()
    errors: list[GatewayError] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                seen.add(answer(engine))
            except GatewayError as error:
                errors.append(error)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        new = constant(models, value)
        values[new] = value
        eventually(lambda new=new: digest(engine) == new and any(d == new for _, d in set(seen)))  # type: ignore[misc]  # bound now
    stop.set()
    for caller in callers:
        caller.join()
    assert errors == []
    known = {(value, signed) for value, signed in seen if signed != UNKNOWN}
    assert len(known) == 6
    assert all(values[signed] == value for value, signed in known)


def test_a_lease_that_is_out_keeps_its_weights(models: Path, start: Start) -> None:
    """Swapped in the middle of a request: it ends on the weights that it is signed with."""
    old = constant(models, 1.0)
    engine = start(models)
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        new = constant(models, 2.0)
        eventually(lambda: digest(engine) == new)
        lease.run(Deadline.after(PATIENCE_S))
        assert (float(lease.outputs["output0"].flat[0]), lease.model.weights.digest) == (1.0, old)
    assert answer(engine) == (2.0, new)


def test_what_cannot_be_loaded_takes_nothing_away(models: Path, start: Start) -> None:
    """A broken file in place of a good one: what was loaded serves on under its own digest, and the reason is told."""
    old = constant(models, 1.0)
    engine = start(models)
    (models / BRANCH.name / "1" / "model.onnx").write_bytes(b"not a graph")
    eventually(lambda: engine.ready()[BRANCH.name].reason is not None)
    assert "the model of the earlier files still serves" in (engine.ready()[BRANCH.name].reason or "")
    assert answer(engine) == (1.0, old)
    new = constant(models, 2.0)
    eventually(lambda: digest(engine) == new)
    assert engine.ready()[BRANCH.name].reason is None


def test_a_file_that_is_being_written_is_waited_for(models: Path, start: Start) -> None:
    """Only what two looks agree on is loaded: half a file is never tried."""
    constant(models, 1.0)
    whole = (models / BRANCH.name / "1" / "model.onnx").read_bytes()
    constant(models, 2.0)
    engine = start(models, rescan_s=0)
    look = functools.partial(engine._rescan, engine._in_order())
    reasons = set()
    with (models / BRANCH.name / "1" / "model.onnx").open("wb") as file:
        for start_at in range(0, len(whole), len(whole) // 20):
            file.write(whole[start_at : start_at + len(whole) // 20])
            file.flush()
            look()
            reasons.add(engine.ready()[BRANCH.name].reason)
    assert reasons == {None}
    assert answer(engine)[0] == 2.0
    look()
    assert answer(engine)[0] == 1.0


def test_a_note_that_changes_is_read(models: Path, start: Start) -> None:
    """weights.json written after the weights: what it says of them is told."""
    engine = start(models)
    note = models / BRANCH.name / "1" / "weights.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "weights": "pretrained"}))
    eventually(lambda: engine.ready()[BRANCH.name].weights.kind == "pretrained")


def test_an_untouched_repository_is_left_alone(models: Path, start: Start) -> None:
    """Looking loads nothing."""
    engine = start(models)
    pool = engine._pools[BRANCH.name]
    for _ in range(3):
        look = engine._looks
        eventually(lambda look=look: engine._looks is not look)  # type: ignore[misc]  # bound now
    assert engine._pools[BRANCH.name] is pool


def test_without_rescans_the_first_look_stays(models: Path, start: Start) -> None:
    """The switch: rescan_s 0."""
    engine = start(models, rescan_s=0)
    test_repository.build(models, [OTHER.name], configs=False)
    engine._loader.join(PATIENCE_S)
    assert not engine._loader.is_alive()
    assert not engine.ready()[OTHER.name].ready


def test_a_branch_whose_first_run_fails_is_not_served(models: Path, start: Start) -> None:
    """A branch that loads but doesn't run is known before a caller meets it."""
    nodes = [  # an index that only a run shows to be none
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "million"], ["far"]),
        helper.make_node("Cast", ["far"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["values", "index"], ["output0"]),
    ]
    tensors = {"million": np.float32(1e6), "values": np.zeros((3, 1, 84, 2100), np.float32)}
    put(models, nodes, [numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()])
    assert start(models).ready()[BRANCH.name].ready
    engine = start(models, warmup_s=PATIENCE_S)
    assert engine.ready()[BRANCH.name].readiness is Readiness.UNAVAILABLE
    assert "first run failed: yolo11n_320" in (engine.ready()[BRANCH.name].reason or "")
    with (
        pytest.raises(ModelNotReady, match="first run failed"),
        engine.lease(BRANCH, Deadline.after(PATIENCE_S)),
    ):
        pass


def test_a_first_run_that_takes_too_long_is_ended(models: Path, start: Start) -> None:
    """The time is bounded, in the middle of a graph too."""
    nodes, constants = (
        [],
        {"zero": np.float32(0), "shape": np.array([1, 84, 2100]), "one": np.ones(3, np.int64)},
    )
    value = "images"
    for layer in range(60):
        constants[f"w{layer}"] = np.zeros((64, 64 if layer else 3, 3, 3), np.float32)
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        value = f"c{layer}"
    nodes += [
        helper.make_node("ReduceMean", [value], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["cube"]),
        helper.make_node("Expand", ["cube", "shape"], ["output0"]),
    ]
    put(models, nodes, [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()])
    engine = start(models, warmup_s=0.2)
    assert engine.ready()[BRANCH.name].reason == "first run failed: it took longer than 0.2 s"


def test_a_branch_that_cannot_run_says_so_to_whoever_asks(models: Path) -> None:
    """The rest serves; the branch stands in /v1/branches with its reason."""
    (models / BRANCH.name / "1" / "model.onnx").write_bytes(b"not a graph")
    test_repository.build(models, [OTHER.name], configs=False)
    with client(models, rescan_s=0.05) as gateway:
        assert gateway.get("/readyz").status_code == 200
        families = gateway.get("/v1/branches").json()["families"]
        rows = {row["name"]: row for family in families for row in family["branches"]}
        assert rows[BRANCH.name]["readiness"] == "unavailable"
        assert rows[BRANCH.name]["reason"]


def test_embeddings_of_other_weights_are_never_served(tmp_path: Path) -> None:
    """Prompts are remembered by the weights' digest: after a change the same prompt is computed again."""
    models = test_repository.build(tmp_path / "models", ["clip_text"])
    body = {"prompts": ["a photo of a cat"]}
    graph = models / "clip_text_onnx" / "1" / "model.onnx"
    first = graph.read_bytes()
    with client(models, rescan_s=0.05, text_cache_folder=tmp_path / "cache") as gateway:

        def ask() -> tuple[str, int]:
            answered = gateway.post("/v1/clip/text", json=body).json()
            return answered["model_signature"], answered["model_calls"]

        old, calls = ask()
        assert calls == 1
        assert ask() == (old, 0)
        changed = onnx.load_from_string(first)
        changed.doc_string = "other bytes"
        _put(graph, changed.SerializeToString())
        eventually(lambda: ask()[0] != old)
        _put(graph, first)
        eventually(lambda: ask() == (old, 0))


def _put(graph: Path, content: bytes) -> None:
    fresh = graph.with_name(".fresh")
    fresh.write_bytes(content)
    fresh.rename(graph)
