"""Variants of one's own beside ours: found everywhere, never mixed up with another one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.models.repository import build
from support.servers.gateway import client, png, scene
from support.waiting import eventually

from app.families import FAMILIES
from app.media.fit import letterbox_into
from app.vision.letterbox import Letterbox
from export import manifest
from routing import overlay

CATALOGUE = """\
[[variant]]
family = "detect"
name = "helmet"
labels = ["helmet", "head", "vest"]
[[variant.branch]]
name = "helmet_320"
size = 320
[[variant]]
family = "places"
name = "rooms"
labels = ["kitchen", "bath"]
[[variant.branch]]
name = "rooms_224"
size = 224
[[variant]]
family = "clip_image"
name = "vit_l_14"
dimension = 768
[[variant.branch]]
name = "vit_l_14_image_224"
size = 224
[[variant]]
family = "clip_text"
name = "vit_l_14"
dimension = 768
[[variant.branch]]
name = "vit_l_14_text"
[[variant]]
family = "clip_image"
name = "alone"
dimension = 640
[[variant.branch]]
name = "alone_224"
size = 224
"""
OURS = ("yolo11n_320", "clip_image_224", "clip_text", "places365_resnet50_224")
OWN = ("helmet_320", "rooms_224", "vit_l_14_image_224", "vit_l_14_text", "alone_224")
PICTURE = png(scene(320, 320, (0, 64, 64, 32), (1, 192, 64, 32)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a catalogue, and a repository for it."""
    root = tmp_path_factory.mktemp("own")
    (root / "catalogue").mkdir()
    (root / "catalogue/mine.toml").write_text(CATALOGUE)
    build(root / "models", (*OURS, *OWN), catalogue=overlay.load(root / "catalogue"))
    return root


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[TestClient]:
    """Ready; embedded; variant n."""
    required = ",".join((*OURS, *OWN))
    with client(folder / "models", catalogue=folder / "catalogue", require_ready=required) as test_client:
        yield test_client


def _json(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def _refused(response: Any) -> str:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "invalid_parameter"), response.text
    return str(problem["detail"])


def test_a_variant_answers_with_its_own_names_and_provenance(gateway: TestClient) -> None:
    """Its class names, its branch, its model; the class filter speaks its language."""
    found = _json(gateway.post("/v1/detect?variant=helmet", content=PICTURE))
    assert [box["class_name"] for box in found["detections"]] == ["helmet", "head"]
    assert (found["branch"]["name"], found["branch"]["variant"]) == ("helmet_320", "helmet")
    assert found["resolved_model_mapping"] == {"core_object_detections": "helmet_320"}
    assert [used["model_name"] for used in found["models_used"]] == ["helmet_320"]
    only = _json(gateway.post("/v1/detect?variant=helmet&classes=head", content=PICTURE))
    assert [box["class_name"] for box in only["detections"]] == ["head"]
    assert "'person' is neither" in _refused(
        gateway.post("/v1/detect?variant=helmet&classes=person", content=PICTURE)
    )
    assert "'helmet' is neither" in _refused(gateway.post("/v1/detect?classes=helmet", content=PICTURE))
    assert "below 3" in _refused(gateway.post("/v1/detect?variant=helmet&classes=3", content=PICTURE))


def test_two_variants_answer_one_picture(gateway: TestClient) -> None:
    """Each with its own boxes and provenance, in the order of their names, decoded once."""
    response = gateway.post("/v1/detect?variant=n,helmet", content=PICTURE)
    both = _json(response)
    alone = [_json(gateway.post(f"/v1/detect?variant={name}", content=PICTURE)) for name in ("n", "helmet")]
    assert both["results"] == alone
    assert both["resolved_model_mapping"] == {"core_object_detections": "helmet_320+yolo11n_320"}
    assert [used["model_name"] for used in both["models_used"]] == ["helmet_320", "yolo11n_320"]
    filtered = _json(gateway.post("/v1/detect?variant=n,helmet&classes=person,head", content=PICTURE))
    assert [[box["class_name"] for box in one["detections"]] for one in filtered["results"]] == [
        ["person"],
        ["head"],
    ]
    only = _json(gateway.post("/v1/detect?variant=n,helmet&classes=head", content=PICTURE))
    assert [len(one["detections"]) for one in only["results"]] == [0, 1]
    assert "'sofabed' is neither" in _refused(
        gateway.post("/v1/detect?variant=n,helmet&classes=sofabed", content=PICTURE)
    )


