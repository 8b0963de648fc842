"""YOLO11 as an ONNX graph: normalisations folded into the convolutions, one fixed size, the same bytes every time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError
from export.graphs import value_info
from export.sharing import LEAST_BYTES, PREFIX
from export.yolo11.network import Convolution, Network, Norm, Shape
from export.yolo11.records import Array, Record
from routing.catalogue import ModelSpec

IR_VERSION = 8  # of ONNX 1.13: every ONNX Runtime since 2023 reads it
_MOST_BYTES = 1 << 30
_MOST_NUMBERS = 1 << 32  # in all tensors of a run; yolo11x at 960 has a quarter of it


def build(model: Record, spec: ModelSpec, opset: int) -> bytes:
    """The graph of a network with the inputs and outputs of `spec`.

    Raises:
        ExportError: the network is no YOLO11.
    """
    graph = Graph()
    image, answer = spec.inputs[0], spec.outputs[0]
    last = Network(graph).run(model, Node(image.name, image.shape))
    if last.shape != answer.shape:
        raise ExportError(
            f"{spec.name}: the network answers {list(last.shape)}, the catalogue says {answer.shape}"
        )
    if graph.nodes[-1].output[0] != last.name:
        raise ExportError(f"{spec.name}: the network doesn't end in its head")
    graph.nodes[-1].output[0] = answer.name
    onnx_graph = helper.make_graph(
        graph.nodes, "yolo11", [value_info(image)], [value_info(answer)], list(graph.tensors.values())
    )
    made = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="triton-vision-gateway",
    )
    return bytes(made.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True)
class Node:
    """The output of a node: its name in the graph, and its shape."""

    name: str
    shape: Shape


@dataclass(slots=True)
class Graph:
    """Operations that add nodes. Nodes are numbered as they come, weights are named by their bytes."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    size: int = 0
    numbers: int = 0

    def convolve(self, x: Node, convolution: Convolution, norm: Norm | None) -> Node:
        weight, bias = folded(convolution, norm)
        top, left = convolution.padding
        inputs = [x.name, self._constant(weight)]
        return self._node(
            "Conv",
            inputs if bias is None else [*inputs, self._constant(bias)],
            _convolved(x.shape, convolution),
            dilations=convolution.dilation,
            group=convolution.groups,
            kernel_shape=weight.shape[2:],
            pads=(top, left, top, left),
            strides=convolution.stride,
        )

    def add(self, x: Node, y: Node | Array) -> Node:
        return self._binary("Add", x, y)

    def subtract(self, x: Node | Array, y: Node) -> Node:
        return self._binary("Sub", x, y)

    def multiply(self, x: Node, y: Node | Array) -> Node:
        return self._binary("Mul", x, y)

    def divide(self, x: Node, y: Array) -> Node:
        return self._binary("Div", x, y)

    def matmul(self, x: Node, y: Node) -> Node:
        return self._node("MatMul", [x.name, y.name], (*x.shape[:-1], y.shape[-1]))

    def sigmoid(self, x: Node) -> Node:
        return self._node("Sigmoid", [x.name], x.shape)

    def leaky_relu(self, x: Node, slope: float) -> Node:
        if slope == 0:
            return self._node("Relu", [x.name], x.shape)
        return self._node("LeakyRelu", [x.name], x.shape, alpha=slope)

    def softmax(self, x: Node, axis: int) -> Node:
        return self._node("Softmax", [x.name], x.shape, axis=axis)

    def concat(self, parts: Sequence[Node], axis: int) -> Node:
        rests = {(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
        if len(rests) != 1 or axis >= len(parts[0].shape):
            raise ExportError("it joins layers of different sizes (is the input's side a multiple of 32?)")
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self._node("Concat", [part.name for part in parts], tuple(shape), axis=axis)

    def split(self, x: Node, sizes: Sequence[int], axis: int) -> list[Node]:
        if sum(sizes) != x.shape[axis]:
            raise ExportError("it splits a layer into parts that aren't the whole")
        number = len(self.nodes)
        parts = [
            Node(f"Split_{number}_{i}", (*x.shape[:axis], size, *x.shape[axis + 1 :]))
            for i, size in enumerate(sizes)
        ]
        inputs = [x.name, self._constant(np.array(sizes, np.int64))]
        outputs = [part.name for part in parts]
        self.nodes.append(helper.make_node("Split", inputs, outputs, f"Split_{number}", axis=axis))
        return parts

    def reshape(self, x: Node, shape: Shape) -> Node:
        if math.prod(shape) != math.prod(x.shape):
            raise ExportError(f"a layer of shape {list(x.shape)} stands where one of {list(shape)} is needed")
        return self._node("Reshape", [x.name, self._constant(np.array(shape, np.int64))], shape)

    def transpose(self, x: Node, order: Sequence[int]) -> Node:
        return self._node("Transpose", [x.name], tuple(x.shape[i] for i in order), perm=order)

    def max_pool(self, x: Node, kernel: int, stride: int, padding: int) -> Node:
        size = [(side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:]]
        return self._node(
            "MaxPool",
            [x.name],
            (*x.shape[:2], *size),
            kernel_shape=[kernel] * 2,
            pads=[padding] * 4,
            strides=[stride] * 2,
        )

    def upsample(self, x: Node, factor: int) -> Node:
        scales = np.array([1, 1, factor, factor], np.float32)
        return self._node(
            "Resize",
            [x.name, "", self._constant(scales)],
            (*x.shape[:2], x.shape[2] * factor, x.shape[3] * factor),
            coordinate_transformation_mode="asymmetric",
            mode="nearest",
            nearest_mode="floor",
        )

    def _binary(self, operation: str, x: Node | Array, y: Node | Array) -> Node:
        names = [value.name if isinstance(value, Node) else self._constant(value) for value in (x, y)]
        return self._node(operation, names, np.broadcast_shapes(x.shape, y.shape))

    def _node(self, operation: str, inputs: Sequence[str], shape: Shape, **attributes: Any) -> Node:
        self.numbers += math.prod(shape)
        if self.numbers > _MOST_NUMBERS:
            raise ExportError("it computes more numbers than any YOLO11")
        name = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [name], name, **attributes))
        return Node(name, shape)

    def _constant(self, array: Array) -> str:
        """The name of a constant. Large weights, which all sizes have in common, get one that lets them be shared."""
        content = np.ascontiguousarray(array).reshape(array.shape)
        digest = hashlib.sha256(content.tobytes()).hexdigest()[:24]
        shape = "x".join(map(str, array.shape))
        weight = array.ndim in {1, 4} and array.dtype == np.float32 and content.nbytes >= LEAST_BYTES
        name = f"{PREFIX if weight else f'{array.dtype}_'}{digest}_{shape}"
        if name not in self.tensors:
            self.size += content.nbytes
            if self.size > _MOST_BYTES:
                raise ExportError(f"it has more than {_MOST_BYTES >> 20} MiB of weights")
            self.tensors[name] = numpy_helper.from_array(content, name)
        return name


