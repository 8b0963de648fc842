"""Several `file` parts to the frame routes beside detection: answered in order, each with its own answer or error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

from app.api.openapi import schemas
from app.api.openapi.families.clip import EmbeddingBatch
from app.api.openapi.families.depth import DepthBatch
from app.api.openapi.families.places import PlacesBatch

SMALL, LARGE = png(scene(320, 240, (0, 64, 64, 64))), png(scene(640, 480, (2, 320, 128, 96)))
ROUTES: dict[str, tuple[str, type[schemas.Provenance]]] = {
    "/v1/depth?fallback=true": ("depth", DepthBatch),
    "/v1/clip/image": ("embedding", EmbeddingBatch),
    "/v1/places?k=2": ("places", PlacesBatch),
}
every_route = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """The embedded engine over the small models of every family."""
    with client(all_families) as test_client:
        yield test_client


def parts(*frames: bytes) -> dict[str, Any]:
    return {"files": [("file", (f"{place}.png", frame)) for place, frame in enumerate(frames)]}


@every_route
def test_a_batch_is_answered_in_order(gateway: TestClient, route: str) -> None:
    """Each part's answer is the one that it gets alone, branch and provenance included."""
    key, model = ROUTES[route]
    response = gateway.post(route, **parts(SMALL, LARGE, SMALL))
    assert response.status_code == 200, response.text
    document = response.json()
    model.model_validate(document)
    alone = [gateway.post(route, content=frame).json() for frame in (SMALL, LARGE, SMALL)]
    assert [row[key] for row in document["results"]] == [row[key] for row in alone]
    assert [row["branch"] for row in document["results"]] == [row["branch"] for row in alone]
    assert alone[0][key] != alone[1][key]
    assert document["errors"] == 0
    used = [model for row in alone for model in row["models_used"]]
    assert all(model in used for model in document["models_used"])
    assert "infer;dur=" in response.headers["server-timing"]


@every_route
def test_a_frame_that_fails_has_its_error_in_its_place(gateway: TestClient, route: str) -> None:
    """The others are answered; where none can be, the first one's problem is the answer."""
    document = gateway.post(route, **parts(SMALL, SMALL[:200], b"text")).json()
    codes = [row.get("error", {}).get("code") for row in document["results"]]
    assert (codes, document["errors"]) == ([None, "invalid_image", "unsupported_media_type"], 2)
    ROUTES[route][1].model_validate(document)
    response = gateway.post(route, **parts(SMALL[:200], b"text"))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_image")


@pytest.mark.parametrize(
    ("path", "form"),
    [("/v1/depth", "image/png"), ("/v1/depth", "application/x-npy"), ("/v1/clip/image", "application/x-npy")],
)
def test_other_forms_answer_one_frame(gateway: TestClient, path: str, form: str) -> None:
    """One array or picture can't be several: refused with what to do, before a model runs."""
    response = gateway.post(path, **parts(SMALL, SMALL), headers={"accept": form})
    assert response.status_code == 400
    assert (
        response.json()["detail"] == f"{form} answers one frame; send one part, or ask for application/json"
    )


def test_too_many_parts_are_refused(all_families: Path) -> None:
    """The limit of parts holds for every route."""
    with client(all_families, max_parts=2) as few:
        response = few.post("/v1/places", **parts(SMALL, SMALL, SMALL))
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
