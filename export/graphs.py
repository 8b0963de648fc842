"""Contract of every graph of the repository."""

from __future__ import annotations

from typing import Any

import onnx

from export.errors import ExportError
from routing.catalogue import ModelSpec, TensorSpec

ELEMENT_TYPES = {
    "FP32": onnx.TensorProto.FLOAT,
    "UINT8": onnx.TensorProto.UINT8,
    "INT64": onnx.TensorProto.INT64,
}


def check_contract(model: onnx.ModelProto, spec: ModelSpec, opset: int | None) -> None:
    """Inputs and outputs have the names, types and fixed shapes of the catalogue, and none has a dynamic axis.

    Raises:
        ExportError: they don't.
    """
    onnx.checker.check_model(model)
    for side, wanted in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        there = [_tensor(value) for value in getattr(model.graph, side[:-1])]
        expected = [(t.name, ELEMENT_TYPES[t.datatype], t.shape) for t in wanted]
        if there != expected:
            raise ExportError(f"{spec.name}: the graph's {side} are {there}, the catalogue says {expected}")
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if opset is not None and opsets != [opset]:
        raise ExportError(f"{spec.name}: opset {opsets}, not {opset}")


def _tensor(value: Any) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return value.name, tensor.elem_type, shape


def value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    """A tensor of a contract as ONNX writes it."""
    return onnx.helper.make_tensor_value_info(tensor.name, ELEMENT_TYPES[tensor.datatype], tensor.shape)