def folded(convolution: Convolution, norm: Norm | None) -> tuple[Array, Array | None]:
    """Weight and bias of a convolution that does the normalisation after it, too.

    Raises:
        ExportError: they have different channels, or aren't finite.
    """
    weight, bias = convolution.weight, convolution.bias
    if norm is not None:
        tensors = (norm.gamma, norm.beta, norm.mean, norm.variance)
        if any(tensor.shape != weight.shape[:1] for tensor in tensors) or (norm.variance < 0).any():
            raise ExportError("a batch normalisation doesn't fit its convolution")
        scale = np.float32(1) / np.sqrt(norm.variance + np.float32(norm.epsilon))
        centred = -norm.mean if bias is None else bias - norm.mean
        bias = centred * scale * norm.gamma + norm.beta
        weight = weight * (norm.gamma * scale).reshape(-1, 1, 1, 1)
    if not (np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())):
        raise ExportError("it has weights that aren't finite")
    return weight, bias


def _convolved(shape: Shape, convolution: Convolution) -> Shape:
    sides = [
        (side + 2 * pad - step * (kernel - 1) - 1) // stride + 1
        for side, pad, step, kernel, stride in zip(
            shape[2:], convolution.padding, convolution.dilation, convolution.weight.shape[2:], convolution.stride,
            strict=True,
        )
    ]  # fmt: skip
    if min(sides) < 1:
        raise ExportError("its input is smaller than its strides")
    return (shape[0], len(convolution.weight), *sides)