def test_a_variant_that_cannot_serve_has_its_error_in_its_place(gateway: TestClient) -> None:
    """The others answer."""
    found = _json(gateway.post("/v1/detect?variant=helmet,x", content=PICTURE))
    assert found["errors"] == 1
    assert found["results"][1]["error"]["code"] == "weights_missing"


@pytest.mark.parametrize(
    ("query", "headers", "words"),
    [
        ("variant=n,helmet&session=a", {}, "a session uses one variant"),
        ("variant=n,helmet", {"Accept": "image/png"}, "application/json"),
        ("variant=helmett", {}, "no variant 'helmett'; it has n, s, m, l, x, helmet"),
        ("variant=n,", {}, "no variant ''"),
        ("variant=helmet&branch=yolo11n_320", {}, "a branch of n, not of helmet"),
    ],
)
def test_what_makes_no_sense_is_refused(
    gateway: TestClient, query: str, headers: dict[str, str], words: str
) -> None:
    """With a sentence that helps."""
    assert words in _refused(gateway.post(f"/v1/detect?{query}", content=PICTURE, headers=headers))


def test_a_session_keeps_its_variant(gateway: TestClient) -> None:
    """Boxes of another model are no continuation of its tracks."""
    first = _json(gateway.post("/v1/detect?variant=helmet&session=cam&timestamp=1", content=PICTURE))
    assert first["session"]["frame"] == 1
    response = gateway.post("/v1/detect?variant=n&session=cam&timestamp=2", content=PICTURE)
    assert response.status_code == 409
    assert "variant changed from helmet to n" in response.json()["detail"]


def test_scenes_have_their_own_list(gateway: TestClient) -> None:
    """However short it is."""
    found = _json(gateway.post("/v1/places?variant=rooms&k=5", content=PICTURE))
    assert {place["category"] for place in found["places"]} == {"kitchen", "bath"}
    assert abs(sum(place["probability"] for place in found["places"]) - 1) < 1e-5


def test_embeddings_of_two_widths_never_meet(gateway: TestClient) -> None:
    """Text and image of one variant belong together; the cache keeps prompts of each apart."""
    prompts = {"prompts": ["a cat"]}
    for _ in range(2):
        wide = _json(gateway.post("/v1/clip/text?variant=vit_l_14", json=prompts))
        usual = _json(gateway.post("/v1/clip/text", json=prompts))
        assert (wide["dimension"], usual["dimension"]) == (768, 512)
    assert (wide["model_calls"], usual["model_calls"]) == (0, 0)
    assert _json(gateway.post("/v1/clip/image?variant=vit_l_14", content=PICTURE))["dimension"] == 768
    body = {"image": base64.b64encode(PICTURE).decode(), "prompts": ["a cat"]}
    for query in ("variant=vit_l_14", "branch=vit_l_14_image_224"):
        found = _json(gateway.post(f"/v1/clip/similarity?{query}", json=body))
        assert {branch["name"] for branch in found["branches"]} == {"vit_l_14_image_224", "vit_l_14_text"}
    usual = _json(gateway.post("/v1/clip/similarity?variant=standard", json=body))
    assert {branch["name"] for branch in usual["branches"]} == {"clip_image_224", "clip_text"}


def test_similarity_across_variants_is_refused(gateway: TestClient) -> None:
    """A number would come out, and mean nothing."""
    body = {"image": base64.b64encode(PICTURE).decode(), "prompts": ["a cat"]}
    assert "can't be compared" in _refused(gateway.post("/v1/clip/similarity?variant=alone", json=body))
    across = "/v1/clip/similarity?variant=vit_l_14&branch=clip_image_224"
    assert "a branch of standard, not of vit_l_14" in _refused(gateway.post(across, json=body))


