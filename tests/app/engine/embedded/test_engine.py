"""The embedded engine loads what is right, says what is wrong, and serves the rest."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
from support.models import repository as test_repository
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.engine.base import ModelState
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.embedded.model import translated_errors
from app.engine.weights import WeightsBook
from app.errors import InferenceFailed, InsufficientGpuMemory, ModelNotReady
from routing.catalogue import Branch
from routing.policy import Readiness

BRANCH = CATALOGUE.branches["yolo11n_320"]
Load = Callable[..., EmbeddedEngine]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository that the test may damage."""
    return test_repository.build(tmp_path / "models", ["yolo11n_320", "yolo11n_640"])


@pytest.fixture
def load() -> Iterator[Load]:
    """Makes engines that have loaded all they can; closed at the end."""
    made: list[EmbeddedEngine] = []

    def build(repository: Path, **options: object) -> EmbeddedEngine:
        engine = EmbeddedEngine(
            CATALOGUE, repository, WeightsBook(repository, None), EmbeddedOptions(**options)
        )
        made.append(engine)
        assert engine.loaded.wait(PATIENCE_S)
        return engine

    yield build
    for engine in made:
        engine.close()


def state(engine: EmbeddedEngine, name: str = "yolo11n_320") -> ModelState:
    return engine.ready()[name]


def test_the_digest_is_that_of_the_file(models: Path, load: Load) -> None:
    """The reported digest is computed from the bytes that were loaded."""
    content = (models / "yolo11n_320" / "1" / "model.onnx").read_bytes()
    assert state(load(models)).weights.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_note_that_is_not_of_this_file_is_not_believed(models: Path, load: Load) -> None:
    """weights.json of another file: nothing is known, so the file never has two signatures."""
    note = models / "yolo11n_320" / "1" / "weights.json"
    document = json.loads(note.read_text())
    note.write_text(json.dumps({**document, "digest": "sha256:" + "0" * 64, "weights": "pretrained"}))
    weights = state(load(models)).weights
    assert (weights.kind, weights.digest) == ("unknown", "unknown")


def test_without_a_note_nothing_is_known(models: Path, load: Load) -> None:
    """Nothing is said about weights that nobody has described yet: the note may follow."""
    (models / "yolo11n_320" / "1" / "weights.json").unlink()
    weights = state(load(models)).weights
    assert (weights.kind, weights.digest) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("file", "content", "readiness"),
    [
        ("1/model.onnx", b"not a graph", Readiness.UNAVAILABLE),
        ("1/model.onnx", b"", Readiness.UNAVAILABLE),
        ("config.pbtxt", b"name: {", Readiness.UNAVAILABLE),
        ("config.pbtxt", b"\xff\xfe\x00", Readiness.UNAVAILABLE),
        ("config.pbtxt", b"a {" * 100_000, Readiness.UNAVAILABLE),
        ("config.pbtxt", b'name: "yolo11n_320"', Readiness.CONTRACT_MISMATCH),
        ("1/model.onnx", None, Readiness.WEIGHTS_MISSING),
        ("config.pbtxt", None, Readiness.MISSING),
    ],
    ids=[
        "graph of words",
        "empty graph",
        "half a config",
        "config not UTF-8",
        "config without bottom",
        "config without tensors",
        "no graph",
        "no config",
    ],
)
def test_a_damaged_model_keeps_no_other_from_serving(
    models: Path, load: Load, file: str, content: bytes | None, readiness: Readiness
) -> None:
    """Whatever is wrong with one branch ends in its state with a reason."""
    path = models / "yolo11n_320" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    engine = load(models)
    assert state(engine).readiness is readiness
    assert state(engine).reason
    with engine.lease(CATALOGUE.branches["yolo11n_640"], Deadline.after(PATIENCE_S)) as lease:
        lease.run(Deadline.after(PATIENCE_S))


def test_a_graph_with_other_tensors_is_not_served(models: Path, load: Load) -> None:
    """The catalogue's shapes are the contract, for the graph too."""
    wrong = (models / "yolo11n_640" / "1" / "model.onnx").read_bytes()
    (models / "yolo11n_320" / "1" / "model.onnx").write_bytes(wrong)
    engine = load(models)
    assert state(engine).readiness is Readiness.CONTRACT_MISMATCH
    assert "640" in (state(engine).reason or "")


