"""`GET /`: its files and their headers; tests/page opens it in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.paths import ROOT
from support.servers.gateway import locked

FOLDER = ROOT / "app" / "api" / "page"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.name != "index.html")


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A caller without a key."""
    with locked(tmp_path_factory.mktemp("none")) as opened:
        yield opened


def test_the_page_is_open_and_runs_only_its_own_scripts(http: TestClient) -> None:
    """No inline script or style, no evaluation, no other host; a script that writes HTML would fail."""
    answer = http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(
        part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(r"//|<style|\bon\w+=|style=|<script(?! type=\"module\" src)", answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert http.head("/").headers["etag"] == answer.headers["etag"]
    assert http.head("/").content == b""


@pytest.mark.parametrize("name", FILES)
def test_files_are_asked_for_again_and_sent_once(http: TestClient, name: str) -> None:
    """Unpacked or packed, the bytes of the folder; 304 to who has them."""
    plain = http.get(f"/page/{name}", headers={"accept-encoding": "identity"})
    packed = http.get(f"/page/{name}", headers={"accept-encoding": "gzip"})
    assert plain.content == packed.content == (FOLDER / name).read_bytes()
    assert plain.headers["cache-control"] == "no-cache"
    known = http.get(f"/page/{name}", headers={"if-none-match": f'"x", {plain.headers["etag"]}'})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == plain.headers["etag"]


def test_every_file_that_is_named_is_there(http: TestClient) -> None:
    """In the page, and in the imports of its modules; each module is used."""
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', http.get("/").text))
    for module in FOLDER.glob("*.js"):
        text = module.read_text(encoding="utf-8")
        named |= set(re.findall(r'from "\./([^"]+)"', text))
        assert not re.search(
            r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|insertAdjacentHTML|document\.write|\beval\b", text
        ), module.name
    assert named == set(FILES)


@pytest.mark.parametrize("name", ["index.html", "..%2fgateway.py", "nothing.js", "example.png"])
def test_nothing_else_is_served(http: TestClient, name: str) -> None:
    """Only scripts, the style and pictures of the folder."""
    assert http.get(f"/page/{name}").status_code in {401, 404}


def test_the_example_is_the_picture_of_the_documentation(http: TestClient) -> None:
    """Whole, and as a picture."""
    answer = http.get("/page/example.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == (Path(ROOT) / "docs" / "astronaut.jpg").read_bytes()
