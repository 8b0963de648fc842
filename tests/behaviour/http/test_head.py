"""HEAD on every GET route, and what browsers ask before they send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support import videos
from support.servers.gateway import client, server
from support.servers.raw_http import Line

GETS = (
    "/livez",
    "/readyz",
    "/metrics",
    "/v1/branches",
    "/v1/repository",
    "/docs",
    "/openapi.json",
    "/v1/videos",
)
PROFILE = "name: some\ncomponents: {core_object_detections: {}}\n"
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server."""
    folder = tmp_path_factory.mktemp("gateway")
    with server(repository, folder / "log", videos_folder=folder / "videos") as (http, _):
        assert http.base_url.port is not None
        yield http.base_url.port


def request(method: str, path: str, body: bytes = b"", extra: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(running: int, path: str) -> None:
    """200, the headers of GET, no body: the next answer follows at once."""
    with Line(running) as line:
        head = line.send(request("HEAD", path)).answer(head_only=True)
        whole = line.send(request("GET", path)).answer()
    assert (head.status, whole.status) == (200, 200)
    assert head.headers.keys() == whole.headers.keys()
    assert head.headers["content-type"] == whole.headers["content-type"]
    if path not in ("/metrics", "/v1/repository", "/v1/branches"):  # theirs change from call to call
        assert head.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/sessions/nobody", 404), ("/nowhere", 404), ("/v1/detect", 405), ("/livez/", 404)],
)
def test_head_of_what_get_refuses_is_refused(running: int, path: str, status: int) -> None:
    """The same status, without the problem's text."""
    with Line(running) as line:
        assert line.send(request("HEAD", path)).answer(head_only=True).status == status
        assert line.send(request("GET", path)).answer().status == status


def test_head_of_a_job_ends_at_once(running: int, tmp_path: Path) -> None:
    """HEAD of a job's view, artefact and events ends at once, although GET of its events does not."""
    video = videos.count(tmp_path / "v.mp4", 4).read_bytes()
    form = [("profile", PROFILE.encode()), ("file", video)]
    parts = [
        b'--X\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), v) for n, v in form
    ]
    extra = "Content-Type: multipart/form-data; boundary=X\r\n"
    with Line(running) as line:
        line.send(request("POST", "/v1/videos", b"".join(parts) + b"--X--\r\n", extra))
        job = f"/v1/videos/{line.answer().json()['id']}"
        events = line.send(request("HEAD", f"{job}/events")).answer(head_only=True)
        assert (events.status, events.headers["content-type"][:17]) == (200, "text/event-stream")
        while line.send(request("GET", job)).answer().json()["state"] != "done":
            pass
        assert line.send(request("HEAD", job)).answer(head_only=True).status == 200
        head = line.send(request("HEAD", f"{job}/artifacts/manifest.json")).answer(head_only=True)
        whole = line.send(request("GET", f"{job}/artifacts/manifest.json")).answer()
    assert head.headers["content-length"] == str(len(whole.body))


@pytest.fixture(scope="module", params=[ORIGIN, "*"])
def open_to(request: pytest.FixtureRequest, repository: Path) -> Iterator[tuple[str, TestClient]]:
    """The origins that a gateway names, and the gateway."""
    with client(repository, cors_origins=request.param) as http:
        yield request.param, http


def preflight(
    http: TestClient, origin: str, method: str = "POST", **extra: str
) -> tuple[int, dict[str, str]]:
    headers = {"origin": origin, "access-control-request-method": method, **extra}
    answer = http.options("/v1/detect", headers=headers)
    return answer.status_code, dict(answer.headers)


def test_a_private_network_is_open_to_named_origins_alone(open_to: tuple[str, TestClient]) -> None:
    """A page of an origin that is named may reach it; `*` names none."""
    origins, http = open_to
    private = {"access-control-request-private-network": "true"}
    status, headers = preflight(http, ORIGIN, **private)
    if origins == "*":
        assert status == 400
        assert "access-control-allow-private-network" not in headers
    else:
        assert (status, headers["access-control-allow-private-network"]) == (200, "true")
        assert headers["access-control-allow-origin"] == ORIGIN
        assert preflight(http, "https://other.example", **private)[0] == 400
    assert preflight(http, ORIGIN)[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_every_method_may_be_asked_for(open_to: tuple[str, TestClient], method: str) -> None:
    """A browser asks first for HEAD too, if the page sends a key with it."""
    status, _ = preflight(open_to[1], ORIGIN, method, **{"access-control-request-headers": "x-api-key"})
    assert status == 200
