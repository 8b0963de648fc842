"""ONNX Runtime's official builds report their use; nothing of this project lets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.models.repository import CATALOGUE, build
from support.paths import ROOT

# Each of these keeps ONNX Runtime silent by itself, and would hide a fault here.
SILENT = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME"}


@pytest.mark.parametrize("module", ["app.engine.embedded.engine", "export", "benchmarks.speed.scaled_decode"])
def test_nothing_is_written_into_the_home_folder(module: str, tmp_path: Path) -> None:
    """A session of ONNX Runtime leaves no identifier and no queue of events behind."""
    models, home = build(tmp_path / "models", ["yolo11n_320"]), tmp_path / "home"
    home.mkdir()
    model = models / CATALOGUE.branches["yolo11n_320"].models[0].name / "1" / "model.onnx"
    code = f"import {module}, onnxruntime; onnxruntime.InferenceSession({str(model)!r})"
    kept = {key: value for key, value in os.environ.items() if key not in SILENT}
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**kept, "HOME": str(home)}, check=True, timeout=120
    )
    assert sorted(str(path) for path in home.rglob("*") if path.is_file()) == []