@pytest.mark.parametrize("name", OWN)
def test_probes_reach_each_branch(gateway: TestClient, folder: Path, name: str) -> None:
    """`gateway smoke` asks the branch that it means, and reads as many numbers as that one has."""
    branch = overlay.load(folder / "catalogue").branches[name]
    row = FAMILIES.by_name[branch.family]
    path = row.probe.path(row.route, branch, every_number=True)
    prompts = {"prompts": ["a cat"]}
    answer = (
        gateway.post(path, json=prompts, headers=dict(row.probe.headers))
        if row.probe.prompts
        else gateway.post(path, content=PICTURE, headers=dict(row.probe.headers))
    )
    assert answer.status_code == 200, answer.text
    shapes = row.probe.shapes(branch)
    for output, array in row.probe.arrays(branch, answer.content).items():
        assert all(side in (-1, found) for side, found in zip(shapes[output], array.shape, strict=True)), (
            output
        )


def test_branches_and_repository_know_them(gateway: TestClient) -> None:
    """With their labels' number; the checklist stays ours."""
    families = {family["name"]: family for family in gateway.get("/v1/branches").json()["families"]}
    assert families["detect"]["variants"][-1] == "helmet"
    assert families["clip_text"]["variants"] == ["standard", "vit_l_14"]
    (row,) = [row for row in families["detect"]["branches"] if row["name"] == "helmet_320"]
    assert (row["classes"], row["own"], row["readiness"], row["outputs"][0]["shape"]) == (
        3,
        True,
        "ready",
        [1, 7, 2100],
    )
    routed = gateway.get("/v1/branches?width=100&height=100&variant=helmet").json()["families"]
    assert routed[0]["route"]["branch"] == "helmet_320"
    assert "helmet_320" in {row["name"] for row in gateway.get("/v1/repository").json()["models"]}
    metrics = gateway.get("/metrics").text
    assert "model_ready{" in metrics
    assert '"helmet_320"' in metrics


def test_labels_that_are_not_as_many_as_classes_are_refused(folder: Path, tmp_path: Path) -> None:
    """By name, when the model is loaded: of the catalogue, and of weights.json."""
    wrong = CATALOGUE.replace('"helmet", "head", "vest"', '"helmet", "head"')
    (tmp_path / "wrong.toml").write_text(wrong)
    with client(
        folder / "models", catalogue=tmp_path / "wrong.toml", wait=False, models="helmet_320"
    ) as gateway:
        detail = _unready(gateway, "helmet_320")
    assert "labels of wrong.toml names 2 classes" in detail
    root = build(tmp_path / "models", ("helmet_320",), catalogue=overlay.load(folder / "catalogue"))
    note = root / "helmet_320" / manifest.VERSION_FOLDER / manifest.WEIGHTS_FILE
    document = json.loads(note.read_text())
    document["labels"] = ["helmet"]
    note.write_text(json.dumps(document))
    with client(root, catalogue=folder / "catalogue", wait=False, models="helmet_320") as gateway:
        detail = _unready(gateway, "helmet_320")
    assert "weights.json of helmet_320 names 1 classes, and output0 [1, 7, 2100] has 3" in detail


def _unready(gateway: TestClient, branch: str) -> str:
    def reason() -> str:
        rows = [
            row for family in gateway.get("/v1/branches").json()["families"] for row in family["branches"]
        ]
        (row,) = [row for row in rows if row["name"] == branch]
        return str(row["reason"]) if row["readiness"] == "contract_mismatch" else ""

    found: list[str] = []
    eventually(lambda: bool(found.append(reason()) or found[-1]))  # type: ignore[func-returns-value]
    return found[-1]


def test_frames_are_prepared_as_the_variant_wants(tmp_path: Path) -> None:
    """Another scale, mean and padding reach the tensor, in the frame and around it, again and again."""
    rgb = np.full((32, 64, 3), (255, 0, 51), np.uint8)
    images, kept = np.empty((1, 3, 64, 64), np.float32), {}
    for _ in range(2):
        letterbox_into(
            rgb, Letterbox.fit(64, 32, 64), images, kept, 0, 255.0, (0.5, 0.0, 0.2), (0.5, 1.0, 2.0)
        )
        assert np.allclose(images[0, :, 32, 32], (1, 0, 0), atol=1e-6)
        assert np.allclose(images[0, :, 0, 0], (-1, 0, -0.1))
