"""Models of the test repository that answer tensors of a shape, type and value that a test chooses."""

from __future__ import annotations

import json
import re
from pathlib import Path

_CODE = """
import json
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._order = Path(args["model_repository"]) / "order.json"

    def execute(self, requests):
        return [self._answer() for _ in requests]

    def _answer(self):
        rows = json.loads(self._order.read_text())
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.full(shape, value, dtype)) for name, dtype, shape, value in rows]
        )
"""


class Shaped:
    """One model of a repository, made before the server loads it; an ensemble becomes one model without parts."""

    def __init__(self, repository: Path, model: str) -> None:
        self._folder = repository / model
        (self._folder / "1" / "model.py").write_text(_CODE)
        config = self._folder / "config.pbtxt"
        text = config.read_text().replace('backend: "onnxruntime"', 'backend: "python"')
        text = text.replace('platform: "ensemble"', 'backend: "python"')
        text = re.sub(r"ensemble_scheduling \{.*\n\}\n", "", text, flags=re.DOTALL)
        config.write_text(re.sub("default_model_filename:.*\n", "", text))

    def answers(self, *rows: tuple[str, str, list[int], float]) -> None:
        """Tensors of every run from now on: name, NumPy type, shape, value of every element."""
        fresh = self._folder / ".order.json"
        fresh.write_text(json.dumps(rows))
        fresh.rename(self._folder / "order.json")
