"""`backend: "onnxruntime"` for a Triton that has none: a Python-based backend over an ONNX Runtime session.

It lets the very repository that a GPU host serves with the C++ backend be served on a CPU without Docker. Triton's
own configuration decides: file name, tensors, and the parameters `intra_op_thread_count`, `inter_op_thread_count`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_TYPES = {
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_BOOL": "tensor(bool)",
}


class TritonPythonModel:
    """One instance of one model; Triton makes it and calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; raises where graph and configuration differ, and then it never becomes READY."""
        config = json.loads(args["model_config"])
        _refuse_accelerators(config)
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        self._session = ort.InferenceSession(
            str(path), _options(config.get("parameters", {})), providers=["CPUExecutionProvider"]
        )
        self._inputs = [row["name"] for row in config["input"]]
        self._outputs = [row["name"] for row in config["output"]]
        _compare("input", config["input"], self._session.get_inputs())
        _compare("output", config["output"], self._session.get_outputs())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request; one that fails answers with its own error."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            feeds = {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs
            }
            wanted = [name for name in self._outputs if name in request.requested_output_names()]
            arrays = self._session.run(wanted, feeds)
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(wanted, arrays, strict=True)]
            return pb_utils.InferenceResponse(tensors)
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to this request, not to the server
            return pb_utils.InferenceResponse([], pb_utils.TritonError(f"onnxruntime: {error}"))


def _refuse_accelerators(config: dict[str, Any]) -> None:
    """Refuse accelerators for processors, as the C++ backend does where it was built without them."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for row in accelerators.get("cpu_execution_accelerator", []):
        raise pb_utils.TritonModelException(f"unknown Execution Accelerator '{row['name']}' is requested")


def _options(parameters: dict[str, dict[str, str]]) -> ort.SessionOptions:
    def number(key: str, default: int) -> int:
        return int(parameters.get(key, {}).get("string_value", default))

    options = ort.SessionOptions()
    options.intra_op_num_threads = number(
        "intra_op_thread_count", int(os.environ.get("TRITON_ORT_THREADS", "1"))
    )
    options.inter_op_num_threads = number("inter_op_thread_count", 1)
    options.log_severity_level = 3
    # Threads that spin between requests would take the cores from the gateway beside this server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _compare(side: str, rows: list[dict[str, Any]], arguments: list[Any]) -> None:
    """Raise unless the graph has exactly the configuration's tensors."""
    graph = {a.name: (a.type, list(a.shape)) for a in arguments}
    config = {r["name"]: (_TYPES.get(r["data_type"]), [int(d) for d in r["dims"]]) for r in rows}
    if graph != config:
        raise pb_utils.TritonModelException(f"{side}: config.pbtxt has {config}, model.onnx has {graph}")
