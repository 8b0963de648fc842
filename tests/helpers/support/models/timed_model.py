"""A model for Triton's Python backend that answers the `timeout` it was given, in seconds, in every element.

Each run takes as many seconds as the file `pause` in the model's folder says; without one none. As long as the file
`hold_load` is there it is loading, and as long as `hold_run` is there no run ends. Every run begins by adding a byte to
the file `begun`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """See the module."""

    def initialize(self, args: dict[str, str]) -> None:
        """Note the outputs' names and shapes."""
        folder = Path(args["model_repository"])
        self._pause, self._hold_run = folder / "pause", folder / "hold_run"
        self._begun = folder / "begun"
        _wait_while(folder / "hold_load")
        self._outputs = json.loads(args["model_config"])["output"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        with self._begun.open("ab") as begun:
            begun.write(b".")
        if self._pause.exists():
            time.sleep(float(self._pause.read_text()))
        _wait_while(self._hold_run)
        seconds = request.timeout() / 1e6
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(row["name"], np.full([int(d) for d in row["dims"]], seconds, np.float32))
                for row in self._outputs
            ]
        )


def _wait_while(path: Path) -> None:
    while path.exists():
        time.sleep(0.02)
