"""A graph in half precision: the same inputs and outputs as in single precision, with casts inside.

Convolutions, matrix products and looked-up weights are FP16. Every other operation runs in the precision in which its
inputs arrive. What FP16 would harm stays in FP32, see `Kept`; docs/precision.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError
from export.sharing import PREFIX

REVISION = 1  # raised by hand when the same FP32 graph gives another FP16 graph
SINGLE, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
_MASK = 1e30  # larger numbers, such as the lowest of FP32, hide tokens; they are no weights

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_PRODUCTS = _CONVOLUTIONS | {"Gemm", "MatMul"}
# Operations whose types are fixed, or that ONNX Runtime has in FP32 alone.
_FP32_ONLY = frozenset(
    {"Cast", "CumSum", "NonMaxSuppression", "Range", "RandomNormal", "RoiAlign", "TopK", "Upsample"}
)
# Inputs that are FP32 in any case, by their places: a region and scales.
_FP32_INPUTS = {"Resize": (1, 2)}


@dataclass(frozen=True, slots=True)
class Kept:
    """Parts of a graph that stay in FP32.

    `operations`: by type. `dfl`: the mean over the bins of a detector's distances, a convolution with 0, 1, 2, ….
    `sampling`: what lies between a convolution and GridSample, which is RAFT's correlation and coordinates. `tail`: all
    that follows the last product on the way to an output, such as boxes in pixels.
    """

    operations: frozenset[str] = frozenset(
        {
            "GridSample",
            "InstanceNormalization",
            "LayerNormalization",
            "ReduceL2",
            "ReduceMean",
            "ReduceSum",
            "Softmax",
        }
    )
    dfl: bool = True
    sampling: bool = True
    tail: bool = True


def convert(model: onnx.ModelProto, kept: Kept = Kept()) -> onnx.ModelProto:  # frozen
    """The graph in half precision; equal graphs give equal bytes.

    Raises:
        ExportError: it has parts that can't be converted, or weights beyond FP16's range.
    """
    if any(attribute.type in _GRAPHS for node in model.graph.node for attribute in node.attribute):
        raise ExportError("a graph with branches or loops can't be converted to FP16")
    singles = _singles(model)
    constants = _constants(model.graph)
    exact = _exact(model.graph, constants, kept)
    writer = _Writer(model.graph, singles, constants)
    for place, node in enumerate(model.graph.node):
        writer.add(node, exact=place in exact)
    return writer.finish(model)


_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _singles(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the FP32 tensors.

    Raises:
        ExportError: the type of a tensor isn't known.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {t.name: t.data_type for t in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    unknown = [name for node in inferred.node for name in node.output if name and not types.get(name)]
    if unknown:
        raise ExportError(f"the type of {unknown[0]} isn't known, so the graph can't be converted to FP16")
    return frozenset(name for name, kind in types.items() if kind == SINGLE)


def _constants(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the tensors that depend on no input."""
    found = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if all(name in found for name in node.input):
            found.update(node.output)
    return frozenset(found)


def _exact(graph: onnx.GraphProto, constants: frozenset[str], kept: Kept) -> set[int]:
    """Places of the nodes that stay in FP32."""
    operations = kept.operations | _FP32_ONLY
    found = {
        place
        for place, node in enumerate(graph.node)
        if node.op_type in operations or all(name in constants for name in node.input)
    }
    if kept.dfl:
        found |= _dfl(graph)
    if kept.sampling:
        found |= _before_sampling(graph)
    if kept.tail:
        found |= _tail(graph, found)
    return found


def _dfl(graph: onnx.GraphProto) -> set[int]:
    weights = {t.name: t for t in graph.initializer if len(t.dims) == 4 and t.dims[0] == 1}
    return {
        place
        for place, node in enumerate(graph.node)
        if node.op_type == "Conv" and node.input[1] in weights and _counts(weights[node.input[1]])
    }


def _counts(weight: onnx.TensorProto) -> bool:
    """True for 0, 1, 2, …: the values of the bins."""
    values = numpy_helper.to_array(weight).reshape(-1)
    return len(values) > 1 and bool(np.array_equal(values, np.arange(len(values), dtype=values.dtype)))


