"""A detector whose runs never end, for the embedded engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from support.models import repository as test_repository
from support.models.repository import CATALOGUE


def endless(models: Path, name: str) -> None:
    """Replace a detector by one whose runs never end."""
    spec = CATALOGUE.branches[name].models[0]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Loop", ["steps", "yes", "mean"], ["sum"], body=body),
        helper.make_node("Expand", ["sum", "shape"], ["output0"]),
    ]
    values = {
        "steps": np.array(1 << 60),
        "yes": np.array(True),
        "one": np.array(1, np.float32),
        "shape": np.array(spec.outputs[0].shape),
    }
    constants = [numpy_helper.from_array(value, key) for key, value in values.items()]
    (models / name / "1" / "model.onnx").write_bytes(test_repository._serialise(spec, nodes, constants))
