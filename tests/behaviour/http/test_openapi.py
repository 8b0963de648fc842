"""The OpenAPI document: names, one problem, and an example of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from app.api.openapi.schemas import Problem
from app.main import create_app
from app.settings import Settings

OPERATIONS = {
    "POST /v1/detect": "detect",
    "POST /v1/depth": "depth",
    "POST /v1/flow": "flow",
    "POST /v1/clip/text": "clip_text",
    "POST /v1/clip/image": "clip_image",
    "POST /v1/clip/similarity": "similarity",
    "POST /v1/places": "places",
    "POST /v1/videos": "submit_video",
    "GET /v1/videos": "list_videos",
    "GET /v1/videos/{id}": "get_video",
    "DELETE /v1/videos/{id}": "delete_video",
    "GET /v1/videos/{id}/events": "video_events",
    "GET /v1/videos/{id}/artifacts/{name}": "video_artifact",
    "GET /v1/sessions/{id}": "get_session",
    "DELETE /v1/sessions/{id}": "delete_session",
    "POST /v1/embeddings": "embeddings",
    "GET /v1/branches": "branches",
    "GET /v1/repository": "repository",
    "GET /livez": "livez",
    "GET /readyz": "readyz",
    "GET /metrics": "metrics",
}
# Bytes have no example in JSON.
BYTES = (
    "image/",
    "video/",
    "application/x-npy",
    "application/x-flo",
    "application/zip",
    "application/vnd.apache",
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """The service, not started."""
    return create_app(Settings())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def routes(app: FastAPI) -> Iterator[APIRoute]:
    for part in app.routes:
        inner = getattr(part, "original_router", None)
        yield from (route for route in (inner.routes if inner else [part]) if isinstance(route, APIRoute))


def test_operations_are_named_for_what_they_do(document: dict[str, Any]) -> None:
    """Names of functions in a generated client; each once."""
    found = {route: operation["operationId"] for route, operation in operations(document)}
    assert {route: found.get(route) for route in OPERATIONS} == OPERATIONS
    assert len(set(found.values())) == len(found)
    assert all(name.isidentifier() and name.islower() for name in found.values())


def test_every_problem_is_the_shared_one(document: dict[str, Any]) -> None:
    """The schema of every refusal is `Problem`, and FastAPI's own is gone."""
    refused = 0
    for route, operation in operations(document):
        for status, answer in operation["responses"].items():
            problem = answer.get("content", {}).get("application/problem+json")
            if problem is not None:
                refused += 1
                assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}, (route, status)
    assert refused > 100
    assert "HTTPValidationError" not in document["components"]["schemas"]
    Problem.model_validate(document["components"]["schemas"]["Problem"]["example"])


def test_every_answer_has_an_example(document: dict[str, Any]) -> None:
    """In each form but those of bytes."""
    for route, operation in operations(document):
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                if status.startswith("2") and not kind.startswith(BYTES):
                    assert "example" in content, (route, status, kind)


def test_examples_are_what_the_schemas_say(app: FastAPI, document: dict[str, Any]) -> None:
    """Each JSON example has the fields of its model and no other."""
    checked = 0
    for route in routes(app):
        for status, answer in route.responses.items():
            model = answer.get("model")
            if model is None:
                continue
            method = next(iter(route.methods)).lower()
            path = route.path_format.replace("{name:path}", "{name}")
            content = document["paths"][path][method]["responses"][str(status)]["content"]
            TypeAdapter(model).validate_python(content["application/json"]["example"], strict=False)
            checked += 1
    assert checked >= 15


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """A shared schema that nobody defines would break every generator."""

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (v for k, v in value.items() if k == "$ref")
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_frame_routes_describe_every_body_they_take(document: dict[str, Any]) -> None:
    """Raw pictures, a form, and JSON."""
    for route in ("detect", "depth", "clip/image", "places"):
        bodies = document["paths"][f"/v1/{route}"]["post"]["requestBody"]["content"]
        assert {"image/jpeg", "multipart/form-data", "application/json", "video/mp4"} <= bodies.keys()
    flow = document["paths"]["/v1/flow"]["post"]["requestBody"]["content"]["application/json"]
    assert flow["schema"]["required"] == ["frame0", "frame1"]
