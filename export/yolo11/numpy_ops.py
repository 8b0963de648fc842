"""The operations of YOLO11 in NumPy and double precision, unfolded: what the graph is compared with.

Slow on purpose: nothing is folded, fused or shared with `export.yolo11.graph`, so that their agreement says something.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.yolo11.network import Convolution, Norm, Shape
from export.yolo11.records import Array


class Numpy:
    """`Ops` over arrays of float64."""

    def convolve(self, x: Array, convolution: Convolution, norm: Norm | None) -> Array:
        y = convolve(x, convolution)
        return y if norm is None else self.normalise(y, norm)

    def normalise(self, x: Array, norm: Norm) -> Array:
        centred = (x - _channels(norm.mean)) / np.sqrt(_channels(norm.variance) + norm.epsilon)
        return centred * _channels(norm.gamma) + _channels(norm.beta)

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def subtract(self, x: Array, y: Array) -> Array:
        return x - y

    def multiply(self, x: Array, y: Array) -> Array:
        return x * y

    def divide(self, x: Array, y: Array) -> Array:
        return x / y

    def matmul(self, x: Array, y: Array) -> Array:
        return x @ y

    def sigmoid(self, x: Array) -> Array:
        half: Array = 0.5 * np.tanh(0.5 * x)
        return half + 0.5

    def leaky_relu(self, x: Array, slope: float) -> Array:
        return np.where(x > 0, x, slope * x)

    def softmax(self, x: Array, axis: int) -> Array:
        powers: Array = np.exp(x - x.max(axis, keepdims=True))
        powers /= powers.sum(axis, keepdims=True)
        return powers

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        return np.concatenate(parts, axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int) -> list[Array]:
        return np.split(x, np.cumsum(sizes)[:-1], axis)

    def reshape(self, x: Array, shape: Shape) -> Array:
        return x.reshape(shape)

    def transpose(self, x: Array, order: Sequence[int]) -> Array:
        return x.transpose(order)

    def max_pool(self, x: Array, kernel: int, stride: int, padding: int) -> Array:
        windows = _windows(
            _padded(x, (padding, padding), -np.inf), (kernel, kernel), (stride, stride), (1, 1)
        )
        highest: Array = windows.max((-1, -2))
        return highest

    def upsample(self, x: Array, factor: int) -> Array:
        return x.repeat(factor, 2).repeat(factor, 3)


def convolve(x: Array, convolution: Convolution) -> Array:
    """`[batch, in, height, width]` convolved, group by group, without normalisation."""
    weight = convolution.weight.astype(np.float64)
    padded = _padded(x, convolution.padding, 0)
    windows = _windows(padded, weight.shape[2:], convolution.stride, convolution.dilation)
    if weight.shape[1] == 1 and convolution.groups == len(weight):
        y: Array = np.einsum("bchwij,cij->bchw", windows, weight[:, 0], optimize=True)
    else:
        count = convolution.groups
        pairs = zip(np.split(windows, count, 1), np.split(weight, count), strict=True)
        groups = [np.tensordot(part, kernels, ((1, 4, 5), (1, 2, 3))) for part, kernels in pairs]
        y = np.concatenate(groups, -1).transpose(0, 3, 1, 2)
    if convolution.bias is not None:
        y = y + _channels(convolution.bias)
    return y


def _channels(values: Array) -> Array:
    return values.astype(np.float64).reshape(1, -1, 1, 1)


def _padded(x: Array, padding: tuple[int, int], value: float) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=value)


def _windows(x: Array, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int]) -> Array:
    """Every window `[batch, channels, rows, columns, height, width]` of a padded input, without a copy."""
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True))
    views: Array = np.lib.stride_tricks.sliding_window_view(x, spans, (2, 3))
    windows: Array = views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows
