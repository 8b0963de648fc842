"""POST /v1/detect, as its contract says."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.models.engines import Arrays
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene

from app.api.openapi.families.detect import DetectAnswer, DetectBatch
from app.api.openapi.schemas import Problem
from app.engine.base import Engine
from app.engine.fake import FakeEngine

# A green patch that fills one 32-pixel cell of the 320 square, and a blue one.
FRAME = scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32))
BODY = png(FRAME)


def post(gateway: TestClient, body: bytes = BODY, query: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.post(f"/v1/detect{query}", content=body, headers=named)


def answer(gateway: TestClient, body: bytes = BODY, query: str = "", **headers: str) -> dict[str, Any]:
    response = post(gateway, body, query, **headers)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem that the response must be."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    document: dict[str, Any] = response.json()
    Problem.model_validate(document)
    assert document["code"] == code
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def test_a_frame_is_answered_in_the_contract_s_form(gateway: TestClient) -> None:
    """Every key of the contract, and no other; boxes best first with class names."""
    document = answer(gateway)
    DetectAnswer.model_validate(document)
    assert list(document) == [
        "detections", "image", "branch", "resolved_model_mapping", "models_used", "model_signature",
        "degraded", "warnings",
    ]  # fmt: skip
    boxes = {row["class_name"]: row["box"] for row in document["detections"]}
    assert boxes == {"bicycle": [64, 96, 96, 128], "car": [224, 32, 256, 64]}
    assert all(row["track_id"] is None for row in document["detections"])
    assert document["image"] == {"width": 320, "height": 320}
    assert document["branch"]["why"] == "rule: max(320, 320) <= 320"
    assert document["resolved_model_mapping"] == {"core_object_detections": "yolo11n_320"}


def test_provenance_is_that_of_the_file_that_served(gateway: TestClient, repository: Path) -> None:
    """The digest is the model file's SHA-256, and random weights are called random twice."""
    document = answer(gateway)
    (used,) = document["models_used"]
    content = (repository / "yolo11n_320" / "1" / "model.onnx").read_bytes()
    assert used == {
        "model_name": "yolo11n_320",
        "model_version": "1",
        "weights_digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "weights": "random",
        "runtime": "inprocess",
        "engine": "onnx",
        "precision": "fp32",
        "device": "cpu",
        "prepare": {"library": "opencv", "version": cv2.__version__, "filter": "linear"},
    }
    canonical = json.dumps([used], sort_keys=True, separators=(",", ":"))
    assert document["model_signature"] == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
    assert any("random" in warning for warning in document["warnings"])


def test_boxes_are_in_source_pixels(gateway: TestClient) -> None:
    """Scale and padding of the letterbox are undone: a patch of a 1280x640 frame is where it was drawn."""
    frame = scene(1280, 640, (0, 128, 64, 64))
    document = answer(gateway, png(frame))
    assert document["branch"]["name"] == "yolo11n_640"
    (row,) = document["detections"]
    assert row["box"] == pytest.approx([128, 64, 192, 128], abs=0.01)


def test_a_small_frame_is_not_scaled_up(gateway: TestClient) -> None:
    """200x100: a 32-pixel patch stays 32 pixels, and the warning has the contract's words."""
    frame = scene(200, 100, (0, 36, 18, 32))  # 60 and 110 pixels of padding put it on a cell
    document = answer(gateway, png(frame))
    (row,) = document["detections"]
    assert row["box"] == [36, 18, 68, 50]
    assert "shorter side 100 px is under the 320 px that this family wants" in document["warnings"]


def test_the_tensor_of_a_small_frame_is_grey_around_untouched_pixels(repository: Path) -> None:
    """The tensor that reaches the model is checked element by element."""
    seen: list[np.ndarray] = []

    def look(inputs: Arrays, outputs: Arrays) -> None:
        seen.append(inputs["images"].copy())
        outputs["output0"].fill(0)

    def engine(*_: object) -> Engine:
        return FakeEngine(CATALOGUE, {"yolo11n_320": look})

    rgb = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    with client(repository, engine) as gateway:
        answer(gateway, png(rgb))
    expected = np.full((1, 3, 320, 320), 114, np.float32)
    expected[0, :, 110:210, 60:260] = rgb.transpose(2, 0, 1)
    np.testing.assert_array_equal(seen[0], expected / np.float32(255))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?classes=bicycle", ["bicycle"]),
        ("?classes=2", ["car"]),
        ("?classes=car,1", ["bicycle", "car"]),
        ("?classes=person", []),
        ("?max_det=1", ["car"]),
        ("?conf=1", []),
    ],
)
def test_parameters_choose_the_boxes(gateway: TestClient, query: str, names: list[str]) -> None:
    """Classes by name and id, the score's threshold, and the most boxes."""
    assert sorted(row["class_name"] for row in answer(gateway, query=query)["detections"]) == names


