"""Branches of both precisions side by side: which serves, what answers say of it, and that nothing is mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.models.repository import DEPTH, DETECTORS, OTHERS, build
from support.servers.gateway import client, png, scene

from app import cli
from app.process import preflight
from app.settings import Settings
from deploy.local.triton_server import TritonServer
from routing import overlay
from routing.catalogue import CatalogueError

NAMES = (*DETECTORS, *DEPTH, *OTHERS)
PICTURE = png(scene(320, 320, (0, 64, 64, 32), (1, 192, 64, 32)))
ENGINES = ("embedded", pytest.param("triton", marks=pytest.mark.triton))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a branch of every family in both precisions, and the catalogue that says so."""
    root = tmp_path_factory.mktemp("half")
    (root / "catalogue").mkdir()
    listed = ", ".join(f'"{name}"' for name in NAMES)
    (root / "catalogue/fp16.toml").write_text(f"[precision]\nfp16 = [{listed}]\n")
    both = [name for single in NAMES for name in (single, f"{single}_fp16")]
    build(
        root / "models",
        [*both, *(f"{name}_fp16_uint8" for name in DETECTORS)],
        catalogue=overlay.load(root / "catalogue"),
    )
    return root


@pytest.fixture(scope="module", params=ENGINES)
def gateways(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Two gateways over the same models; each prefers another precision."""
    with ExitStack() as stack:
        settings: dict[str, Any] = {"catalogue": folder / "catalogue", "models": "*"}
        settings["text_cache_folder"] = tmp_path_factory.mktemp("prompts")
        if request.param == "triton":
            server = TritonServer(folder / "models", tmp_path_factory.mktemp("triton") / "triton.log")
            stack.enter_context(server)
            settings |= {"engine": "triton", "triton_url": server.grpc_url}
        required = {"fp32": NAMES, "fp16": [f"{name}_fp16" for name in NAMES]}
        yield {
            precision: stack.enter_context(
                client(folder / "models", precision=precision, require_ready=",".join(names), **settings)
            )
            for precision, names in required.items()
        }


def _json(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def _used(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(used["model_name"], used["precision"]) for used in answer["models_used"]]


def test_the_setting_chooses_and_a_name_overrides(gateways: dict[str, TestClient]) -> None:
    """Boxes are the same; branch, mapping, digest and signature tell the precisions apart."""
    single = _json(gateways["fp32"].post("/v1/detect", content=PICTURE))
    halved = _json(gateways["fp16"].post("/v1/detect", content=PICTURE))
    assert single["branch"]["name"] in ("yolo11n_320", "yolo11n_320_uint8")
    assert halved["branch"]["name"] in ("yolo11n_320_fp16", "yolo11n_320_fp16_uint8")
    assert [box["class_name"] for box in single["detections"]] == ["person", "bicycle"]
    assert [box["class_name"] for box in halved["detections"]] == ["person", "bicycle"]
    assert single["model_signature"] != halved["model_signature"]
    for precision, branch in (("fp16", "yolo11n_320"), ("fp32", "yolo11n_320_fp16")):
        named = _json(gateways[precision].post(f"/v1/detect?branch={branch}", content=PICTURE))
        assert named["branch"]["name"] == branch
        assert _used(named) == [(branch, "fp16" if branch.endswith("_fp16") else "fp32")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_family_serves_in_the_preferred_precision(
    gateways: dict[str, TestClient], precision: str
) -> None:
    """Depth, flow, embeddings and scenes answer, and say with which model."""
    gateway, end = gateways[precision], "_fp16" if precision == "fp16" else ""
    pair = [("frame0", PICTURE), ("frame1", PICTURE)]
    files = [(name, ("a.png", data, "image/png")) for name, data in pair]
    answers = [
        gateway.post("/v1/depth", content=PICTURE),
        gateway.post("/v1/flow", files=files),
        gateway.post("/v1/clip/image", content=PICTURE),
        gateway.post("/v1/places", content=PICTURE),
        gateway.post("/v1/clip/text", json={"prompts": ["a cat"]}),
    ]
    models = ["midas_256", "raft_256", "clip_image_224", "places365_resnet50_224", "clip_text"]
    for answer, model in zip(answers, models, strict=True):
        assert _used(_json(answer)) == [(f"{model}{end}", precision)]


def test_prompts_of_one_precision_never_serve_the_other(gateways: dict[str, TestClient]) -> None:
    """Two services keep prompts in one folder; each asks its own model, once."""
    body = {"prompts": ["a prompt that nobody else asks"]}
    calls = [
        _json(gateways[precision].post("/v1/clip/text", json=body))["model_calls"]
        for precision in ("fp32", "fp16", "fp32", "fp16")
    ]
    assert calls == [1, 1, 0, 0]


def test_texts_have_the_precision_of_the_service(gateways: dict[str, TestClient]) -> None:
    """A client that names the other text model is told which one serves; pictures have both."""
    for precision, serves, other in (
        ("fp32", "clip_text", "clip_text_fp16"),
        ("fp16", "clip_text_fp16", "clip_text"),
    ):
        gateway = gateways[precision]
        found = _json(gateway.post("/v1/embeddings", json={"model": serves, "input": "a cat"}))
        assert found["model"] == serves
        refused = gateway.post("/v1/embeddings", json={"model": other, "input": "a cat"})
        assert refused.status_code == 400
        assert f"{serves} embed texts here" in refused.text
        for branch in ("clip_image_224", "clip_image_224_fp16"):
            assert (
                _json(gateway.post(f"/v1/clip/image?branch={branch}", content=PICTURE))["branch"]["name"]
                == branch
            )


def test_the_branches_view_lists_both(gateways: dict[str, TestClient]) -> None:
    """Each with its precision; what routing prefers is nobody's alternate, and takes the checklist's place."""
    for precision, other in (("fp32", "fp16"), ("fp16", "fp32")):
        families = _json(gateways[precision].get("/v1/branches"))["families"]
        rows = {row["name"]: row for family in families for row in family["branches"]}
        ends = {"fp32": "", "fp16": "_fp16"}
        preferred, spare = (rows[f"midas_256{ends[p]}"] for p in (precision, other))
        assert (preferred["precision"], preferred["alternate_of"]) == (precision, None)
        assert (spare["precision"], spare["alternate_of"]) == (other, preferred["name"])
        assert (preferred["checklist"], spare["checklist"]) == ("required", "optional")
        assert preferred["weights_digest"] != spare["weights_digest"]
        assert preferred["readiness"] == spare["readiness"] == "ready"


def test_the_ready_checklist_and_the_metrics_name_the_precision(gateways: dict[str, TestClient]) -> None:
    """The checklist asks for the preferred models; metrics tell the branches apart."""
    gateway = gateways["fp16"]
    _json(gateway.post("/v1/depth", content=PICTURE))
    required = [row["name"] for row in _json(gateway.get("/v1/repository"))["required"]]
    assert {"midas_256_fp16", "midas_256_fp16_onnx", "preprocess_midas_256", "midas_512"} < set(required)
    assert "midas_256" not in required
    text = gateway.get("/metrics").text
    assert 'branch="midas_256_fp16"' in text
    assert any(
        'precision="fp16"' in line for line in text.splitlines() if line.startswith("gateway_model_info")
    )


def test_fp16_without_an_fp16_branch_is_refused_at_the_start(folder: Path) -> None:
    """The catalogue's fault says what builds some."""
    settings = Settings(repository=folder / "models", precision="fp16", catalogue=None)
    with pytest.raises(CatalogueError, match="make models PRECISION=fp16"):
        preflight.faults(settings, overlay.load(settings.own_catalogue, precision=settings.precision))


def test_the_commands_know_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`models verify` compares the FP16 files, too; `routes` follows the setting."""
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(folder / "models"))
    monkeypatch.setenv("GATEWAY_CATALOGUE", str(folder / "catalogue"))
    assert cli.main(["models", "verify"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["midas_256"] == said["midas_256_fp16"] == said["yolo11n_320_fp16_uint8"] == "as noted"
    monkeypatch.setenv("GATEWAY_PRECISION", "fp16")
    assert cli.main(["routes", "--variant", "n", "300", "1000"]) == 0
    small, large = capsys.readouterr().out.splitlines()
    assert "yolo11n_320_fp16" in small
    assert "yolo11n_960 " in large
