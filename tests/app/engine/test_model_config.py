"""Our reader of config.pbtxt against protobuf's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.triton_server import ROOT
from tritonclient.grpc import model_config_pb2

from app.engine.model_config import ConfigError, read

COMMITTED = sorted((ROOT / "triton" / "models").glob("*/config.pbtxt"))

_BY_HAND = """
# a comment
name: 'by' "_hand" ; platform: "ensemble",
max_batch_size: 0
input [ { name: "a", data_type: TYPE_UINT8, dims: [1, 2,
  3] } , { name: "b" data_type: TYPE_FP32 dims: 1 dims: 4 } ]
output < name: "c\\"quoted\\"" data_type: TYPE_INT64 dims: [ 77 ] >
parameters { key: "gpu_mem_limit" value: { string_value: "1e9" } }
ensemble_scheduling: {
  step [ { model_name: "m" model_version: -1
           input_map { key: "x" value: "a" } input_map: { key: "y", value: "b" }
           output_map { key: "z" value: "c" } } ]
}
"""


def _compare(text: str) -> None:
    ours = read(text)
    theirs = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (ours.name, ours.platform, ours.backend) == (theirs.name, theirs.platform, theirs.backend)
    assert ours.max_batch_size == theirs.max_batch_size
    assert ours.model_filename == (theirs.default_model_filename or "model.onnx")
    for mine, other in ((ours.inputs, theirs.input), (ours.outputs, theirs.output)):
        names = model_config_pb2.DataType.Name
        expected = [(t.name, names(t.data_type).removeprefix("TYPE_"), tuple(t.dims)) for t in other]
        assert [(t.name, t.datatype, t.shape) for t in mine] == expected
    steps = theirs.ensemble_scheduling.step
    expected_steps = [(s.model_name, dict(s.input_map), dict(s.output_map)) for s in steps]
    assert [(s.model_name, dict(s.input_map), dict(s.output_map)) for s in ours.steps] == expected_steps


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_configurations_read_the_same(path: Path) -> None:
    """Every field that the embedded engine acts on is what Triton reads there."""
    _compare(path.read_text(encoding="utf-8"))


def test_hand_written_configurations_read_the_same() -> None:
    """Lists, comments, adjacent strings, both quotes, angle brackets and missing separators."""
    _compare(_BY_HAND)


@given(st.text() | st.text(alphabet="{}[]<>:,;\"'ab1-# \n\\"))
def test_nonsense_is_a_config_error(text: str) -> None:
    """No text makes the reader fail in any other way."""
    try:
        read(text)
    except ConfigError:
        return
