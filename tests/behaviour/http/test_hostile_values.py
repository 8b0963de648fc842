"""Numbers and text that no reader agrees on, in every place that a caller can fill: never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
NUMBERS = [
    "1" + "0" * 400,
    "9" * 4301,
    "-" + "9" * 30,
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1:30",
    "0x" + "f" * 300,
    "1e-400",
    "٣",
    "²",
    "",
    "1_0",
]
PARAMETERS = {
    "POST /v1/detect": [
        "conf", "iou", "max_det", "classes", "variant", "branch", "analysis_width", "analysis_height", "session",
        "timestamp", "fps", "every", "start", "end", "track_high", "track_low", "track_new", "track_match",
        "track_buffer", "fallback", "keyframes",
    ],
    "POST /v1/depth": ["size", "branch", "render", "every"],
    "POST /v1/flow": ["branch", "variant", "render"],
    "POST /v1/places": ["k", "fit"],
    "POST /v1/clip/text": ["normalize", "tokens", "encoding"],
    "POST /v1/clip/image": ["fit", "encoding", "fps"],
    "POST /v1/videos": ["profile", "name"],
    "GET /v1/videos": ["limit"],
    "GET /v1/branches": ["width", "height", "variant"],
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Ready, with a detector and a folder for videos."""
    with client(repository, videos_folder=tmp_path_factory.mktemp("kept") / "videos") as test_client:
        yield test_client


@pytest.mark.parametrize(("route", "name"), [(r, name) for r, names in PARAMETERS.items() for name in names])
def test_no_number_in_a_query_is_a_defect(gateway: TestClient, route: str, name: str) -> None:
    """Taken, or refused with a code and a short text; 503 where the family has no model here."""
    method, path = route.split()
    for value in NUMBERS:
        body = FRAME if method == "POST" else None
        response = gateway.request(method, f"{path}?{name}={quote(value)}", content=body)
        assert response.status_code < 500 or response.json()["code"] in ("model_not_ready", "weights_missing")
        assert response.status_code < 400 or len(response.content) < 4000


@pytest.mark.parametrize("part", ["profile", "name"])
@pytest.mark.parametrize("value", [b"\xed\xa0\xbd", b"\xff", b"\x00", b"x" * 2_000_000])
def test_no_text_in_a_form_is_a_defect(gateway: TestClient, part: str, value: bytes) -> None:
    """A form's fields are UTF-8 of a bounded length, or the job is refused."""
    video = Path(__file__).parents[3] / "docs" / "astronaut.mp4"
    data = {"profile": (None, b"components: {core_object_detections: {variant: n}}"), part: (None, value)}
    files = {"file": ("v.mp4", video.read_bytes()), **data}
    response = gateway.post("/v1/videos", files=files)
    if value == b"\x00" and part == "name":  # control characters are left out of names
        assert response.status_code == 202
        assert gateway.delete(response.headers["location"]).status_code == 204
        return
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert len(response.content) < 1000


@pytest.mark.parametrize("text", ["%ED%A0%BD", "%FF", "%00", "9" * 5000, "..%2f..", "%F0%9F%98%80"])
def test_no_id_in_a_path_is_a_defect(gateway: TestClient, text: str) -> None:
    """Every id is answered as unknown or as invalid."""
    for path in ("/v1/videos/{}", "/v1/videos/{}/events", "/v1/videos/x/artifacts/{}", "/v1/sessions/{}"):
        for method in ("GET", "DELETE"):
            response = gateway.request(method, path.format(text))
            assert 400 <= response.status_code < 500, (method, path)
            assert len(response.content) < 4000


@pytest.mark.parametrize("value", [b"1e400", b"9" * 5000, b"\xed\xa0\xbd", b"NaN", b"1:30", b"{}"])
def test_no_value_of_a_header_is_a_defect(gateway: TestClient, value: bytes) -> None:
    """Time limits, request ids and what else we read from a head."""
    for name in (
        "X-Request-Timeout",
        "X-Request-Id",
        "traceparent",
        "Accept",
        "Content-Type",
        "Last-Event-ID",
    ):
        response = gateway.post("/v1/detect", content=FRAME, headers={name: value})
        assert response.status_code < 500, (name, response.text)
        assert len(response.content) < 4000