def test_agnostic_suppression_crosses_classes(gateway: TestClient) -> None:
    """Low threshold, grids of several strides: boxes of other classes suppress only when asked to."""
    frame = png(scene(320, 320, (0, 0, 0, 32), (1, 16, 0, 16)))
    apart = answer(gateway, frame, "?conf=0.01&iou=0.05")["detections"]
    together = answer(gateway, frame, "?conf=0.01&iou=0.05&agnostic=true")["detections"]
    assert {row["class_name"] for row in apart} == {"person", "bicycle"}
    assert len(together) < len(apart)


@pytest.mark.parametrize(
    ("query", "branch"),
    [
        ("?branch=yolo11n_640", "yolo11n_640"),
        ("?branch=medium", "yolo11n_640"),
        ("?branch=640", "yolo11n_640"),
        ("?analysis_width=640", "yolo11n_640"),
        ("?analysis_width=100&analysis_height=500", "yolo11n_640"),
        ("?variant=n", "yolo11n_320"),
    ],
)
def test_routing_can_be_steered(gateway: TestClient, query: str, branch: str) -> None:
    """By branch, tier, size, variant, and by the size that the caller's analysis runs at."""
    assert answer(gateway, query=query)["branch"]["name"] == branch


def test_a_fallback_is_taken_only_when_allowed_and_said(gateway: TestClient) -> None:
    """Without leave the missing weights are an error; with it the next smaller branch serves, degraded."""
    problem(post(gateway, query="?branch=960"), 503, "weights_missing")
    document = answer(gateway, query="?branch=960&fallback=true")
    assert document["degraded"] is True
    assert document["branch"]["name"] == "yolo11n_640"
    assert document["branch"]["passed_over"][0]["branch"] == "yolo11n_960"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?branch=yolo12n_640", 404, "model_not_found"),
        ("?branch=yolo11n_640&variant=x", 400, "invalid_parameter"),
        ("?branch=500", 400, "invalid_parameter"),
        ("?classes=unicorn", 400, "invalid_parameter"),
        ("?classes=80", 400, "invalid_parameter"),
        ("?classes=" + "9" * 5000, 400, "invalid_parameter"),
        ("?classes=person,", 400, "invalid_parameter"),
        ("?branch=", 404, "model_not_found"),
        ("?branch=" + "9" * 5000, 404, "model_not_found"),
        ("?max_det=" + "9" * 5000, 422, "validation_failed"),
        ("?variant=x", 503, "weights_missing"),
        ("?variant=q", 400, "invalid_parameter"),
        ("?conf=2", 422, "validation_failed"),
        ("?conf=nan", 422, "validation_failed"),
        ("?max_det=0", 422, "validation_failed"),
        ("?analysis_width=0", 422, "validation_failed"),
        ("?confidence=0.5", 422, "validation_failed"),
    ],
)
def test_a_wrong_parameter_is_named(gateway: TestClient, query: str, status: int, code: str) -> None:
    """A parameter that can't be used is refused by name; nothing is silently ignored."""
    document = problem(post(gateway, query=query), status, code)
    name = query[1:].split("=", maxsplit=1)[0]
    assert name in document["detail"] or query.rsplit("=", maxsplit=1)[-1] in document["detail"]


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "text/plain", "application/x-www-form-urlencoded", "video/mp4", "", ";;"]
)
def test_content_decides_not_its_name(gateway: TestClient, kind: str) -> None:
    """A picture is a picture whatever the header calls it, curl's default included."""
    assert len(answer(gateway, content_type=kind)["detections"]) == 2


