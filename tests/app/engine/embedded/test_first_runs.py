"""A branch that has run on this machine before serves without a first run; nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from support.models import repository as test_repository
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app.engine.base import ModelState
from app.engine.embedded import first_runs
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.embedded.model import EmbeddedLease
from app.engine.weights import WeightsBook
from routing.policy import Readiness

NAMES = ("yolo11n_320", "midas_256")
Start = Callable[..., dict[str, ModelState]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository that the test may change: a model alone, and an ensemble."""
    return test_repository.build(tmp_path / "models", list(NAMES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the branches that were run for the first time, as they are run."""
    seen: list[str] = []
    first_run = EmbeddedLease.first_run

    def watched(lease: EmbeddedLease, limit_s: float, options: ort.RunOptions) -> None:
        seen.append(lease.model.name)
        first_run(lease, limit_s, options)

    monkeypatch.setattr(EmbeddedLease, "first_run", watched)
    return seen


@pytest.fixture
def start(models: Path, folder: Path) -> Iterator[Start]:
    """Starts an engine as a process of its own would, and returns the states once all is loaded."""
    made: list[EmbeddedEngine] = []

    def build(cached: bool = True) -> dict[str, ModelState]:
        cache = (folder, 1 << 30) if cached else None
        options = EmbeddedOptions(threads=1, branches=NAMES, warmup_s=60.0, cache=cache)
        made.append(EmbeddedEngine(CATALOGUE, models, WeightsBook(models, None), options))
        assert made[-1].loaded.wait(PATIENCE_S)
        return {name: made[-1].ready()[name] for name in NAMES}

    yield build
    for engine in made:
        engine.close()


def replace_graph(models: Path, offset: float) -> None:
    """Another detector: all its values are one of five numbers, or the run fails where `offset` is beyond them."""
    spec = CATALOGUE.branches["yolo11n_320"].models[0]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "offset"], ["place"]),
        helper.make_node("Cast", ["place"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["numbers", "index"], ["number"]),
        helper.make_node("Expand", ["number", "shape"], ["output0"]),
    ]
    tensors = {
        "offset": np.float32(offset),
        "numbers": np.arange(5, dtype=np.float32),
        "shape": np.array(spec.outputs[0].shape, np.int64),
    }
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = models / spec.name / "1" / "model.onnx"
    graph.write_bytes(test_repository._serialise(spec, nodes, constants))


def test_a_second_start_runs_nothing(start: Start, runs: list[str]) -> None:
    """Every branch is READY as after a first run, with the same weights."""
    first = start()
    assert sorted(runs) == sorted(NAMES)
    assert start() == first
    assert len(runs) == len(NAMES)
    assert all(state.ready for state in first.values())


def test_without_a_cache_every_start_runs_all(start: Start, runs: list[str]) -> None:
    """Nothing is known of earlier starts."""
    for _ in range(2):
        assert all(state.ready for state in start(cached=False).values())
    assert len(runs) == 2 * len(NAMES)


def test_another_graph_is_run(start: Start, models: Path, runs: list[str]) -> None:
    """Only the branch whose files have changed."""
    start()
    replace_graph(models, 1.0)
    runs.clear()
    assert start()["yolo11n_320"].ready
    assert runs == ["yolo11n_320"]


def test_a_run_that_failed_is_repeated(start: Start, models: Path, runs: list[str]) -> None:
    """A graph that can't run is found at every start, and never served."""
    replace_graph(models, 1000.0)
    for _ in range(2):
        runs.clear()
        state = start()["yolo11n_320"]
        assert state.readiness is Readiness.UNAVAILABLE
        assert "first run failed" in (state.reason or "")
        assert "yolo11n_320" in runs


@pytest.mark.parametrize("how", ["damaged", "renamed", "another machine", "somebody else's"])
def test_a_note_that_says_nothing_of_this_run_is_ignored(
    start: Start, folder: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The branches are run again, and noted again."""
    start()
    notes = sorted(folder.glob("*.ran"))
    if how == "damaged":
        for note in notes:
            note.write_bytes(note.read_bytes()[:-1])
    elif how == "renamed":
        one, other = notes
        one.replace(other)
    elif how == "another machine":
        monkeypatch.setattr(first_runs, "machine", lambda: {"processor": "other"})
    elif os.geteuid():
        pytest.skip("only root can give a folder away")
    else:
        os.chown(folder, 12345, 12345)
    runs.clear()
    assert all(state.ready for state in start().values())
    assert sorted(runs) == sorted(NAMES)


def test_a_folder_without_room_for_notes_is_no_failure(start: Start, folder: Path, runs: list[str]) -> None:
    """The branches serve; the next start runs them again."""
    folder.write_text("a file")
    for _ in range(2):
        assert all(state.ready for state in start().values())
    assert len(runs) == 2 * len(NAMES)


def test_old_notes_are_removed(
    start: Start, folder: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder keeps the notes that were used last."""
    monkeypatch.setattr(first_runs, "_MOST", 1)
    start()
    assert len(list(folder.glob("*.ran"))) == 1
    assert len(runs) == len(NAMES)
