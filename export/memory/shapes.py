"""Shapes of a graph's tensors where nodes compute them: such nodes are evaluated first, as ONNX Runtime does."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.memory.graph import initializer_bytes

_MOST_BYTES = 1 << 20  # of an input: shapes and axes are small, and parameters needn't be multiplied
_ROUNDS = 20  # each may make further shapes known


def with_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph with the shapes of its tensors, and without the nodes that only computed such shapes."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    for tensor in folded.graph.initializer:
        if not _small(tensor):
            tensor.ClearField("raw_data")  # every round copies the model
    for _ in range(_ROUNDS):
        del folded.graph.value_info[:]  # what was inferred before, with sides that were unknown then
        folded = onnx.shape_inference.infer_shapes(folded, data_prop=True)
        ready = _ready(folded)
        if not ready:
            break
        values = _evaluated(folded, ready)
        kept = [node for node in folded.graph.node if not values.keys() & set(node.output)]
        del folded.graph.node[:]
        folded.graph.node.extend(kept)
        folded.graph.initializer.extend(values.values())
    return folded.graph


def _ready(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes whose answer follows from small constants, or from a shape that is known."""
    there = {tensor.name for tensor in model.graph.initializer if _small(tensor)}
    found = []
    for node in model.graph.node:
        if all(name in there or not name for name in node.input) or _known_shape(model, node) is not None:
            found.append(node)
            there |= set(node.output)
    return found


def _small(tensor: onnx.TensorProto) -> bool:
    return not tensor.external_data and initializer_bytes(tensor) <= _MOST_BYTES


def _known_shape(model: onnx.ModelProto, node: onnx.NodeProto) -> list[int] | None:
    if node.op_type != "Shape" or node.attribute:
        return None
    for value in (*model.graph.input, *model.graph.value_info):
        tensor = value.type.tensor_type
        if value.name == node.input[0] and tensor.HasField("shape"):
            sides = [side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim]
            return None if -1 in sides else sides
    return None


def _evaluated(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    """The outputs of the nodes, as parameters."""
    nodes = [_constant(model, node) for node in nodes]
    names = [name for node in nodes for name in node.output if name]
    wanted = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "constants",
        [],
        [helper.make_empty_tensor_value_info(name) for name in names],
        [tensor for tensor in model.graph.initializer if tensor.name in wanted],
    )
    small = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    answers = ReferenceEvaluator(small).run(None, {})
    return {name: numpy_helper.from_array(answer, name) for name, answer in zip(names, answers, strict=True)}


def _constant(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, or for one that asks a known shape a constant."""
    shape = _known_shape(model, node)
    return node if shape is None else helper.make_node("Constant", [], node.output, value_ints=shape)
