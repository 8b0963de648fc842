"""Sizes of a graph's tensors, and the order in which its nodes make and drop them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


def sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of every tensor whose type and shape are known, by name."""
    known = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _fixed_shape(value)
        if shape is not None:
            known[value.name] = tensor_bytes(value.type.tensor_type.elem_type, shape)
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
    """The buffers of one run, in the order of the nodes.

    Args:
        graph: with a topological order of nodes.
        known: bytes of its tensors; others count as empty.
    """

    def __init__(self, graph: onnx.GraphProto, known: Mapping[str, int]) -> None:
        self._graph = graph
        self._known = known
        self._constants = constants(graph)
        self._last = {
            name: place for place, node in enumerate(graph.node) for name in (*node.output, *node.input)
        }
        self._last |= {value.name: len(graph.node) for value in graph.output}
        self._buffer: dict[str, int] = {}
        self._names: dict[int, set[str]] = {}

    def steps(self) -> Iterator[Step]:
        """Inputs first, then node by node; outputs stay until the end."""
        inputs = [value.name for value in self._graph.input if value.name not in self._constants]
        yield Step(tuple(self._take(name) for name in inputs), ())
        for place, node in enumerate(self._graph.node):
            if node.output[0] not in self._constants:
                yield self._step(place, node)

    def _step(self, place: int, node: onnx.NodeProto) -> Step:
        taken = []
        for number, name in enumerate(node.output):
            reused = self._reused(place, node, name) if number == 0 else None
            if reused is not None:
                self._join(name, reused)
            elif name:
                taken.append(self._take(name))
        dead = [name for name in (*node.input, *node.output) if self._last.get(name) == place]
        return Step(tuple(taken), tuple(self._drop(dead)))

    def _take(self, name: str) -> tuple[int, int]:
        number = len(self._names)
        self._names[number] = set()
        self._join(name, number)
        return number, self._known.get(name, 0)

    def _join(self, name: str, number: int) -> None:
        self._buffer[name] = number
        self._names[number].add(name)

    def _reused(self, place: int, node: onnx.NodeProto, output: str) -> int | None:
        """The buffer that the output can take over."""
        if node.op_type in _ALIASES:
            return self._buffer.get(node.input[0])
        if node.op_type not in _IN_PLACE:
            return None
        for name in node.input:
            number = self._buffer.get(name)
            if (
                number is not None
                and self._names[number] == {name}
                and self._last[name] == place
                and self._known.get(name) == self._known.get(output)
            ):
                return number
        return None

    def _drop(self, dead: list[str]) -> Iterator[int]:
        for name in dict.fromkeys(dead):
            number = self._buffer.get(name)
            if number is not None and name in self._names[number]:
                self._names[number].remove(name)
                if not self._names[number]:
                    yield number
