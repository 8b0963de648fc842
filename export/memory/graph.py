"""Sizes of a graph's tensors, and the order in which its nodes make and drop them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

# The output is the input under another shape.
_ALIASES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})
# The output may take the place of an input that nobody needs any more.
_IN_PLACE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Ceil", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu",
        "HardSigmoid", "HardSwish", "InstanceNormalization", "LeakyRelu", "Log", "Max", "Min", "Mul", "Neg", "PRelu",
        "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Sub", "Sum", "Tanh",
        "Where",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Bytes and shape of a tensor."""

    size: int
    shape: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Buffer:
    """Memory from one node to another; `names` are the tensors that are in it now."""

    tensor: Tensor
    first: int
    last: int = -1
    names: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Step:
    """One node: the buffers that it takes (number and bytes), and those that are free after it."""

    taken: tuple[tuple[int, int], ...]
    freed: tuple[int, ...]


def tensor_bytes(kind: int, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of an ONNX type."""
    itemsize: int = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize
    return math.prod(shape) * itemsize


def initializer_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a parameter, wherever they are."""
    return tensor_bytes(tensor.data_type, tuple(tensor.dims))


def shared_files(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of the parameters in files beside the graph, by file."""
    found: dict[str, int] = {}
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                found[entry.value] = found.get(entry.value, 0) + initializer_bytes(tensor)
    return found


def tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Return every tensor whose type and shape are known, by name."""
    known = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _fixed_shape(value)
        if shape is not None:
            known[value.name] = Tensor(tensor_bytes(value.type.tensor_type.elem_type, shape), shape)
    return known


def _fixed_shape(value: Any) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return None if any(side < 0 for side in shape) else shape


def constants(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that are there before the first node runs: parameters, and what follows from them alone."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in found or not name for name in node.input):
            found |= set(node.output)
    return found


class Liveness:
    """The buffers of one run, as ONNX Runtime's planner assigns them.

    A tensor takes the place of an input that dies with the node, if the node can compute in place; else a buffer of the
    same shape that is free; else a buffer of its own. A buffer is given back to the arena after its last tensor, so a
    shape that comes again later keeps it until then.

    Args:
        graph: with a topological order of nodes.
        known: its tensors; others count as empty.
    """

    def __init__(self, graph: onnx.GraphProto, known: Mapping[str, Tensor]) -> None:
        self._known = known
        ready = constants(graph)
        self._nodes = [node for node in graph.node if node.output[0] not in ready]
        self._last = {
            name: place for place, node in enumerate(self._nodes) for name in (*node.output, *node.input)
        }
        self._last |= {value.name: len(self._nodes) for value in graph.output}
        self._buffers: list[_Buffer] = []
        self._of: dict[str, _Buffer] = {}
        self._free: list[_Buffer] = []  # the one that became free last is first
        for value in graph.input:
            if value.name not in ready:
                self._join(value.name, self._new(value.name, -1))
        for place, node in enumerate(self._nodes):
            self._plan(place, node)

    def steps(self) -> Iterator[Step]:
        """Inputs first, then node by node; outputs stay until the end."""
        for place in range(-1, len(self._nodes)):
            taken = tuple((n, b.tensor.size) for n, b in enumerate(self._buffers) if b.first == place)
            freed = tuple(n for n, b in enumerate(self._buffers) if b.last == place)
            yield Step(taken, freed)

    def _plan(self, place: int, node: onnx.NodeProto) -> None:
        for number, name in enumerate(node.output):
            if name:
                reused = self._in_place(place, node, name) if number == 0 else None
                self._join(name, reused or self._reused(name) or self._new(name, place))
        for name in dict.fromkeys((*node.input, *node.output)):
            buffer = self._of.get(name)
            if buffer is not None and self._last[name] == place and name in buffer.names:
                buffer.names.remove(name)
                if not buffer.names and buffer.first >= 0:
                    self._free.insert(0, buffer)

    def _new(self, name: str, place: int) -> _Buffer:
        self._buffers.append(_Buffer(self._known.get(name, Tensor(0, ())), place))
        return self._buffers[-1]

    def _join(self, name: str, buffer: _Buffer) -> None:
        self._of[name] = buffer
        buffer.names.add(name)
        buffer.last = max(buffer.last, self._last.get(name, -1))

    def _reused(self, name: str) -> _Buffer | None:
        """A free buffer of the same shape."""
        found = next((buffer for buffer in self._free if buffer.tensor == self._known.get(name)), None)
        if found is not None:
            self._free.remove(found)
        return found

    def _in_place(self, place: int, node: onnx.NodeProto, output: str) -> _Buffer | None:
        """The buffer of an input that the output can take over."""
        if node.op_type in _ALIASES:
            return self._of.get(node.input[0])
        if node.op_type not in _IN_PLACE:
            return None
        for name in node.input:
            buffer = self._of.get(name)
            same = self._known.get(name) == self._known.get(output)
            if buffer is not None and same and buffer.names == {name} and self._last[name] == place:
                return buffer
        return None
