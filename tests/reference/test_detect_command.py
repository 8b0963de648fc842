"""Boxes of the trained YOLO11n on docs/astronaut.jpg: HTTP and `gateway detect` in its own process agree.

Needs `yolo11n.pt` in `GATEWAY_REFERENCE_DATA` (default `../shared/data`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.paths import ROOT
from support.servers.gateway import server

from app import cli

pytestmark = pytest.mark.reference

TRAINED = Path(os.environ.get("GATEWAY_REFERENCE_DATA", ROOT.parent / "shared" / "data")) / "yolo11n.pt"


def test_http_and_the_command_find_the_same_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal to the last digit, and the picture's one person is among them."""
    if not TRAINED.is_file():
        pytest.skip(f"no {TRAINED.name} in {TRAINED.parent}")
    picture = ROOT / "docs" / "astronaut.jpg"
    assert cli.main(["up", "--build-only", "--models", str(tmp_path), "--weights", str(TRAINED)]) == 0
    repository = tmp_path / "repository"
    capsys.readouterr()
    assert cli.main(["detect", str(picture), "--json", "--repository", str(repository)]) == 0
    here = json.loads(capsys.readouterr().out)
    with server(repository, tmp_path / "log") as (http, _):
        there = http.post("/v1/detect", content=picture.read_bytes()).json()
    assert here["detections"] == there["detections"]
    assert [found["class_name"] for found in here["detections"]] == ["person"]
    assert here["model_signature"] == there["model_signature"]
