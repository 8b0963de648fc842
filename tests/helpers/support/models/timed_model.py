"""A model for Triton's Python backend that answers the `timeout` it was given, in seconds, in every element.

Each run begins by adding a byte to the file `begun`, and takes as many seconds as the file `pause` says. As long as
`hold_load` is there the model is loading. As long as `hold_run` is there, runs after the number in it don't end. All
these files are in the model's folder.
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
            number = begun.tell()
        if self._pause.exists():
            time.sleep(float(self._pause.read_text()))
        while self._holds(number):
            time.sleep(0.02)
        seconds = request.timeout() / 1e6
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(row["name"], np.full([int(d) for d in row["dims"]], seconds, np.float32))
                for row in self._outputs
            ]
        )

    def _holds(self, number: int) -> bool:
        try:
            return number > int(self._hold_run.read_text() or 0)
        except FileNotFoundError:
            return False


def _wait_while(path: Path) -> None:
    while path.exists():
        time.sleep(0.02)