def _files(*bodies: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file", (f"../../etc/{i}", body, "image/png")) for i, body in enumerate(bodies)]


def test_one_part_is_one_frame(gateway: TestClient) -> None:
    """Multipart with one file answers like the raw body."""
    response = gateway.post("/v1/detect", files=_files(BODY))
    assert response.status_code == 200
    assert response.json()["detections"] == answer(gateway)["detections"]


def test_a_batch_is_answered_in_order_with_errors_in_place(gateway: TestClient) -> None:
    """Each part has its answer or its error; provenance covers all that served."""
    other = png(scene(640, 640, (0, 320, 320, 32)))
    response = gateway.post("/v1/detect", files=_files(BODY, b"broken", other, b""))
    assert response.status_code == 200
    document = response.json()
    DetectBatch.model_validate(document)
    first, broken, third, empty = document["results"]
    assert [row["class_name"] for row in first["detections"]] == ["car", "bicycle"]
    assert broken["error"]["code"] == "unsupported_media_type"
    assert [row["class_name"] for row in third["detections"]] == ["person"]
    assert empty["error"]["code"] == "invalid_image"
    assert document["errors"] == 2
    assert [used["model_name"] for used in document["models_used"]] == ["yolo11n_320", "yolo11n_640"]


def test_a_batch_without_one_good_frame_is_its_first_problem(gateway: TestClient) -> None:
    """Nothing served: the answer is an error, not an empty success."""
    problem(gateway.post("/v1/detect", files=_files(b"broken", b"")), 415, "unsupported_media_type")


def test_the_picture_form_carries_the_same_provenance(gateway: TestClient) -> None:
    """image/png is the frame with boxes, and X-Provenance what JSON says in fields."""
    response = post(gateway, accept="image/png")
    assert response.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    assert drawn.shape == FRAME.shape
    assert (drawn[100, 64] != FRAME[100, 64]).any()
    assert (drawn[200:, 150:] == FRAME[200:, 150:]).all()
    document = answer(gateway)
    expected = {key: value for key, value in document.items() if key not in ("detections", "image")}
    assert json.loads(response.headers["x-provenance"]) == expected


def test_every_answer_says_where_its_time_went(gateway: TestClient) -> None:
    """Server-Timing has the six stages in milliseconds."""
    for headers in ({}, {"accept": "image/png"}):
        stages = dict(
            part.split(";dur=") for part in post(gateway, **headers).headers["server-timing"].split(", ")
        )
        assert list(stages) == ["decode", "queue", "prepare", "infer", "finish", "encode"]
        assert all(float(ms) >= 0 for ms in stages.values())
        assert float(stages["infer"]) > 0


@pytest.mark.parametrize(
    ("wished", "echoed"), [("abc-1.2:3_X", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_a_request_id_is_echoed_or_made(gateway: TestClient, wished: str, echoed: bool) -> None:  # a table
    """A plain word of the caller's comes back; anything else is replaced."""
    found = post(gateway, x_request_id=wished).headers["x-request-id"]
    assert (found == wished) is echoed
    assert found


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("image/*", "image/png"),
        ("text/html, image/png;q=0.5, */*;q=0.1", "image/png"),
        ("image/png;q=0.2, application/json;q=0.9", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("image/png;q=junk, application/json", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("image/*, image/png;q=0.1, application/json;q=0.3", "image/jpeg"),
        ("image/*;q=0.2, image/png;q=0.1, application/json;q=0.3", "application/json"),
        ("IMAGE/PNG", "image/png"),
        ("image/webp, image/png;q=0.8", "image/png"),
    ],
)
def test_accept_chooses_the_form(gateway: TestClient, accept: str, kind: str) -> None:
    """Quality first, then how exactly a form is named."""
    assert post(gateway, accept=accept).headers["content-type"] == kind


def test_accept_may_stand_on_several_lines(gateway: TestClient) -> None:
    """Repeated headers are one list (RFC 9110, 5.3)."""
    lines = [("accept", "text/html"), ("accept", "image/png")]
    answered = gateway.post("/v1/detect", content=BODY, headers=lines)
    assert answered.headers["content-type"] == "image/png"


def test_a_form_that_is_not_offered_is_refused(gateway: TestClient) -> None:
    """406 says what can be had; a batch is no picture."""
    problem(post(gateway, accept="text/html"), 406, "not_acceptable")
    response = gateway.post("/v1/detect", files=_files(BODY, BODY), headers={"accept": "image/png"})
    problem(response, 400, "invalid_parameter")


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", ""])
def test_a_time_limit_that_is_none_is_refused(gateway: TestClient, value: str) -> None:
    """X-Request-Timeout is a positive number of seconds."""
    problem(post(gateway, x_request_timeout=value), 400, "invalid_parameter")


def test_time_that_ran_out_names_its_stage(gateway: TestClient) -> None:
    """504 says where the time went."""
    document = problem(post(gateway, x_request_timeout="0.000001"), 504, "deadline_exceeded")
    assert document["stage"] in {"receive", "decode", "queue"}


def _multipart(*parts: tuple[bytes, bytes], end: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


_HEAD = b'Content-Disposition: form-data; name="file"; filename="a"'
_FORM = "multipart/form-data; boundary=XX"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", _multipart((_HEAD, BODY))),
        (_FORM, b""),
        (_FORM, b"junk"),
        (_FORM, b"--XX--\r\n"),
        (_FORM, _multipart((_HEAD, BODY), end=b"")),
        (_FORM, _multipart((_HEAD, BODY))[: len(BODY) // 2]),
        (_FORM, _multipart((b'Content-Disposition: form-data; name="picture"', BODY))),
        (_FORM, _multipart((b"Content-Type: image/png", BODY))),
        (_FORM, _multipart((b"no header", BODY))),
    ],
)
def test_a_damaged_form_is_refused(gateway: TestClient, kind: str, body: bytes) -> None:
    """Cut off, without boundary, or with parts of other names: said, not guessed at."""
    problem(post(gateway, body, content_type=kind), 400, "invalid_parameter")


def test_limits_of_size_are_kept(repository: Path) -> None:
    """Bytes announced, pixels and parts beyond the limits are 413 with their code."""
    limits: Mapping[str, Any] = {"max_body_bytes": 100_000, "max_pixels": 320 * 320, "max_parts": 2}
    with client(repository, **limits) as gateway:
        answer(gateway)
        problem(post(gateway, bytes(100_001)), 413, "payload_too_large")
        problem(post(gateway, png(scene(321, 320))), 413, "image_too_large")
        problem(gateway.post("/v1/detect", files=_files(BODY, BODY, BODY)), 413, "payload_too_large")
