"""The exporters' own graphs in half precision: valid, near the FP32 answers, and half as large."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.exporters import EXPORTERS
from export.graphs import check_contract
from export.half import conversion, models
from export.weights import random_weights
from routing import catalogue as catalogues

pytestmark = pytest.mark.export
CATALOGUE = catalogues.load()
# The greatest part that FP16 may change of an answer (RMS), by branch. Measured with random weights: docs/precision.md.
MOST = {
    "midas_256": 0.01,
    "raft_256": 0.01,
    "clip_image_224": 0.01,
    "clip_text": 0.01,
    "places365_resnet50_224": 0.01,
}


@pytest.mark.parametrize("name", MOST)
def test_a_network_answers_in_fp16_as_in_fp32(name: str) -> None:
    """On two made-up inputs; the exported graph keeps its contract and opset."""
    branch = CATALOGUE.branches[name]
    exporter, spec = EXPORTERS[branch.family], branch.models[-1]
    content, _ = exporter.make()(branch, random_weights())
    made = conversion.convert(onnx.load_from_string(content))
    check_contract(made, spec, exporter.opset)
    halved = made.SerializeToString(deterministic=True)
    assert len(halved) < 0.6 * len(content)
    feeds = [models.feed(spec, seed) for seed in (3, 4)]
    answers = models.run(content, feeds), models.run(halved, feeds)
    for expected, answer in zip(*answers, strict=True):
        error = np.sqrt(
            np.mean((answer.astype(np.float64) - expected) ** 2)
            / np.mean(np.square(expected, dtype=np.float64))
        )
        assert error < MOST[name]
