"""Frames as UINT8, over HTTP: who gets a detector's twin, and that the boxes are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.models import repository as test_repository
from support.models.engines import Arrays
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene

from app.api.openapi import schemas
from app.api.openapi.families.detect import DetectAnswer
from app.engine.fake import FakeEngine
from app.pipelines.inventory import patterns
from app.pipelines.readiness import ReadyProbe
from deploy.local.triton_server import TritonServer

NAME, TWIN = "yolo11n_640", "yolo11n_640_uint8"
# Larger than the square, so that it is resized; patches on the cells of the square.
BODY = png(scene(1280, 640, (0, 128, 64, 64), (2, 640, 256, 128)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector, its twin, and a smaller detector without one."""
    return test_repository.build(tmp_path_factory.mktemp("models"), [NAME, TWIN, "yolo11n_320"])


@pytest.fixture(scope="module")
def triton(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(models, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture(scope="module")
def by_bytes(models: Path, triton: TritonServer) -> Iterator[TestClient]:
    """A gateway that finds no shared memory, with defaults otherwise."""
    with client(
        models, engine="triton", triton_url=triton.grpc_url, triton_transport="bytes", require_ready=TWIN
    ) as http:
        yield http


def detect(http: TestClient, query: str = "") -> dict[str, Any]:
    answer = http.post(f"/v1/detect{query}", content=BODY)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    DetectAnswer.model_validate(document)
    return document


@pytest.mark.triton
def test_by_bytes_the_twin_serves_and_the_boxes_are_equal(by_bytes: TestClient) -> None:
    """The answer names the twin and why, the same weights as its branch, and the graph before them."""
    twin, own = detect(by_bytes), detect(by_bytes, f"?branch={NAME}")
    assert len(twin["detections"]) == 5  # cells
    assert twin["detections"] == own["detections"]
    assert (own["branch"]["name"], twin["branch"]["name"]) == (NAME, TWIN)
    assert twin["branch"]["why"] == (
        "rule: max(1280, 640) > 640, large not ready, frame as UINT8: tensors go as bytes"
    )
    assert (twin["branch"]["tier"], twin["branch"]["size"], twin["branch"]["variant"]) == ("medium", 640, "n")
    assert twin["resolved_model_mapping"] == {"core_object_detections": TWIN}
    assert not twin["degraded"]
    (with_graph,), (without,) = twin["models_used"], own["models_used"]
    assert with_graph == {
        **without,
        "model_name": TWIN,
        "preprocess_digest": with_graph["preprocess_digest"],
    }
    assert with_graph["preprocess_digest"].startswith("sha256:")
    assert "preprocess_digest" not in without


@pytest.mark.triton
def test_a_branch_without_a_twin_serves_as_ever(by_bytes: TestClient) -> None:
    """Quietly, as FP32."""
    document = detect(by_bytes, "?branch=small")
    assert (document["branch"]["name"], document["branch"]["why"]) == ("yolo11n_320", "override: tier=small")


@pytest.mark.triton
@pytest.mark.parametrize(
    ("settings", "name", "why"),
    [
        ({"triton_transport": "bytes", "detect_input": "fp32"}, NAME, "large not ready"),
        ({"triton_transport": "shared_memory"}, NAME, "large not ready"),
        ({"triton_transport": "shared_memory", "detect_input": "uint8"}, TWIN, "frame as UINT8: as set"),
    ],
)
def test_the_setting_decides_where_it_is_not_auto(
    models: Path, triton: TritonServer, by_bytes: TestClient, settings: dict[str, str], name: str, why: str
) -> None:
    """FP32 by bytes, UINT8 through shared memory, if that is what somebody wants: the boxes are the same."""
    expected = detect(by_bytes)["detections"]
    given = {"engine": "triton", "triton_url": triton.grpc_url, "require_ready": TWIN, **settings}
    with client(models, **given) as http:
        document = detect(http)
    assert (document["branch"]["name"], document["detections"]) == (name, expected)
    assert document["branch"]["why"].endswith(why)


@pytest.mark.triton
def test_pages_show_the_twins(by_bytes: TestClient) -> None:
    """Beside their branches in /v1/branches, and what is READY of them in /v1/repository beyond the checklist."""
    document = by_bytes.get("/v1/branches?width=640&height=480").json()
    schemas.Branches.model_validate(document)
    family = document["families"][0]
    rows = {row["name"]: row for row in family["branches"]}
    assert list(rows) == [branch.name for branch in CATALOGUE["detect"].every_branch]
    assert (rows[NAME]["twin_of"], rows[TWIN]["twin_of"]) == (None, NAME)
    assert rows[TWIN]["weights_digest"] == rows[NAME]["weights_digest"]
    assert rows[TWIN]["inputs"] == [{"name": "INPUT__0", "datatype": "UINT8", "shape": [1, 640, 640, 3]}]
    assert rows["yolo11n_320_uint8"]["readiness"] != "ready"
    assert family["route"]["branch"] == TWIN
    repository = by_bytes.get("/v1/repository").json()
    assert {row["name"] for row in repository["others_ready"]} == {TWIN, "preprocess_yolo11_640"}
    assert not [row for key in ("required", "optional") for row in repository[key] if "uint8" in row["name"]]


def test_what_reaches_the_twin_is_the_letterboxed_frame(models: Path) -> None:
    """Element by element: the frame's own pixels, and grey around them."""
    seen: list[np.ndarray] = []

    def look(inputs: Arrays, outputs: Arrays) -> None:
        seen.append(inputs["INPUT__0"].copy())
        outputs["output0"].fill(0)

    functions = {"yolo11n_320": look, "yolo11n_320_uint8": look}
    rgb = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    with client(models, lambda *_: FakeEngine(CATALOGUE, functions), detect_input="uint8") as http:
        assert http.post("/v1/detect", content=png(rgb)).json()["branch"]["name"] == "yolo11n_320_uint8"
    expected = np.full((1, 320, 320, 3), 114, np.uint8)
    expected[0, 110:210, 60:260] = rgb
    np.testing.assert_array_equal(seen[0], expected)


def test_the_embedded_engine_keeps_fp32_unless_the_twin_is_named(models: Path) -> None:
    """In one process nothing is copied into messages; the twin's boxes are the same there, too."""
    with client(models, models="*") as http:
        own, twin = detect(http), detect(http, f"?branch={TWIN}")
    assert (own["branch"]["name"], twin["branch"]["name"]) == (NAME, TWIN)
    assert own["detections"] == twin["detections"]


@pytest.mark.parametrize(("required", "failing"), [("yolo11n_*", {"yolo11n_960"}), (TWIN, set())])
def test_readiness_asks_for_a_twin_by_its_whole_name(models: Path, required: str, failing: set[str]) -> None:
    """A pattern means branches: their twins may be missing, as before there were any."""
    with client(models, models="*") as ready:
        router = ready.app.state.gateway.router  # type: ignore[attr-defined]  # a FastAPI
        assert {row["name"] for row in ReadyProbe(router, patterns(required)).faults()} == failing
