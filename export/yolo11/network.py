"""The computation that a tree of modules describes, written once over exchangeable operations.

`Graph` (`export.yolo11.graph`) writes it down as ONNX, `Numpy` (`export.yolo11.numpy_ops`) carries it out. The layers
are those of Ultralytics YOLO11 (Jocher and Qiu, 2024). Distances are means of distributions, as in Li et al.,
"Generalized Focal Loss" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from export.errors import ExportError
from export.yolo11.records import Array, Record

_MOST_VISITS = 20_000  # yolo11x has 1,200 modules; a file may name one module in many places
_DEEPEST = 24
_STRIDE = 32

Shape = tuple[int, ...]


class Value(Protocol):
    """A tensor `[batch, channels, …]` of whichever operations."""

    @property
    def shape(self) -> Shape: ...


V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with zeros around: weight `[out, in / groups, height, width]` FP32, bias `[out]`."""

    weight: Array
    bias: Array | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch normalisation in evaluation: every tensor is `[channels]` FP32. `record` is where it comes from."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float
    record: Record


class Ops(Protocol[V]):
    """The operations, as ONNX defines those of the same names. A second operand may be a constant array."""

    def convolve(self, x: V, convolution: Convolution, norm: Norm | None) -> V: ...
    def add(self, x: V, y: V | Array) -> V: ...
    def subtract(self, x: V | Array, y: V) -> V: ...
    def multiply(self, x: V, y: V | Array) -> V: ...
    def divide(self, x: V, y: Array) -> V: ...
    def matmul(self, x: V, y: V) -> V: ...
    def sigmoid(self, x: V) -> V: ...
    def leaky_relu(self, x: V, slope: float) -> V: ...
    def softmax(self, x: V, axis: int) -> V: ...
    def concat(self, parts: Sequence[V], axis: int) -> V: ...
    def split(self, x: V, sizes: Sequence[int], axis: int) -> list[V]: ...
    def reshape(self, x: V, shape: Shape) -> V: ...
    def transpose(self, x: V, order: Sequence[int]) -> V: ...
    def max_pool(self, x: V, kernel: int, stride: int, padding: int) -> V: ...
    def upsample(self, x: V, factor: int) -> V: ...


