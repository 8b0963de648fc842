"""Our reader of config.pbtxt against protobuf's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.models.repository import CATALOGUE
from support.paths import ROOT
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


def test_every_model_of_the_catalogue_has_a_committed_configuration() -> None:
    """The comparison above leaves none out."""
    assert {path.parent.name for path in COMMITTED} == set(CATALOGUE.models)


# Beyond ASCII protobuf writes UTF-8 byte by byte: no tensor is named so.
_NAMES = st.text(st.characters(max_codepoint=127), max_size=6)
_MAPS = st.dictionaries(_NAMES, _NAMES, max_size=2)
_DATA_TYPES = st.sampled_from([value for value in model_config_pb2.DataType.values() if value])  # 0: invalid
_TENSORS = st.lists(
    st.tuples(_NAMES, _DATA_TYPES, st.lists(st.integers(-1, 1 << 40), max_size=4)), max_size=2
)


@st.composite
def _configurations(draw: st.DrawFn) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(
        name=draw(_NAMES),
        platform=draw(_NAMES),
        backend=draw(_NAMES),
        max_batch_size=draw(st.integers(-1, 1 << 30)),
        default_model_filename=draw(_NAMES),
    )
    for side in (config.input, config.output):
        for name, data_type, dims in draw(_TENSORS):
            side.add(name=name, data_type=data_type, dims=dims)
    for name, inputs, outputs in draw(st.lists(st.tuples(_NAMES, _MAPS, _MAPS), max_size=2)):
        config.ensemble_scheduling.step.add(model_name=name, input_map=inputs, output_map=outputs)
    return config


@given(_configurations(), st.booleans(), st.booleans())
def test_what_protobuf_writes_is_read_as_it_was_meant(
    config: model_config_pb2.ModelConfig, one_line: bool, short: bool
) -> None:
    """Any configuration that protobuf prints, in each of its layouts and with its own quoting, reads the same."""
    _compare(text_format.MessageToString(config, as_one_line=one_line, use_short_repeated_primitives=short))


_PIECES = st.sampled_from(
    [
        "name",
        "platform",
        "max_batch_size",
        "input",
        "output",
        "dims",
        "data_type",
        "ensemble_scheduling",
        "step",
        "input_map",
        "key",
        "value",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        ":",
        ",",
        ";",
        "1",
        "-1",
        "0x1",
        "1e9",
        "TYPE_FP32",
        '"a"',
        "'b'",
        '"\\x"',
        "'\\400'",
        '"\\',
        "\\",
        "#",
        "\x00",
        '"\x00"',
    ]
)


@given(st.text() | st.text(alphabet="{}[]<>:,;\"'ab1-# \n\\") | st.lists(_PIECES, max_size=30).map(" ".join))
def test_nonsense_is_a_config_error(text: str) -> None:
    """No text makes the reader fail in any other way."""
    try:
        read(text)
    except ConfigError:
        return


@pytest.mark.parametrize(
    "text",
    [
        'name: "half',
        'name: "\\x"',
        'name: "\\400"',
        'name: "\0"',
        "name: {}",
        "name",
        "input: 3",
        "input { dims: many }",
        "input { dims: 1",
        "max_batch_size: 1.5",
        'ensemble_scheduling: "later"',
        "}",
        "a {" * 100_000,
        "\ufeffname: 'x'",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    """A text of the wrong form or with values of the wrong kind is a ConfigError with words."""
    with pytest.raises(ConfigError, match=r"\w"):
        read(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "name: [] input: [] ensemble_scheduling: []"])
def test_empty_fields_are_absent_fields(text: str) -> None:
    """An empty file is an empty configuration; the contract is checked by whoever reads it."""
    config = read(text)
    assert (config.name, config.inputs, config.steps) == ("", (), ())
    assert config.model_filename == "model.onnx"
