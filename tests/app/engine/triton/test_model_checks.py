"""Checks of single models, over a server that answers from a table."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from support.models.repository import CATALOGUE

from app.engine.base import Weights
from app.engine.triton import model_checks
from app.engine.triton.model_checks import IndexRow, ModelChecks, ServedConfig
from app.errors import InferenceFailed
from routing.catalogue import TensorSpec
from routing.policy import Readiness

DEPTH, DETECT = CATALOGUE.models["midas_256"], CATALOGUE.models["yolo11n_320"]
PREPARE, CHILD = "preprocess_midas_256", "midas_256_onnx"


class Table:
    """A server: configurations by model; a model without one can't be described."""

    def __init__(self, configs: dict[str, ServedConfig]) -> None:
        self.configs = configs
        self.asked: Counter[str] = Counter()

    def tensors(self, model: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
        self.asked[model] += 1
        spec = CATALOGUE.models[model]
        return [*spec.inputs], [*spec.outputs]

    def config(self, model: str) -> ServedConfig:
        if model not in self.configs:
            raise InferenceFailed(f"{model}: no such file")
        return self.configs[model]


def ready(*names: str, version: str = "1") -> dict[str, IndexRow]:
    return {name: IndexRow(True, version, "") for name in names}


PLAIN = ServedConfig("cpu", ())
ENSEMBLE = ServedConfig("unknown", ((PREPARE, None), (CHILD, None)))


def test_a_model_is_checked_once_until_it_is_forgotten() -> None:
    """A poll that finds nothing new asks nothing about a model."""
    server = Table({DETECT.name: PLAIN})
    checks = ModelChecks(server, CATALOGUE)
    for _ in range(5):
        assert checks.of(DETECT, ready(DETECT.name)).state.device == "cpu"
    assert server.asked == {DETECT.name: 1}
    checks.of(DETECT, ready(DETECT.name, version="2"))
    checks.forget(DETECT.name)
    checks.of(DETECT, ready(DETECT.name))
    assert server.asked == {DETECT.name: 3}


def test_a_model_that_cannot_be_described_is_not_ready_and_asked_again_after_a_pause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, one call in the first second; another model is ready beside it; in the end it is, too."""
    now = [100.0]
    monkeypatch.setattr(model_checks.time, "monotonic", lambda: now[0])
    server = Table({DETECT.name: PLAIN})
    checks, index = ModelChecks(server, CATALOGUE), ready(DEPTH.name, DETECT.name)
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            state = checks.of(DEPTH, index).state
            now[0] += 0.01
    assert (state.readiness, state.reason) == (
        Readiness.UNAVAILABLE,
        "Triton can't describe it: midas_256: no such file",
    )
    assert checks.of(DETECT, index).state.ready
    assert server.asked[DEPTH.name] == 1
    for _ in range(600):
        checks.of(DEPTH, index)
        now[0] += 0.1
    assert server.asked[DEPTH.name] == 6  # after 0, 1, 3, 7, 15 and 31 seconds, in about a minute
    assert len(caplog.records) == 1
    server.configs[DEPTH.name] = PLAIN
    now[0] += 61
    assert checks.of(DEPTH, index).state.ready


def test_the_parts_are_those_of_the_server_s_own_scheduling() -> None:
    """Ensembles inside are taken apart, a version that a step names is kept, and the device is the working part's."""
    configs = {
        DEPTH.name: ServedConfig("unknown", (("before", None), (CHILD, "3"), ("after", None))),
        "before": ServedConfig("unknown", ((PREPARE, None),)),
        PREPARE: PLAIN,
        CHILD: ServedConfig("cuda:0", ()),
        "after": PLAIN,
    }
    index = ready(DEPTH.name, "before", PREPARE, CHILD, "after")
    checked = ModelChecks(Table(configs), CATALOGUE).of(DEPTH, index)
    assert checked.parts == ((PREPARE, None), (CHILD, "3"), ("after", None))
    assert checked.state.device == "cuda:0"


def test_an_ensemble_without_parts_is_its_own() -> None:
    """One model in its place: no parts, its own device."""
    checked = ModelChecks(Table({DEPTH.name: ServedConfig("cuda:1", ())}), CATALOGUE).of(
        DEPTH, ready(DEPTH.name)
    )
    assert (checked.parts, checked.state.device, checked.away) == ((), "cuda:1", False)


@pytest.mark.parametrize(
    ("row", "readiness", "reason"),
    [
        (None, Readiness.UNAVAILABLE, f"its part {CHILD} doesn't serve: not loaded"),
        (IndexRow(False, "1", "loading"), Readiness.UNAVAILABLE, f"its part {CHILD} doesn't serve: loading"),
    ],
    ids=["not there", "loading"],
)
def test_a_part_that_does_not_serve_is_named(row: IndexRow | None, readiness: Readiness, reason: str) -> None:
    """The ensemble is away until the part is back."""
    server = Table({DEPTH.name: ENSEMBLE, CHILD: PLAIN, PREPARE: PLAIN})
    checks, index = ModelChecks(server, CATALOGUE), ready(DEPTH.name, PREPARE)
    checked = checks.of(DEPTH, index if row is None else {**index, CHILD: row})
    assert (checked.state.readiness, checked.state.reason, checked.away) == (readiness, reason, True)
    assert checks.of(DEPTH, ready(DEPTH.name, PREPARE, CHILD)).state.ready


@pytest.mark.parametrize(
    ("row", "readiness"),
    [
        (None, Readiness.MISSING),
        (IndexRow(False, "1", ""), Readiness.UNAVAILABLE),
        (IndexRow(False, "1", "loading"), Readiness.LOADING),
        (IndexRow(False, "1", "CUDA failure 2: out of memory"), Readiness.OUT_OF_MEMORY),
    ],
)
def test_what_the_server_does_not_serve_is_away(row: IndexRow | None, readiness: Readiness) -> None:
    """Its own words decide what the state is; nothing is asked about it."""
    server = Table({})
    checked = ModelChecks(server, CATALOGUE).of(DETECT, {} if row is None else {DETECT.name: row})
    assert (checked.state.readiness, checked.away) == (readiness, True)
    assert server.asked == {}


def test_the_accelerator_is_that_of_the_working_part() -> None:
    """The graph that prepares has none; the ensemble runs on its model's."""
    configs = {
        DEPTH.name: ENSEMBLE,
        PREPARE: ServedConfig("cuda:0", ()),
        CHILD: ServedConfig("cuda:0", (), accelerator=("tensorrt", "fp16")),
    }
    checked = ModelChecks(Table(configs), CATALOGUE).of(DEPTH, ready(DEPTH.name, PREPARE, CHILD))
    assert checked.accelerator == ("tensorrt", "fp16")


def test_weights_name_the_engine_that_runs_them() -> None:
    """A graph of half precision stays one where the accelerator would compute in FP32."""
    plain = Weights("sha256:aa", "pretrained")
    assert plain.accelerated("tensorrt", "fp16") == Weights("sha256:aa", "pretrained", "fp16", "tensorrt")
    assert plain.accelerated("tensorrt", "fp32").precision == "fp32"
    assert Weights(precision="fp16").accelerated("tensorrt", "fp32").precision == "fp16"
