"""FP16 graphs computed as a GPU does: every FP16 tensor is rounded, sums are in FP32.

ONNX Runtime has few FP16 kernels for the CPU. It computes runs of nodes in FP32 and rounds where a run ends, which is
nearer to FP32 than a GPU is. Here every result is rounded, in a graph whose types are all FP32.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from export.half.conversion import HALF, SINGLE

# Their results are numbers of their inputs, so rounding changes nothing.
_MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "MaxPool", "Pad", "Relu", "Reshape", "Slice", "Split", "Squeeze",
     "Transpose", "Unsqueeze"}
)  # fmt: skip


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 graph that rounds wherever `half` has FP16 numbers. It is to be run without optimisation."""
    inferred = onnx.shape_inference.infer_shapes(half).graph
    halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == HALF}
    made = onnx.ModelProto()
    made.CopyFrom(half)
    for part in ("node", "initializer", "value_info"):
        made.graph.ClearField(part)
    for tensor in half.graph.initializer:
        made.graph.initializer.append(_single(tensor))
    for node in half.graph.node:
        made.graph.node.extend(_nodes(node, halves))
    return made


def _single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != HALF:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)


def _nodes(node: onnx.NodeProto, halves: set[str]) -> list[onnx.NodeProto]:
    outputs = [name for name in node.output if name in halves]
    if node.op_type == "Cast" and node.input[0] in halves and not outputs:
        to = helper.get_attribute_value(next(a for a in node.attribute if a.name == "to"))
        if to == SINGLE:
            return [helper.make_node("Identity", node.input, node.output, node.name)]
    if not outputs or node.op_type in _MOVES:
        return [node]
    if node.op_type == "Cast":
        return _round(node.input[0], node.output[0])
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    for place, name in enumerate(copied.output):
        if name in halves:
            copied.output[place] = f"{name}_exact"
    return [copied, *(each for name in outputs for each in _round(f"{name}_exact", name))]


def _round(source: str, target: str) -> list[onnx.NodeProto]:
    inner = f"{target}_rounded"
    return [
        helper.make_node("Cast", [source], [inner], inner, to=HALF),
        helper.make_node("Cast", [inner], [target], f"{target}_again", to=SINGLE),
    ]
