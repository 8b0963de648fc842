"""A trained detector in half precision finds the objects that it finds in single precision.

Needs `yolo11n.pt` in `GATEWAY_REFERENCE_DATA` (default `../shared/data`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.paths import ROOT

from benchmarks.precision import detector
from benchmarks.precision.pictures import photos
from export import __main__ as export
from routing import overlay

pytestmark = pytest.mark.reference
TRAINED = Path(os.environ.get("GATEWAY_REFERENCE_DATA", ROOT.parent / "shared" / "data")) / "yolo11n.pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained starter set in both precisions."""
    if not TRAINED.is_file():
        pytest.skip(f"{TRAINED} isn't there")
    root = tmp_path_factory.mktemp("trained")
    places = ["--repository", str(root / "repository"), "--models", str(root / "models")]
    chosen = ["--weights", str(TRAINED), "--precision", "fp16", "--catalogue", str(root / "catalogue")]
    assert export.main(["repository", *places]) == 0
    assert export.main(["models", *chosen, *places]) == 0
    return root


@pytest.mark.parametrize("size", [320, 640, 960])
def test_boxes_agree(folder: Path, size: int) -> None:
    """Nearly every box has its own, at a fraction of a pixel; what has none scores about the threshold."""
    single = overlay.load(folder / "catalogue").branches[f"yolo11n_{size}"]
    half = single.alternate
    assert half is not None
    found = detector.compare(folder / "repository", single, half, photos())
    assert found.boxes_fp32 > 0
    assert found.matched >= 0.97 * max(found.boxes_fp32, found.boxes_fp16)
    assert all(abs(score - detector.CONF) < 0.02 for score in found.only)
    assert found.greatest_score < 0.02
    assert found.greatest_box_px < 2
    assert found.mean_iou > 0.99
    assert found.ap > 0.97
