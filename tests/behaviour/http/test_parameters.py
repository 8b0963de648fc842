"""Parameters as clients send them: defaults spelt out, lists repeated, values given twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

FRAME = png(scene(320, 320, (0, 32, 32, 32), (1, 96, 96, 32), (2, 224, 32, 32)))
PAIR = {"files": {"frame0": FRAME, "frame1": FRAME}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/detect": {"content": FRAME},
    "/v1/depth": {"content": FRAME},
    "/v1/flow": PAIR,
    "/v1/clip/image": {"content": FRAME},
    "/v1/clip/text": {"json": {"prompts": ["a cat"]}},
    "/v1/clip/similarity": {"files": {"file": FRAME}, "data": {"prompt": "a cat"}},
    "/v1/places": {"content": FRAME},
}


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """Every family, in this process."""
    with client(all_families) as test_client:
        yield test_client


def _answers(document: dict[str, Any]) -> dict[str, Any]:
    """The parts of an answer that don't differ from call to call."""
    return {name: value for name, value in document.items() if name != "model_calls"}


def _parameters(gateway: TestClient, path: str) -> list[dict[str, Any]]:
    method = "get" if path == "/v1/branches" else "post"
    found: list[dict[str, Any]] = gateway.get("/openapi.json").json()["paths"][path][method]["parameters"]
    return [parameter for parameter in found if parameter["in"] == "query"]


def _defaults(gateway: TestClient, path: str) -> dict[str, Any]:
    """Every documented default that can be sent."""
    rows = {row["name"]: row["schema"].get("default") for row in _parameters(gateway, path)}
    return {name: value for name, value in rows.items() if value not in (None, [])}


def _classes(gateway: TestClient, query: str) -> list[str]:
    answer = gateway.post(f"/v1/detect?{query}", content=FRAME)
    assert answer.status_code == 200, answer.text
    return sorted({row["class_name"] for row in answer.json()["detections"]})


@pytest.mark.parametrize("path", BODIES)
def test_defaults_sent_explicitly_change_nothing(gateway: TestClient, path: str) -> None:
    """A generated client sends every default that the description names; that is no wish."""
    defaults = _defaults(gateway, path)
    assert defaults
    plain = gateway.post(path, **BODIES[path])
    spelt_out = gateway.post(path, params=defaults, **BODIES[path])
    assert spelt_out.status_code == plain.status_code == 200, spelt_out.text
    assert _answers(spelt_out.json()) == _answers(plain.json())


@pytest.mark.parametrize("query", ["keyframes=false&start=0.0", "keyframes=0&start=0", "start=0e3"])
def test_a_default_may_be_written_in_any_way(gateway: TestClient, query: str) -> None:
    """The value counts, not its spelling."""
    assert gateway.post(f"/v1/detect?{query}", content=FRAME).status_code == 200


@pytest.mark.parametrize("query", ["keyframes=true", "start=0.5", "every=2", "fps=1", "end=3"])
def test_a_real_wish_for_videos_is_refused_for_a_picture(gateway: TestClient, query: str) -> None:
    """Sampling other than the default means nothing for a picture, and the answer names it."""
    answer = gateway.post(f"/v1/detect?{query}", content=FRAME)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "classes"),
    [
        ("classes=person&classes=car", ["car", "person"]),
        ("classes=0,2", ["car", "person"]),
        ("classes=0,1&classes=car", ["bicycle", "car", "person"]),
        ("classes=car", ["car"]),
        ("conf=0.25", ["bicycle", "car", "person"]),
    ],
)
def test_a_list_is_repeated_or_separated_by_commas(
    gateway: TestClient, query: str, classes: list[str]
) -> None:
    """All values of a list count, however they are sent."""
    assert _classes(gateway, query) == classes


@pytest.mark.parametrize("path", [*BODIES, "/v1/branches", "/v1/videos"])
def test_a_value_given_twice_is_refused_by_name(gateway: TestClient, path: str) -> None:
    """Two values for one parameter are refused, equal ones included."""
    method = "GET" if path == "/v1/branches" else "POST"
    examples = {"boolean": "true", "integer": "1", "number": "0.5", "string": "medium"}
    for row in _parameters(gateway, path):
        kinds = [row["schema"], *row["schema"].get("anyOf", [])]
        kind = next(one["type"] for one in kinds if "type" in one)
        listed = [one.get("const") or one["enum"][0] for one in kinds if {"const", "enum"} & one.keys()]
        value = listed[0] if listed else examples.get(kind)
        if value is None:  # a list
            continue
        body = BODIES.get(path, {})
        answer = gateway.request(method, path, params=[(row["name"], value)] * 2, **body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), row["name"]
        assert row["name"] in answer.json()["detail"]


def test_an_unknown_parameter_is_still_refused(gateway: TestClient) -> None:
    """Once or twice, it is a validation error that names it."""
    for query in ("conff=1", "conff=1&conff=1"):
        answer = gateway.post(f"/v1/detect?{query}", content=FRAME)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
        assert "conff" in answer.json()["detail"]
