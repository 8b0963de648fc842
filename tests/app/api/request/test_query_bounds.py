"""Queries: bounded before they are read, and what is wrong with them told briefly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client


@pytest.fixture(scope="module")
def gateway(repository: Path) -> Iterator[TestClient]:
    """Ready, with a detector."""
    with client(repository) as test_client:
        yield test_client


PATHS = [
    "/v1/detect",
    "/v1/clip/text",
    "/v1/videos",
    "/v1/videos/x",
    "/v1/branches",
    "/v1/sessions/x",
    "/livez",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("x" * 16_385, "the query has 16385 bytes; the limit is 16384"),
        ("conf=" + "1" * 62_000, "the query has 62005 bytes"),
        ("&" * 1024, "more than 1024 parameters"),
        ("&".join(f"k{i}=1" for i in range(2000)), "more than 1024 parameters"),
    ],
)
def test_a_query_is_bounded_on_every_path(gateway: TestClient, path: str, query: str, words: str) -> None:
    """Refused by its length, before it is taken apart, also where nobody would read it."""
    response = gateway.request("GET" if path == "/livez" else "POST", f"{path}?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert words in response.json()["detail"]
    assert len(response.content) < 1000


def test_at_most_ten_faults_are_told(gateway: TestClient) -> None:
    """A thousand unknown parameters have a short answer that counts the rest."""
    response = gateway.post("/v1/detect?" + "&".join(f"{'k' * 7}{i}=1" for i in range(1000)))
    body = response.json()
    assert (response.status_code, len(body["errors"])) == (422, 10)
    assert body["detail"].endswith("; and 990 more")
    assert len(response.content) < 5000


def test_a_long_parameter_is_not_echoed_whole(gateway: TestClient) -> None:
    """Neither its name nor its value fills the answer."""
    for query in ("x" * 16_000 + "=1", "conf=" + "y" * 16_000, "branch=" + "z" * 16_000):
        response = gateway.post(f"/v1/detect?{query}", content=b"x")
        assert 400 <= response.status_code < 500
        assert len(response.content) < 4000


@pytest.mark.parametrize(
    ("path", "query", "hint"),
    [
        ("/v1/detect", "cnf=0.5", "did you mean 'conf'?"),
        ("/v1/detect", "clases=0", "did you mean 'classes'?"),
        ("/v1/depth", "rendr=color", "did you mean 'render'?"),
        ("/v1/videos", "profil=x", "did you mean 'profile'?"),
        ("/v1/branches", "widht=3", "did you mean 'width'?"),
    ],
)
def test_an_unknown_parameter_is_named_with_its_likeness(
    gateway: TestClient, path: str, query: str, hint: str
) -> None:
    """Still a 422, which says what was probably meant."""
    response = gateway.request("GET" if path == "/v1/branches" else "POST", f"{path}?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert hint in response.json()["detail"]


def test_an_unknown_part_is_named_with_its_likeness(gateway: TestClient) -> None:
    """Still a 400, which says what was probably meant."""
    response = gateway.post("/v1/detect", files={"fiel": b"x"})
    assert response.status_code == 400
    assert "did you mean 'file'?" in response.json()["detail"]


def test_a_query_that_is_not_utf_8_is_refused(gateway: TestClient) -> None:
    """Such a query is neither decoded as other characters nor a 500; a surrogate has no UTF-8."""
    for query in ("session=%ff", "session=%ED%A0%BD", "%ED%A0%BD=1", "classes=%C3"):
        response = gateway.post(f"/v1/detect?{query}", content=b"x")
        assert (response.status_code, response.json()["detail"]) == (400, "the query is not UTF-8")
