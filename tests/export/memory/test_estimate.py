"""The estimate of a graph's memory, on graphs that are small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.models import repository as test_repository

from export import manifest
from export.memory.arena import Arena
from export.memory.estimate import estimate, of_file

KIB = 1024
ROW = [1, KIB // 4]  # 1 KiB of FP32


def _model(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    shape: Sequence[int] = ROW,
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", *outputs)
    }
    graph = helper.make_graph(
        list(nodes), "g", [values["x"]], [values[name] for name in outputs], list(constants)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def test_a_chain_of_pointwise_nodes_computes_in_place() -> None:
    """Each output takes the place of its input, so there is one buffer."""
    nodes = [_node("Relu", "x", "a"), _node("Sigmoid", "a", "b"), _node("Exp", "b", "y")]
    assert estimate(_model(nodes, ["y"])).activations == KIB


def test_a_tensor_that_is_needed_later_keeps_its_place() -> None:
    """X is added at the end, so the first node can't overwrite it; the last one can."""
    nodes = [_node("Relu", "x", "a"), _node("Sigmoid", "a", "b"), _node("Add", "x b", "y")]
    assert estimate(_model(nodes, ["y"])).activations == 2 * KIB


def test_a_node_that_moves_values_needs_input_and_output() -> None:
    """Transpose can't work in place, and its input is free after it."""
    nodes = [_node("Transpose", "x", "a", perm=[0, 1]), _node("Transpose", "a", "y", perm=[0, 1])]
    assert estimate(_model(nodes, ["y"])).activations == 2 * KIB


def test_another_shape_is_the_same_memory() -> None:
    """A reshape copies nothing, and what it names keeps the buffer alive."""
    shape = numpy_helper.from_array(np.array([KIB // 4, 1], np.int64), "shape")
    back = numpy_helper.from_array(np.array(ROW, np.int64), "back")
    nodes = [_node("Reshape", "x shape", "a"), _node("Reshape", "a back", "b"), _node("Relu", "b", "y")]
    assert estimate(_model(nodes, ["y"], constants=[shape, back])).activations == KIB


def test_parameters_are_weights_and_no_activations() -> None:
    """Nor is what follows from them alone: ONNX Runtime computes that when it loads the model."""
    weight = numpy_helper.from_array(np.zeros(ROW, np.float32), "w")
    nodes = [_node("Relu", "w", "folded"), _node("Add", "x folded", "y")]
    found = estimate(_model(nodes, ["y"], constants=[weight]))
    assert (found.weights, found.activations, found.workspace) == (KIB, KIB, 0)


def test_shapes_that_nodes_compute_are_known() -> None:
    """From a shape over arithmetic to a reshape, as exporters write it; the nodes that compute it take no memory."""
    two, axis = (
        numpy_helper.from_array(np.array([n], np.int64), name) for n, name in ((2, "two"), (1, "axis"))
    )
    nodes = [
        _node("Shape", "x", "shape"),
        _node("Gather", "shape axis", "side"),
        _node("Div", "side two", "half"),
        _node("Concat", "two half", "halves", axis=0),
        _node("Reshape", "x halves", "a"),
        _node("Transpose", "a", "b", perm=[1, 0]),
        _node("Transpose", "b", "c", perm=[1, 0]),
        _node("Reshape", "c shape", "y"),
    ]
    found = estimate(_model(nodes, ["y"], constants=[two, axis]))
    assert (found.unknown, found.activations) == (0, 2 * KIB)


def test_tensors_of_unknown_size_are_counted() -> None:
    """A reader can tell an estimate that lacks something."""
    nodes = [_node("NonZero", "x", "places"), _node("Shape", "places", "n"), _node("Relu", "x", "y")]
    assert estimate(_model(nodes, ["y"])).unknown == 1


def test_the_largest_convolution_may_need_scratch_memory() -> None:
    """A 3x3 convolution of stride 1 may be computed over tiles: 36 values for 16, of input and output, and 36/9 of the
    kernel.
    """
    sides, kernel = [1, 8, 512, 512], np.zeros((8, 8, 3, 3), np.float32)
    weight = numpy_helper.from_array(kernel, "w")
    node = _node("Conv", "x w", "y", pads=[1, 1, 1, 1])
    tensor = 8 * 512 * 512 * 4
    found = estimate(_model([node], ["y"], sides, [weight]))
    assert found.workspace == int(2.25 * 2 * tensor) + 4 * kernel.nbytes
    strided = _node("Conv", "x w", "y", pads=[1, 1, 1, 1], strides=[2, 2])
    halved = _model([strided], ["y"], sides, [weight])
    for place, side in enumerate((1, 8, 256, 256)):
        halved.graph.output[0].type.tensor_type.shape.dim[place].dim_value = side
    assert estimate(halved).workspace == 32 << 20


def test_the_arena_grows_by_what_is_asked() -> None:
    """A free chunk that is large enough is taken, and split where it is twice as large."""
    arena = Arena()
    first, second = arena.allocate(1000), arena.allocate(1000)
    assert arena.total == 2048
    arena.free(first)
    small = arena.allocate(256)
    assert arena.total == 2048
    arena.allocate(700)
    assert arena.total == 2048
    arena.free(second)
    arena.free(small)
    arena.allocate(1024)
    assert arena.total == 2048
    arena.allocate(2048)
    assert arena.total == 4096


def test_neighbours_become_one_chunk() -> None:
    """A chunk that was split is whole again once its parts are free."""
    arena = Arena()
    arena.free(arena.allocate(4096))
    parts = [arena.allocate(1024) for _ in range(4)]
    assert arena.total == 4096
    for part in parts:
        arena.free(part)
    arena.allocate(4096)
    assert arena.total == 4096


def test_the_exporter_notes_the_estimate(tmp_path: Path) -> None:
    """It stands in weights.json, so that serving needs no `onnx`; models that have none get it with the next build."""
    test_repository.build(tmp_path, ["midas_256"])
    record = manifest.read("midas_256_onnx", tmp_path)
    assert record is not None
    assert record.memory == of_file(tmp_path / "midas_256_onnx/1/model.onnx")
    assert record.memory.activations >= 256 * 256 * (3 + 1) * 4
    note = tmp_path / "midas_256_onnx/1/weights.json"
    text = note.read_text()
    note.write_text(text.replace('"memory"', '"remembered"'))
    older = manifest.read("midas_256_onnx", tmp_path)
    assert older is not None
    assert older.memory is None
    manifest.note_memory("midas_256_onnx", tmp_path)
    again = manifest.read("midas_256_onnx", tmp_path)
    assert again is not None
    assert (again.memory, again.digest) == (record.memory, record.digest)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_a_file_that_is_no_model_has_no_estimate(tmp_path: Path, content: bytes) -> None:
    """The command that asks goes on with the others."""
    (tmp_path / "model.onnx").write_bytes(content)
    assert manifest.estimated(tmp_path / "model.onnx") is None
