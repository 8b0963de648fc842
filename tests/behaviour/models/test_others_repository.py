"""A Triton repository that others made, with their names: mapped, served, and nothing in it renamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.models.own import detector, three_classes
from support.paths import ROOT
from support.servers.gateway import client
from support.waiting import eventually

from app.cli import main
from app.engine.contracts import difference
from deploy.local.triton_server import TritonServer
from routing.catalogue import ModelSpec, TensorSpec

PICTURE = (ROOT / "docs" / "astronaut.jpg").read_bytes()
CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input {{ name: "images" data_type: {kind} dims: [ {sides} ] }}
output {{ name: "out" data_type: TYPE_FP32 dims: [ {answer} ] }}
"""
CATALOGUE = """\
[[variant]]
family = "detect"
name = "planes"
labels = ["helmet", "head"]
layout = "FP32 NCHW"
inputs = ["images"]
output = "out"
[[variant.branch]]
name = "ppe-detector"
size = 320

[[variant]]
family = "detect"
name = "pixels"
labels = ["helmet", "head"]
[[variant.branch]]
name = "PPE.pixels"
size = 320
layout = "UINT8 NHWC"
inputs = ["images"]
output = "out"
"""
BRANCHES = "ppe-detector,PPE.pixels,helmet_320"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of others, and one of three classes that was added."""
    root = tmp_path_factory.mktemp("others")
    planes, pixels = root / "models/ppe-detector", root / "models/PPE.pixels"
    for model in (planes, pixels):
        (model / "1").mkdir(parents=True)
    detector(planes / "1/model.onnx", 320)
    detector(pixels / "1/model.onnx", 320, pixels=True)
    text = CONFIG.format(
        name="ppe-detector", batch=0, kind="TYPE_FP32", sides="1, 3, 320, 320", answer="1, 6, 2100"
    )
    (planes / "config.pbtxt").write_text(text)
    text = CONFIG.format(
        name="PPE.pixels", batch=0, kind="TYPE_UINT8", sides="1, 320, 320, 3", answer="1, 6, 2100"
    )
    (pixels / "config.pbtxt").write_text(text)
    (root / "catalogue").mkdir()
    (root / "catalogue/theirs.toml").write_text(CATALOGUE)
    where = ["--repository", str(root / "models"), "--catalogue", str(root / "catalogue"), "--sizes", "320"]
    weights = three_classes(root / "best.pt")
    assert main(["models", "add", str(weights), "--family", "detect", "--name", "helmet", *where]) == 0
    return root


def _find(http: TestClient, variant: str) -> dict[str, Any]:
    response = http.post(f"/v1/detect?variant={variant}&conf=0.05", content=PICTURE)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[TestClient]:
    """The embedded engine over that repository."""
    with client(folder / "models", catalogue=folder / "catalogue", require_ready=BRANCHES) as http:
        yield http


@pytest.fixture(scope="module")
def there(folder: Path) -> Iterator[TestClient]:
    """A real Triton over it, reached by shared memory."""
    names = ["ppe-detector", "PPE.pixels", "helmet_320"]
    with (
        TritonServer(folder / "models", folder / "triton.log", load=names) as server,
        client(
            folder / "models", catalogue=folder / "catalogue", require_ready=BRANCHES, engine="triton",
            triton_url=server.grpc_url, triton_transport="shared_memory", detect_input="fp32",
        ) as http,
    ):  # fmt: skip
        yield http


def test_both_engines_answer_the_same(here: TestClient, there: TestClient) -> None:
    """Planes and pixels, theirs and ours: equal boxes, and each says which model it was."""
    for variant, model in (("planes", "ppe-detector"), ("pixels", "PPE.pixels"), ("helmet", "helmet_320")):
        first, second = _find(here, variant), _find(there, variant)
        assert first["detections"] == second["detections"], variant
        (used,) = second["models_used"]
        assert (used["model_name"], used["runtime"], used["engine"]) == (model, "triton", "onnx")
        assert second["resolved_model_mapping"] == {"core_object_detections": model}
    assert first["models_used"][0]["weights_digest"] == used["weights_digest"]


def test_planes_and_pixels_are_one_network(there: TestClient) -> None:
    """The same frame, prepared by us or by the model."""
    first, second = _find(there, "planes"), _find(there, "pixels")
    assert first["detections"]
    assert first["detections"] == second["detections"]
    assert {box["class_name"] for box in first["detections"]} <= {"helmet", "head"}


def test_nothing_is_claimed_of_weights_that_nobody_noted(there: TestClient) -> None:
    """No digest, no kind, no precision."""
    (used,) = _find(there, "planes")["models_used"]
    assert (used["weights"], used["weights_digest"], used["precision"]) == ("unknown", "unknown", "unknown")


def test_tensors_that_are_not_theirs_are_told(folder: Path, tmp_path: Path) -> None:
    """A wrong name ends as the model's state, with both sides in the reason."""
    (tmp_path / "wrong.toml").write_text(CATALOGUE.replace('output = "out"', 'output = "boxes"', 1))
    settings: dict[str, Any] = {"catalogue": tmp_path / "wrong.toml", "models": "ppe-detector"}
    with client(folder / "models", wait=False, **settings) as http:
        said: list[str] = []

        def refused() -> bool:
            families = http.get("/v1/branches").json()["families"]
            (row,) = [r for family in families for r in family["branches"] if r["name"] == "ppe-detector"]
            said.append(str(row["reason"]))
            return bool(row["readiness"] == "contract_mismatch")

        eventually(refused)
    assert "model.onnx has out FP32 [1, 6, 2100]; the catalogue says boxes FP32 [1, 6, 2100]" in said[-1]


def test_a_graph_of_any_size_and_batch_serves_one_frame_of_one_size(tmp_path: Path) -> None:
    """Others' graphs are often dynamic, and have no config.pbtxt at all."""
    (tmp_path / "models/ppe-detector/1").mkdir(parents=True)
    detector(tmp_path / "models/ppe-detector/1/model.onnx", batch="batch")
    (tmp_path / "theirs.toml").write_text(CATALOGUE)
    settings: dict[str, Any] = {"catalogue": tmp_path / "theirs.toml", "require_ready": "ppe-detector"}
    with client(tmp_path / "models", **settings) as http:
        assert _find(http, "planes")["detections"]


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((-1, 3, 64, 64), True), ((-1, 3, -1, -1), True), ((-1, 3, 32, 64), False), ((3, 64, 64), False)],
)
def test_any_axis_fits_only_what_others_made(shape: tuple[int, ...], fits: bool) -> None:  # a parameter
    """Our own models have no dynamic axes."""
    wanted = (TensorSpec("images", "FP32", (1, 3, 64, 64)),)
    for mapped in (True, False):
        model = ModelSpec("m", "onnx", wanted, (), mapped=mapped)
        fault = difference("Triton", [TensorSpec("images", "FP32", shape)], wanted, model)
        assert (fault is None) is (fits and mapped)
