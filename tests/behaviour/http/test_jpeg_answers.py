"""Answers as JPEG: the same picture as PNG shows, by the caller's Accept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

from app.errors import InvalidParameter
from app.media.encodings import rgb_bytes

FRAME = png(scene(320, 240, (0, 32, 32, 32), (1, 96, 96, 32), (2, 224, 32, 32)))
OTHER = png(scene(320, 240, (0, 48, 32, 32), (1, 96, 112, 32), (2, 224, 32, 32)))
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/detect": {"content": FRAME},
    "/v1/depth?render=color": {"content": FRAME},
    "/v1/flow": {"files": {"frame0": FRAME, "frame1": OTHER}},
}


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """Every family, in this process."""
    with client(all_families) as test_client:
        yield test_client


def picture(gateway: TestClient, path: str, accept: str) -> tuple[str, np.ndarray]:
    answer = gateway.post(path, headers={"Accept": accept}, **ROUTES[path])
    assert answer.status_code == 200, answer.text
    opened = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == f"image/{(opened.format or '').lower()}"
    assert "x-provenance" in answer.headers
    return answer.headers["content-type"], np.asarray(opened.convert("RGB")).astype(int)


@pytest.mark.parametrize("path", ROUTES)
def test_a_jpeg_shows_what_the_png_shows(gateway: TestClient, path: str) -> None:
    """Boxes, colour depth and flow, a few levels apart."""
    _, exact = picture(gateway, path, "image/png")
    _, lossy = picture(gateway, path, "image/jpeg")
    assert lossy.shape == exact.shape == (240, 320, 3)
    assert np.abs(lossy - exact).mean() < 4


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("image/jpeg", "image/jpeg"),
        ("image/jpeg, application/json;q=0.9", "image/jpeg"),
        ("image/png;q=0.5, image/jpeg", "image/jpeg"),
        ("image/jpeg;q=0.5, image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/*, image/png;q=0", "image/jpeg"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("image/jpg", "image/jpeg"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "image/png"),
    ],
)
def test_accept_chooses(gateway: TestClient, path: str, accept: str, answered: str) -> None:
    """By quality, then by how exactly it is named; of two alike the lossless one."""
    assert picture(gateway, path, accept)[0] == answered


def test_depth_in_grey_is_colour_as_jpeg(gateway: TestClient) -> None:
    """JPEG has no 16 bits, so it shows the picture whatever `render` says."""
    for query in ("", "?render=gray16"):
        answer = gateway.post(f"/v1/depth{query}", content=FRAME, headers={"Accept": "image/jpeg"})
        assert Image.open(io.BytesIO(answer.content)).mode == "RGB"
        assert "x-depth-min" not in answer.headers


def test_a_frame_of_a_session_is_drawn_too(gateway: TestClient) -> None:
    """With its tracks."""
    answer = gateway.post("/v1/detect?session=a", content=FRAME, headers={"Accept": "image/jpeg"})
    assert answer.content[:3] == b"\xff\xd8\xff"


def test_a_batch_has_no_picture(gateway: TestClient) -> None:
    """The refusal names the form that was asked for."""
    for path in ("/v1/detect", "/v1/depth"):
        files = [("file", ("a", FRAME)), ("file", ("b", FRAME))]
        answer = gateway.post(path, files=files, headers={"Accept": "image/jpeg"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
        assert "image/jpeg" in answer.json()["detail"]


def test_other_routes_have_no_jpeg(gateway: TestClient) -> None:
    """406 says what there is."""
    answer = gateway.post("/v1/places", content=FRAME, headers={"Accept": "image/jpeg"})
    assert answer.status_code == 406


def test_openapi_lists_it(gateway: TestClient) -> None:
    """Beside PNG, on the three routes."""
    paths = gateway.get("/openapi.json").json()["paths"]
    for path in ("/v1/detect", "/v1/depth", "/v1/flow"):
        assert {"image/png", "image/jpeg"} <= paths[path]["post"]["responses"]["200"]["content"].keys()


def test_a_side_too_long_for_a_jpeg_is_told() -> None:
    """PNG has it."""
    rgb = np.zeros((1, 65_501, 3), np.uint8)
    with pytest.raises(InvalidParameter, match="image/png"):
        rgb_bytes(rgb, jpeg=True)
    assert rgb_bytes(rgb)[:4] == b"\x89PNG"
