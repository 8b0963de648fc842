"""A model for Triton's Python backend that runs `model.onnx`, and runs out of memory when it is told to.

Told by files in its folder's `memory/`, each holding the text to fail with: `once` (the next run, after which every
later one fails too until the model is reloaded), `always` (every run while the file is there), `load` (loading).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance; a failure stays with it, as a full arena does."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, unless `load` says that there is no memory for it."""
        self._orders = Path(args["model_repository"]) / "memory"
        self._orders.mkdir(exist_ok=True)
        if (text := self._order("load")) is not None:
            raise pb_utils.TritonModelException(text)
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._inputs = [row["name"] for row in config["input"]]
        self._outputs = [row["name"] for row in config["output"]]
        self._full: str | None = None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if (pause := self._order("pause")) is not None:
            time.sleep(float(pause))
        once = self._order("once")
        if once is not None:
            (self._orders / "once").unlink()
            self._full = once
        text = self._full or self._order("always")
        if text is not None:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(text))
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        arrays = self._session.run(self._outputs, feeds)
        tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
        return pb_utils.InferenceResponse(tensors)

    def _order(self, name: str) -> str | None:
        try:
            return (self._orders / name).read_text() or None
        except FileNotFoundError:
            return None
