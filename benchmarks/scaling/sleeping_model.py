"""A model for Triton's Python backend that takes the same time for each run and computes nothing.

The time is in the file `seconds` in the model's folder.
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
        """Read the time, and make the answer that every run gives."""
        self._seconds = float((Path(args["model_repository"]) / "seconds").read_text(encoding="utf-8"))
        self._outputs = [
            pb_utils.Tensor(row["name"], np.zeros([int(size) for size in row["dims"]], np.float32))
            for row in json.loads(args["model_config"])["output"]
        ]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request after that time."""
        answers = []
        for _ in requests:
            time.sleep(self._seconds)
            answers.append(pb_utils.InferenceResponse(self._outputs))
        return answers