def _before_sampling(graph: onnx.GraphProto) -> set[int]:
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    wanted = [name for node in graph.node if node.op_type == "GridSample" for name in node.input]
    found: set[int] = set()
    while wanted:
        place = makers.get(wanted.pop())
        if place is not None and place not in found and graph.node[place].op_type not in _CONVOLUTIONS:
            found.add(place)
            wanted += graph.node[place].input
    return found


def _tail(graph: onnx.GraphProto, exact: set[int]) -> set[int]:
    """Places of the nodes from which no way leads to a product in FP16."""
    leading: set[str] = set()
    found = set()
    for place in range(len(graph.node) - 1, -1, -1):
        node = graph.node[place]
        product = node.op_type in _PRODUCTS and place not in exact
        if product or not leading.isdisjoint(node.output):
            leading.update(node.input)
        else:
            found.add(place)
    return found


@dataclass
class _Writer:
    """Writes the nodes again, each with its inputs in the precision that it takes."""

    graph: onnx.GraphProto
    singles: frozenset[str]
    constants: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    _halves: set[str] = field(default_factory=set)  # tensors that a node gives in FP16
    _tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _cast: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}

    def add(self, node: onnx.NodeProto, *, exact: bool) -> None:
        half = not exact and self._in_half(node)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name:
                takes_half = half and place not in _FP32_INPUTS.get(node.op_type, ())
                copied.input[place] = self._as(name, half=takes_half)
        self.nodes.append(copied)
        if half:
            self._halves.update(name for name in node.output if name in self.singles)

    def _in_half(self, node: onnx.NodeProto) -> bool:
        """Products are; a look-up is as its table; all else is as its inputs."""
        if node.op_type in _PRODUCTS:
            return True
        if node.op_type == "Gather" and node.input[0] in self._initializers:
            return node.input[0] in self.singles
        inputs = [name for name in node.input if name in self.singles and name not in self.constants]
        return bool(inputs) and self._halves.issuperset(inputs)

    def _as(self, name: str, *, half: bool) -> str:
        """The name of a tensor in a precision, cast or converted at its first use; other types stay as they are."""
        if name not in self.singles:
            half = False
        if name not in self._initializers:
            there = name not in self.singles or half is (name in self._halves)
            return name if there else self._casted(name, half=half)
        wanted = f"{name}_fp16" if half else name
        if wanted not in self._tensors:
            tensor = self._initializers[name]
            self._tensors[wanted] = _halved(tensor, wanted) if half else tensor
        return wanted

    def _casted(self, name: str, *, half: bool) -> str:
        wanted = f"{name}_{'fp16' if half else 'fp32'}"
        if wanted not in self._cast:
            self._cast.add(wanted)
            self.nodes.append(helper.make_node("Cast", [name], [wanted], wanted, to=HALF if half else SINGLE))
        return wanted

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        for value in self.graph.output:
            if value.name in self._halves:
                self._restore(value.name)
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for part, content in (
            ("node", self.nodes),
            ("initializer", [*self._tensors.values()]),
            ("value_info", []),
        ):
            made.graph.ClearField(part)
            getattr(made.graph, part).extend(content)
        return made

    def _restore(self, output: str) -> None:
        """Give an output of the graph in FP32 again."""
        inner = f"{output}_fp16"
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == output:
                        names[place] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [output], f"{output}_fp32", to=SINGLE))


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """An FP32 tensor in FP16. A constant beyond the range, such as a mask's, becomes the largest number.

    Raises:
        ExportError: a weight is beyond the range.
    """
    array = numpy_helper.to_array(tensor)
    finite, size = np.isfinite(array), np.abs(array)
    if name.startswith(PREFIX) and ((size > LARGEST) & (size < _MASK)).any():
        raise ExportError(f"it has weights beyond {LARGEST:.0f}, the largest number of FP16")
    bounded = np.where(finite, np.clip(array, -LARGEST, LARGEST), array)
    return numpy_helper.from_array(bounded.astype(np.float16), name)