@dataclass(slots=True)
class Network(Generic[V]):
    """Runs a `DetectionModel` over `ops`."""

    ops: Ops[V]
    visits: int = 0
    depth: int = 0
    _kinds: Mapping[str, Callable[[Record, Any], V]] = field(init=False)

    def __post_init__(self) -> None:
        self._kinds = {
            "Conv": self._conv,
            "DWConv": self._conv,
            "Conv2d": self._conv2d,
            "Sequential": self._sequential,
            "Identity": lambda _, x: x,
            "SiLU": lambda _, x: self.ops.multiply(x, self.ops.sigmoid(x)),
            "Sigmoid": lambda _, x: self.ops.sigmoid(x),
            "ReLU": lambda _, x: self.ops.leaky_relu(x, 0.0),
            "LeakyReLU": lambda m, x: self.ops.leaky_relu(x, float(m.state["negative_slope"])),
            "Bottleneck": self._bottleneck,
            "C3k": self._c3k,
            "C3k2": self._c3k2,
            "SPPF": self._sppf,
            "MaxPool2d": self._max_pool,
            "C2PSA": self._c2psa,
            "PSABlock": self._psa_block,
            "Attention": self._attention,
            "Upsample": self._upsample,
            "Concat": self._concat,
            "Detect": self._detect,
        }

    def run(self, model: Record, images: V) -> V:
        """The answer `[batch, 4 + classes, anchors]` to images: boxes as centre, width and height, then scores.

        Raises:
            ExportError: the modules don't fit together, or one isn't YOLO11's.
        """
        try:
            return self._layers(model, images)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ExportError("its modules don't fit together as those of YOLO11 do") from error

    def _layers(self, model: Record, x: Any) -> V:
        done: list[Any] = []
        for layer in model.child("model").children():
            sources = layer.state["f"]
            if isinstance(sources, list | tuple):
                x = [x if source == -1 else done[source] for source in sources]
            elif sources != -1:
                x = done[sources]
            x = self.module(layer, x)
            done.append(x)
        result: V = x
        return result

    def module(self, module: Record, x: Any) -> V:
        """The output of one module.

        Raises:
            ExportError: YOLO11 has none of its kind.
        """
        self.visits += 1
        if module.kind not in self._kinds:
            raise ExportError(f"it has a layer {module.kind}, which can't be exported")
        if self.visits > _MOST_VISITS or self.depth > _DEEPEST:
            raise ExportError("it has more modules than any YOLO11")
        self.depth += 1
        result = self._kinds[module.kind](module, x)
        self.depth -= 1
        return result

    def part(self, module: Record, name: str, x: Any) -> V:
        return self.module(module.child(name), x)

    def _conv(self, module: Record, x: V) -> V:
        y = self.ops.convolve(x, _convolution(module.child("conv"), x), _norm(module.find("bn")))
        return self.part(module, "act", y)

    def _conv2d(self, module: Record, x: V) -> V:
        return self.ops.convolve(x, _convolution(module, x), None)

    def _sequential(self, module: Record, x: V) -> V:
        for child in module.children():
            x = self.module(child, x)
        return x

    def _bottleneck(self, module: Record, x: V) -> V:
        y = self.part(module, "cv2", self.part(module, "cv1", x))
        return self.ops.add(x, y) if module.state["add"] else y

    def _c3k(self, module: Record, x: V) -> V:
        left = self.part(module, "m", self.part(module, "cv1", x))
        return self.part(module, "cv3", self.ops.concat([left, self.part(module, "cv2", x)], 1))

    def _c3k2(self, module: Record, x: V) -> V:
        y = self.part(module, "cv1", x)
        parts = self.ops.split(y, [y.shape[1] // 2] * 2, 1)
        for child in module.child("m").children():
            parts.append(self.module(child, parts[-1]))
        return self.part(module, "cv2", self.ops.concat(parts, 1))

    def _sppf(self, module: Record, x: V) -> V:
        parts = [self.part(module, "cv1", x)]
        for _ in range(_natural(module.state.get("n", 3))):
            parts.append(self.part(module, "m", parts[-1]))
        y = self.part(module, "cv2", self.ops.concat(parts, 1))
        return self.ops.add(y, x) if module.state.get("add") else y

    def _max_pool(self, module: Record, x: V) -> V:
        state = module.state
        if state.get("ceil_mode") or _pair(state.get("dilation", 1)) != (1, 1):
            raise ExportError("it has a MaxPool2d that rounds up or is dilated, which can't be exported")
        kernel, stride, padding = (_pair(state[name]) for name in ("kernel_size", "stride", "padding"))
        if any(first != second for first, second in (kernel, stride, padding)):
            raise ExportError("it has a MaxPool2d that isn't square, which can't be exported")
        return self.ops.max_pool(x, kernel[0], stride[0], padding[0])

    def _c2psa(self, module: Record, x: V) -> V:
        y = self.part(module, "cv1", x)
        left, right = self.ops.split(y, [y.shape[1] // 2] * 2, 1)
        return self.part(module, "cv2", self.ops.concat([left, self.part(module, "m", right)], 1))

    def _psa_block(self, module: Record, x: V) -> V:
        for name in ("attn", "ffn"):
            y = self.part(module, name, x)
            x = self.ops.add(x, y) if module.state["add"] else y
        return x

    def _attention(self, module: Record, x: V) -> V:
        """Attention between all places, by heads, plus a depthwise convolution of the values as their position."""
        heads, key, head = (_natural(module.state[name]) for name in ("num_heads", "key_dim", "head_dim"))
        batch, channels, height, width = x.shape
        qkv = self.ops.reshape(self.part(module, "qkv", x), (batch, heads, 2 * key + head, height * width))
        query, keys, values = self.ops.split(qkv, [key, key, head], 2)
        scaled = self.ops.multiply(query, _scalar(module.state["scale"]))
        weights = self.ops.softmax(self.ops.matmul(self.ops.transpose(scaled, (0, 1, 3, 2)), keys), -1)
        mixed = self.ops.matmul(values, self.ops.transpose(weights, (0, 1, 3, 2)))
        square = (batch, channels, height, width)
        position = self.part(module, "pe", self.ops.reshape(values, square))
        return self.part(module, "proj", self.ops.add(self.ops.reshape(mixed, square), position))

    def _upsample(self, module: Record, x: V) -> V:
        factor = module.state["scale_factor"]
        if module.state["mode"] != "nearest" or factor != int(factor) or not 1 <= factor <= 8:
            raise ExportError(
                "it has an Upsample other than by whole numbers and nearest, which can't be exported"
            )
        return self.ops.upsample(x, int(factor))

    def _concat(self, module: Record, parts: list[V]) -> V:
        return self.ops.concat(parts, _natural(module.state["d"]))

    def _detect(self, module: Record, levels: list[V]) -> V:
        batch, bins = levels[0].shape[0], _natural(module.state["reg_max"])
        distances = self._head(module, "cv2", levels, 4 * bins)
        scores = self.ops.sigmoid(self._head(module, "cv3", levels, _natural(module.state["nc"])))
        count = distances.shape[2]
        by_bin = self.ops.transpose(self.ops.reshape(distances, (batch, 4, bins, count)), (0, 2, 1, 3))
        mean = self.part(module.child("dfl"), "conv", self.ops.softmax(by_bin, 1))
        left_top, right_bottom = self.ops.split(self.ops.reshape(mean, (batch, 4, count)), [2, 2], 1)
        anchors, strides = _anchors([level.shape[-1] for level in levels], _strides(module))
        first = self.ops.subtract(anchors, left_top)
        second = self.ops.add(right_bottom, anchors)
        centre = self.ops.divide(self.ops.add(first, second), _scalar(2))
        boxes = self.ops.concat([centre, self.ops.subtract(second, first)], 1)
        return self.ops.concat([self.ops.multiply(boxes, strides), scores], 1)

    def _head(self, module: Record, name: str, levels: list[V], channels: int) -> V:
        """Outputs of the head's branches, all levels in a row: `[batch, channels, anchors]`."""
        branches = module.child(name).children()
        parts = []
        for branch, level in zip(branches, levels, strict=True):
            y = self.module(branch, level)
            parts.append(self.ops.reshape(y, (y.shape[0], channels, y.shape[2] * y.shape[3])))
        return self.ops.concat(parts, 2)


def _convolution(module: Record, x: Value) -> Convolution:
    state, weight = module.state, module.need("weight")
    if state.get("padding_mode", "zeros") != "zeros":
        raise ExportError("it has a Conv2d with other padding than zeros, which can't be exported")
    stride, padding, dilation = (_pair(state[name]) for name in ("stride", "padding", "dilation"))
    convolution = Convolution(
        weight, module.tensor("bias"), stride, padding, dilation, _natural(state["groups"])
    )
    fits = weight.ndim == 4 and weight.shape[1] * convolution.groups == x.shape[1]
    if not fits or weight.shape[0] % convolution.groups or 0 in (*weight.shape, *stride, *dilation):
        raise ExportError(f"a convolution {weight.shape} doesn't fit its input of {x.shape[1]} channels")
    if convolution.bias is not None and convolution.bias.shape != weight.shape[:1]:
        raise ExportError("a convolution has another number of biases than of channels")
    return convolution


def _norm(module: Record | None) -> Norm | None:
    if module is None or module.kind == "Identity":
        return None
    mean, variance = module.need("running_mean"), module.need("running_var")
    gamma, beta = module.tensor("weight"), module.tensor("bias")
    return Norm(
        np.ones_like(mean) if gamma is None else gamma,
        np.zeros_like(mean) if beta is None else beta,
        mean,
        variance,
        float(module.state["eps"]),
        module,
    )


def _strides(head: Record) -> list[int]:
    strides = head.need("stride") if head.tensor("stride") is not None else _plain(head.state["stride"])
    whole = [int(stride) for stride in np.atleast_1d(strides)]
    if not all(1 <= stride <= 1024 for stride in whole):
        raise ExportError("its head has strides that are no strides")
    return whole


def _plain(tensor: Any) -> Array:
    return np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.array(), np.float32)


def _anchors(sides: Sequence[int], strides: Sequence[int]) -> tuple[Array, Array]:
    """The centres of the cells, `[1, 2, anchors]` in cells as x and y, and the strides `[1, anchors]` in pixels."""
    centres = [np.arange(side, dtype=np.float32) + np.float32(0.5) for side in sides]
    grids = [np.stack(np.meshgrid(c, c)).reshape(2, -1) for c in centres]
    steps = [
        np.full((1, side * side), stride, np.float32) for side, stride in zip(sides, strides, strict=True)
    ]
    return np.concatenate(grids, 1)[None], np.concatenate(steps, 1)


def _scalar(value: float) -> Array:
    return np.array(value, np.float32)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 1 << 20:
        raise ValueError("no natural number")
    return value


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return _natural(first), _natural(second)