def test_only_what_is_asked_for_is_loaded(models: Path, load: Load) -> None:
    """A host with little memory loads some branches; the others say that they are left out."""
    engine = load(models, branches=("yolo11n_640", "midas_256"))
    assert state(engine, "yolo11n_640").ready
    assert state(engine).readiness is Readiness.UNAVAILABLE
    with (
        pytest.raises(ModelNotReady, match="loaded"),
        engine.lease(CATALOGUE.branches["yolo11n_320"], Deadline.after(PATIENCE_S)),
    ):
        pass


def test_parts_of_what_is_left_out_say_so_too(repository: Path, load: Load) -> None:
    """Once loading is over nothing is `loading`: every model is ready or has a reason."""
    engine = load(repository, branches=("yolo11n_320", "yolo11n_640"))
    for name in ("midas_256", "preprocess_midas_256", "midas_256_onnx"):
        assert state(engine, name).readiness is Readiness.UNAVAILABLE
        assert "not among the models that are loaded" in (state(engine, name).reason or "")
    assert not any(model.readiness is Readiness.LOADING for model in engine.ready().values())
    assert all(model.reason for model in engine.ready().values() if not model.ready)


def test_an_ensemble_of_strangers_is_not_served(tmp_path: Path, load: Load) -> None:
    """The steps of an ensemble are models of the catalogue; another one is named in the reason."""
    models = test_repository.build(tmp_path, ["midas_256"])
    config = models / "midas_256" / "config.pbtxt"
    config.write_text(config.read_text().replace('"midas_256_onnx"', '"stranger"'))
    engine = load(models)
    assert state(engine, "midas_256").readiness is Readiness.CONTRACT_MISMATCH
    assert "stranger" in (state(engine, "midas_256").reason or "")


def test_a_branch_is_ready_once_it_can_be_leased(
    models: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its tensors can be leased a branch says `loading`, and leasing it is model_not_ready."""
    seen: list[Readiness] = []
    refused: list[type[BaseException]] = []
    leases = EmbeddedEngine._leases

    def watched(engine: EmbeddedEngine, branch: Branch, graphs: Any) -> Any:
        seen.append(state(engine, branch.name).readiness)
        with (
            pytest.raises(Exception, match=branch.name) as failure,
            engine.lease(branch, Deadline.after(PATIENCE_S)),
        ):
            pass
        refused.append(failure.type)
        return leases(engine, branch, graphs)

    monkeypatch.setattr(EmbeddedEngine, "_leases", watched)
    assert state(load(models)).ready
    assert seen == [Readiness.LOADING] * 2
    assert refused == [ModelNotReady] * 2


def test_an_engine_closes_while_it_loads(models: Path) -> None:
    """Shutdown ends the loader; what it had not come to is refused like what it had."""
    engine = EmbeddedEngine(CATALOGUE, models, WeightsBook(models, None))
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    engine._loader.join(PATIENCE_S)  # the model at hand is read to its end
    assert not engine._loader.is_alive()
    assert not any(model.ready for model in engine.ready().values())


def test_a_closed_engine_serves_nobody(models: Path, load: Load) -> None:
    """After the end a lease is an error of ours that says why."""
    engine = load(models)
    assert state(engine).ready
    engine.close()
    with pytest.raises(ModelNotReady, match="closed"), engine.lease(BRANCH, Deadline.after(PATIENCE_S)):
        pass


def test_a_lease_outlives_the_closing_of_its_engine(models: Path, load: Load) -> None:
    """A caller that holds tensors when the engine is closed finishes its run."""
    engine = load(models)
    with engine.lease(BRANCH, Deadline.after(PATIENCE_S)) as lease:
        engine.close()
        lease.run(Deadline.after(PATIENCE_S))
        assert lease.outputs["output0"].any()


def test_the_binding_s_untyped_failures_are_translated(models: Path) -> None:
    """ONNX Runtime raises a bare RuntimeError as well, here for an input that is no tensor."""
    session = ort.InferenceSession(models / "yolo11n_320" / "1" / "model.onnx")
    with pytest.raises(InferenceFailed, match="yolo11n_320: "), translated_errors("yolo11n_320"):
        session.run(None, {"images": object()})


@pytest.mark.parametrize(
    "kind",
    [value for _, value in inspect.getmembers(ort_state, inspect.isclass) if issubclass(value, Exception)],
    ids=lambda kind: kind.__name__,
)
def test_every_exception_of_onnx_runtime_is_translated(kind: type[Exception]) -> None:
    """Whatever it raises, in this version or a later one, comes out as an error of ours."""
    with pytest.raises(InferenceFailed), translated_errors("model"):
        raise kind("words")
    with pytest.raises(InsufficientGpuMemory), translated_errors("model"):
        raise kind("Failed to allocate memory for requested buffer of size 123")
