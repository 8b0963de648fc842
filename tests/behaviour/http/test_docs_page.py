"""`GET /docs`: its files and their headers; tests/page opens it in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import locked

FILES = [
    ("swagger-ui-bundle.js", "text/javascript"),
    ("swagger-ui.css", "text/css"),
    ("start.js", "text/javascript"),
]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A caller without a key."""
    with locked(tmp_path_factory.mktemp("none")) as opened:
        yield opened


def test_the_page_names_no_other_host(http: TestClient) -> None:
    """Its text and its policy; everybody may read it, and the document that it shows."""
    answer = http.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe" not in policy
    assert http.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", *(f"/docs/{name}" for name, _ in FILES)])
def test_head_is_get_without_its_body(http: TestClient, path: str) -> None:
    """The same status and headers; the page and its files also answer 304 to who has them."""
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, whole.status_code, head.content) == (200, 200, b"")
    changing = {"x-request-id", "date", "server-timing"}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in whole.headers.items() if name not in changing
    }
    if path != "/openapi.json":
        known = {"if-none-match": whole.headers["etag"]}
        assert [http.head(path, headers=known).status_code, http.get(path, headers=known).status_code] == [
            304,
            304,
        ]


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_what_the_page_needs_is_served_packed_and_unpacked(http: TestClient, name: str, kind: str) -> None:
    """The same bytes for callers that take gzip and for those that don't."""
    plain = http.get(f"/docs/{name}", headers={"accept-encoding": "identity"})
    packed = http.get(f"/docs/{name}", headers={"accept-encoding": "gzip"})
    assert (plain.status_code, packed.status_code) == (200, 200)
    assert plain.headers["content-type"].startswith(kind)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content
    assert len(plain.content) > 50


@pytest.mark.parametrize("name", ["LICENSE", "swagger-ui.css.gz", "..%2fmain.py", "nothing.js"])
def test_nothing_else_is_served_from_its_folder(http: TestClient, name: str) -> None:
    """Three names, and no path."""
    assert http.get(f"/docs/{name}").status_code in {401, 404}
    assert http.get("/redoc").status_code in {401, 404}
