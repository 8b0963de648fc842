"""Location of the external weights in a serialised ONNX model. Reads protobuf by hand: serving needs no `onnx`.

Source: onnx.proto3 (field numbers of ModelProto, GraphProto, TensorProto, StringStringEntryProto).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_GRAPH, _INITIALIZER = 7, 5  # of ModelProto, of GraphProto
_DIMS, _TYPE, _NAME, _EXTERNAL = 1, 2, 8, 13  # of TensorProto
_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor of a graph, and its bytes in the file beside the graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def external(model: bytes) -> list[Initializer]:
    """Return the initializers of the main graph that lie in a file of their own.

    Raises:
        ValueError: it is no ONNX model, or a tensor is of a type that isn't known here.
    """
    try:
        return [
            tensor
            for number, graph in _fields(model, (0, len(model)))
            if number == _GRAPH and isinstance(graph, tuple)
            for key, span in _fields(model, graph)
            if key == _INITIALIZER and isinstance(span, tuple)
            for tensor in _tensor(model, span)
        ]
    except (IndexError, KeyError) as error:
        raise ValueError("no ONNX model with external weights of known types") from error


def _tensor(model: bytes, span: _Span) -> Iterator[Initializer]:
    """The tensor if it is external; nothing otherwise."""
    name, kind, shape, places = "", 0, list[int](), dict[str, str]()
    for number, value in _fields(model, span):
        if number == _DIMS:
            shape += _numbers(model, value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _NAME:
            name = _text(model, value)
        elif number == _EXTERNAL and isinstance(value, tuple):
            entry = {key: _text(model, text) for key, text in _fields(model, value)}
            places[entry[1]] = entry.get(2, "")
    if not places:
        return
    dtype, offset, length = _TYPES[kind], int(places.get("offset", "0")), int(places["length"])
    if min(offset, *shape, 0) < 0 or length != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{name}: its bytes aren't those of its shape")
    yield Initializer(name, dtype, tuple(shape), offset, length)


def _fields(content: bytes, span: _Span) -> Iterator[tuple[int, int | _Span]]:
    """Field numbers and values of a message: numbers as they are, everything else as where it lies."""
    at, end = span
    while at < end:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(content, at)
        else:
            length = {1: 8, 5: 4}[kind]
        if at + length > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, (at, at + length)
        at += length


def _numbers(content: bytes, value: int | _Span) -> list[int]:
    """A repeated number, packed or not."""
    if isinstance(value, int):
        return [value]
    found, (at, end) = [], value
    while at < end:
        number, at = _varint(content, at)
        found.append(number)
    return found


def _text(content: bytes, value: int | _Span) -> str:
    return "" if isinstance(value, int) else content[slice(*value)].decode()


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits per byte, and where the next field begins."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
