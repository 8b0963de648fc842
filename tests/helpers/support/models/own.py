"""Files that people bring: checkpoints of three classes, and ONNX graphs with and without faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.weights import SEED
from export.yolo11 import architecture
from export.yolo11.records import Array, Record, Tensor
from support.models.checkpoints import network, write

NAMES = {0: "person", 1: "bicycle", 2: "car"}


def three_classes(path: Path, model: Record | None = None, names: Mapping[int, str] = NAMES) -> Path:
    """A checkpoint of the network's first three classes; by default of a random one."""
    kept = loaded(architecture.random("n", SEED) if model is None else model)
    head = kept.child("model").children()[-1]
    for branch in head.child("cv3").children():
        parameters = branch.children()[-1].state["_parameters"]
        for name, value in parameters.items():
            parameters[name] = np.ascontiguousarray(value[: len(names)])
    head.state.update(nc=len(names))
    return write(path, network(kept, dict(names)))


def loaded(value: Any) -> Any:
    """A copy of a network with all tensors in memory, and without what only training needs."""
    if isinstance(value, Tensor):
        return np.array(value.array(), np.float32 if value.array().dtype.kind == "f" else None)
    if isinstance(value, Record):
        state = {key: loaded(item) for key, item in value.state.items() if key in _KEPT}
        return Record(value.kind, state)
    if isinstance(value, dict):
        return {key: loaded(item) for key, item in value.items()}
    return [loaded(item) for item in value] if isinstance(value, list) else value


_KEPT = frozenset(
    {
        "_modules", "_parameters", "_buffers", "f", "i", "type", "nc", "reg_max", "stride", "padding", "dilation",
        "groups", "eps", "add", "kernel_size", "scale_factor", "mode", "d", "num_heads", "key_dim", "head_dim", "scale",
        "n", "ceil_mode", "padding_mode", "yaml", "inplace", "c",
    }
)  # fmt: skip


def detector(
    path: Path,
    side: int | None = None,
    classes: int = 2,
    notes: Mapping[str, str] | None = None,
    more: tuple[Any, ...] = (),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    batch: int | str = 1,
    *,
    pixels: bool = False,
) -> Path:
    """A graph `[batch, 3, side, side]` -> `[1, 4 + classes, anchors]`, of any side where none is given.

    With `pixels` it takes `[batch, side, side, 3]` UINT8.
    `more` are further outputs: pairs of a node and a value.
    """
    generator = np.random.default_rng(classes)
    sides: list[int | str] = ["height", "width"] if side is None else [side, side]
    nodes, parts = [], []
    tensors = [numpy_helper.from_array(np.array([1, 4 + classes, -1], np.int64), "rows")]
    first = "images" if kind == TensorProto.FLOAT else "cast"
    shape: list[int | str] = [batch, 3, *sides]
    if pixels:
        kind, shape = TensorProto.UINT8, [batch, *sides, 3]
        nodes += [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planar"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["planar", "white"], ["cast"]),
        ]
        tensors.append(numpy_helper.from_array(np.array(255, np.float32), "white"))
        first = "cast"
    elif kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT))
    for stride in (8, 16, 32):
        weight = generator.random((4 + classes, 3, 1, 1)).astype(np.float32)
        weight[4:] = weight[4:] / 9
        tensors += [
            numpy_helper.from_array(weight, f"w{stride}"),
            numpy_helper.from_array(_bias(classes), f"b{stride}"),
        ]
        nodes += [
            helper.make_node(
                "AveragePool", [first], [f"m{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            ),
            helper.make_node("Conv", [f"m{stride}", f"w{stride}", f"b{stride}"], [f"c{stride}"]),
            helper.make_node("Reshape", [f"c{stride}", "rows"], [f"p{stride}"]),
        ]
        parts.append(f"p{stride}")
    nodes.append(helper.make_node("Concat", parts, ["out"], axis=2))
    nodes += [node for node, _ in more]
    anchors = "anchors" if side is None else 21 * (side // 32) ** 2
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", kind, shape)],
        [
            helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 4 + classes, anchors]),
            *(v for _, v in more),
        ],
        tensors,
    )
    return save(path, graph, notes, opset)


def _bias(classes: int) -> Array:
    return np.concatenate([np.full(4, 20, np.float32), np.full(classes, 0.2, np.float32)])


def save(path: Path, graph: Any, notes: Mapping[str, str] | None = None, opset: int = 17) -> Path:
    """A graph as a file, with notes as Ultralytics writes them."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


def answering(path: Path, shape: list[int | str]) -> Path:
    """A graph whose one output is declared as `shape`."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
            helper.make_node("Expand", ["mean", "s"], ["o"]),
        ],
        "other",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([s if isinstance(s, int) else 1 for s in shape], np.int64), "s")],
    )
    return save(path, graph)
