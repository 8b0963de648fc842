"""The null repository: the catalogue's contracts, almost no work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from app.engine.base import NUMPY_DTYPES
from app.vision.yolo import decode, detect
from benchmarks.common import null_models
from export import repository
from routing import catalogue as catalogues

CATALOGUE = catalogues.load()
BASELINE = null_models.baseline(CATALOGUE)
SPECS = [spec for name in BASELINE for spec in CATALOGUE.branches[name].models if spec.kind != "ensemble"]


def test_the_baseline_has_every_family_and_size_once() -> None:
    """One variant of each family, with all its sizes."""
    assert {CATALOGUE.branches[name].family for name in BASELINE} == {
        branch.family for branch in CATALOGUE.branches.values()
    }
    assert [name for name in BASELINE if name.startswith("yolo")] == [
        "yolo11n_320",
        "yolo11n_640",
        "yolo11n_960",
    ]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_graphs_answer_what_the_contract_says(spec: catalogues.ModelSpec) -> None:
    """Every graph runs, and its answer follows the first value of its input."""
    session = ort.InferenceSession(null_models.graph_of(spec))
    names = [tensor.name for tensor in spec.outputs]
    answers = []
    for value in (3, 7):
        feeds = {t.name: np.full(t.shape, value, NUMPY_DTYPES[t.datatype]) for t in spec.inputs}
        answers.append(session.run(names, feeds))
    for tensor, low, high in zip(spec.outputs, *answers, strict=True):
        assert low.shape == high.shape == tensor.shape
        assert np.max(high - low) == 4 * len(spec.inputs)


@pytest.mark.parametrize("boxes", [0, 1, 10, 300])
@pytest.mark.parametrize("side", [320, 640, 960])
def test_a_detector_finds_as_many_boxes_as_asked_for(side: int, boxes: int) -> None:
    """NMS has doubles to suppress, and keeps the boxes."""
    shape = CATALOGUE.branches[f"yolo11n_{side}"].outputs[0].shape
    output = null_models.anchors(shape, boxes)
    assert len(decode(output, 0.25).scores) == boxes * null_models.CANDIDATES_A_BOX
    found = detect(output, 0.25, 0.7, 300)
    assert len(found.scores) == boxes
    assert not boxes or (found.boxes.min() >= 0 and found.boxes.max() <= side)


def test_configurations_are_those_of_the_real_repository(tmp_path: Path) -> None:
    """A null model stands where the real one would: the same config.pbtxt, byte for byte."""
    null_models.build(tmp_path, ["midas_256"])
    texts = repository.configs(CATALOGUE)
    written = {path.parent.name: path.read_text() for path in tmp_path.glob("*/config.pbtxt")}
    assert written == {name: texts[name] for name in written}
    assert set(written) == {"midas_256", "midas_256_onnx", "preprocess_midas_256"}
