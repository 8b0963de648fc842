"""A graph that isn't the catalogue's is refused."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from onnx import helper

from export.errors import ExportError
from export.graphs import check_contract, value_info
from routing.catalogue import ModelSpec, TensorSpec

SPEC = ModelSpec(
    "doubler", "onnx", (TensorSpec("images", "FP32", (1, 3)),), (TensorSpec("output0", "FP32", (1, 3)),)
)


def _model(spec: ModelSpec = SPEC, opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node("Add", [spec.inputs[0].name] * 2, [spec.outputs[0].name])
    graph = helper.make_graph([node], "g", [value_info(spec.inputs[0])], [value_info(spec.outputs[0])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_the_contract_is_accepted() -> None:
    """Equal names, types, shapes and opset pass."""
    check_contract(_model(), SPEC, 17)


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(TensorSpec("other", "FP32", (1, 3)), id="name"),
        pytest.param(TensorSpec("images", "UINT8", (1, 3)), id="type"),
        pytest.param(TensorSpec("images", "FP32", (1, 4)), id="shape"),
        pytest.param(TensorSpec("images", "FP32", (1, 3, 1)), id="rank"),
    ],
)
def test_another_input_is_refused(tensor: TensorSpec) -> None:
    """A graph whose input differs from the catalogue in anything is refused, and the message shows both."""
    with pytest.raises(ExportError, match=r"inputs are .*'images'.*the catalogue says"):
        check_contract(_model(), replace(SPEC, inputs=(tensor,)), 17)


def test_a_dynamic_axis_is_refused() -> None:
    """A named (dynamic) axis is no fixed shape, whatever its name."""
    model = _model()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ExportError, match=r"outputs are .*'batch'"):
        check_contract(model, SPEC, 17)


def test_another_opset_is_refused() -> None:
    """The opset is part of the contract with Triton's ONNX Runtime."""
    with pytest.raises(ExportError, match="opset"):
        check_contract(_model(opset=18), SPEC, 17)
