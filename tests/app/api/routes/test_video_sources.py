"""`source` of POST /v1/videos: what is refused, what is fetched, and what the job says of it."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.analysis import patches
from support.servers.gateway import client
from support.video_source import Plan, VideoSource, serving
from support.waiting import eventually

from app.api.openapi.schemas import Problem
from app.api.openapi.video_schemas import Video
from app.keys.access import ApiKey, digest_of, entry, new_key, scopes_of

BOXES = {"components": {"core_object_detections": {"variant": "n"}}}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4").read_bytes()


@pytest.fixture
def source(video: bytes) -> Iterator[VideoSource]:
    with serving(video) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "videos"


@pytest.fixture(scope="module")
def gateway(repository: Path, folder: Path) -> Iterator[TestClient]:
    """A service that may fetch from two hosts, and from one loopback address."""
    with client(
        repository,
        videos_folder=folder,
        video_sources="127.0.0.1,127.0.0.2,*.invalid",
        allowed_networks="127.0.0.1",
        webhook_hosts="127.0.0.1",
        webhook_secret="whsec_" + "QUJD" * 8,
    ) as test_client:
        yield test_client


def post(gateway: TestClient, url: str, query: dict[str, str] | None = None, **body: Any) -> Any:
    return gateway.post("/v1/videos", params=query, json={"source": url, "profile": BOXES, **body})


def view(gateway: TestClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.get(f"/v1/videos/{job_id}").json()
    Video.model_validate(found)
    return found


def test_a_video_is_fetched_and_analysed(
    gateway: TestClient, folder: Path, source: VideoSource, video: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With the digest and the version of what came; the signature of its URL is nowhere."""
    caplog.set_level(logging.DEBUG)
    response = post(gateway, f"{source.url}?X-Signature=secret")
    assert response.status_code == 202, response.text
    job = response.json()
    Video.model_validate(job)
    assert response.headers["location"] == f"/v1/videos/{job['id']}"
    assert job["name"] == "holiday.mp4"
    eventually(lambda: view(gateway, job["id"])["state"] in ("done", "failed"))
    done = view(gateway, job["id"])
    assert (done["state"], done["error"], done["frames"]) == ("done", None, 12)
    digest, shown = hashlib.sha256(video).hexdigest(), f"{source.url}?***"
    assert done["source"] == {
        "url": shown, "state": "fetched", "bytes": len(video), "total": len(video), "etag": '"v1"',
        "attempts": 1, "error": None,
    }  # fmt: skip
    assert done["manifest"]["input"] == {
        "name": "holiday.mp4", "bytes": len(video), "sha256": digest, "url": shown, "etag": '"v1"',
    }  # fmt: skip
    assert "secret" not in caplog.text + json.dumps(done)
    assert b"secret" not in b"".join(path.read_bytes() for path in folder.glob("jobs.sqlite3"))
    assert not (folder / job["id"] / "input").exists()


@pytest.mark.parametrize("form", ["curl -d", "text/plain", "with a mark"])
def test_json_is_known_by_its_content(gateway: TestClient, source: VideoSource, form: str) -> None:
    """`curl -d` announces a form of the web; an editor may write a byte order mark."""
    body = json.dumps({"source": source.url, "profile": "detect_embedded", "name": "of mine"}).encode()
    kinds = {"curl -d": "application/x-www-form-urlencoded", "text/plain": "text/plain"}
    headers = {"content-type": kinds.get(form, "application/json")}
    body = b"\xef\xbb\xbf\n " + body if form == "with a mark" else body
    response = gateway.post("/v1/videos", content=body, headers=headers)
    assert response.status_code == 202, response.text
    assert (response.json()["name"], response.json()["profile"]) == ("of mine", "detect_embedded")
    assert gateway.delete(f"/v1/videos/{response.json()['id']}").status_code == 204


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://other.example/x.mp4", 422, "source_not_allowed"),
        ("http://127.0.0.2:9/x.mp4", 422, "source_not_allowed"),
        ("http://[::ffff:127.0.0.1]/x.mp4", 422, "source_not_allowed"),
        ("s3://bucket/key.mp4", 422, "source_not_allowed"),
        ("s3://bucket", 400, "invalid_parameter"),
        ("s3://bucket/a/../b", 400, "invalid_parameter"),
        ("s3://bucket/a//b", 400, "invalid_parameter"),
        ("s3://Bucket/a", 400, "invalid_parameter"),
        ("s3://bucket/\ud800", 400, "invalid_parameter"),
        ("ftp://127.0.0.1/x.mp4", 400, "invalid_parameter"),
        ("file:///etc/passwd", 400, "invalid_parameter"),
        ("/etc/passwd", 400, "invalid_parameter"),
        ("http://user:word@127.0.0.1/x.mp4", 400, "invalid_parameter"),
        ("http://127.0.0.1/a b.mp4", 400, "invalid_parameter"),
        ("http://127.0.0.1/" + "x" * 2048, 400, "invalid_parameter"),
        ("", 400, "invalid_parameter"),
    ],
)
def test_what_may_not_be_fetched_is_refused(gateway: TestClient, url: str, status: int, code: str) -> None:
    """Before there is a job; no password comes back."""
    before = gateway.get("/v1/videos").json()
    response = gateway.post("/v1/videos", content=json.dumps({"source": url, "profile": "detect_embedded"}))
    assert (response.status_code, Problem.model_validate(response.json()).code) == (status, code)
    assert "word" not in response.text.replace("user, password", "")
    assert gateway.get("/v1/videos").json() == before


@pytest.mark.parametrize(
    "body",
    [
        "{}", '{"profile": "detect_embedded"}', '{"source": 7, "profile": "detect_embedded"}', "{",
        '{"source": "http://127.0.0.1/x", "profile": "detect_embedded", "file": "x"}',
        '{"source": "http://127.0.0.1/x"}', '{"source": "http://127.0.0.1/x", "profile": "nope"}',
        '{"source": "http://127.0.0.1/x", "profile": {"components": {"x": {}}}}',
        '{"source": "http://127.0.0.1/x", "profile": ["detect_embedded"]}',
        '{"source": "http://127.0.0.1/x", "source": "http://127.0.0.1/y", "profile": "detect_embedded"}',
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused(gateway: TestClient, body: str) -> None:
    """With words on what is wrong."""
    response = gateway.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter"), response.text


@pytest.mark.parametrize("member", ["profile", "name", "callback_url"])
def test_what_is_given_twice_is_refused(gateway: TestClient, source: VideoSource, member: str) -> None:
    """In the query and in the body."""
    text = "http://127.0.0.1:9/" if member == "callback_url" else "detect_embedded"
    response = post(gateway, source.url, {member: text}, **{member: text})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert "once" in response.json()["detail"]


def test_a_body_that_is_too_long_is_refused(gateway: TestClient) -> None:
    """The limit is that of JSON."""
    response = gateway.post("/v1/videos", content=b'{"source": "' + b"x" * (1 << 20) + b'"}')
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


def test_a_service_that_fetches_nothing_says_so(repository: Path, tmp_path: Path) -> None:
    """Without places in the settings; the hint names who can change that."""
    with client(repository, videos_folder=tmp_path / "videos") as gateway:
        response = post(gateway, "https://media.example.com/x.mp4")
        assert (response.status_code, response.json()["code"]) == (422, "source_not_allowed")
        assert "GATEWAY_VIDEO_SOURCES" in response.json()["detail"]


def test_a_failed_fetch_fails_the_job(gateway: TestClient, source: VideoSource) -> None:
    """With the source's code, in the job and in its events."""
    source.plans = [Plan(status=404)]
    job = post(gateway, source.url).json()
    events = gateway.get(job["links"]["events"]).text
    assert "event: failed" in events
    failed = view(gateway, job["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "source_refused")
    assert (failed["source"]["state"], failed["source"]["error"]) == ("failed", "the source answered 404")
    assert "the source answered 404" in failed["error"]["detail"]


def test_what_is_no_video_fails_the_job(gateway: TestClient) -> None:
    """It was fetched, and can't be read."""
    with serving(b"words " * 1000) as source:
        job = post(gateway, source.url).json()
        eventually(lambda: view(gateway, job["id"])["state"] in ("done", "failed"))
        failed = view(gateway, job["id"])
        assert (failed["state"], failed["source"]["state"]) == ("failed", "fetched")
        assert failed["error"]["code"] in ("invalid_video", "unsupported_media_type")


def test_a_job_shows_its_fetch_and_can_be_deleted(
    gateway: TestClient, folder: Path, source: VideoSource
) -> None:
    """It waits in the queue meanwhile; nothing is left of it, and a stopped source isn't asked again."""
    source.plans = [Plan(most=1000, hang=True)]
    job = post(gateway, source.url).json()
    eventually(lambda: view(gateway, job["id"])["source"]["state"] == "fetching")
    assert view(gateway, job["id"])["state"] == "queued"
    scraped = gateway.get("/metrics").text
    store = f"{socket.gethostname()}:{folder}"
    assert f'gateway_video_jobs{{state="fetching",store="{store}"}} 1.0' in scraped
    assert f'gateway_video_jobs{{state="queued",store="{store}"}} 0.0' in scraped
    assert gateway.delete(f"/v1/videos/{job['id']}").status_code == 204
    eventually(lambda: not (folder / job["id"]).exists())
    assert gateway.get(f"/v1/videos/{job['id']}").status_code == 404
    assert len(source.seen) == 1


def test_what_is_being_fetched_counts_as_waiting(
    repository: Path, tmp_path: Path, source: VideoSource, video: bytes
) -> None:
    """By its announced length, from before its bytes are there; once it is deleted there is room again."""
    source.plans = [Plan(most=0, hang=True)]
    with client(
        repository,
        videos_folder=tmp_path / "videos",
        videos_waiting_bytes=len(video) * 3 // 2,
        video_sources="127.0.0.1",
        allowed_networks="127.0.0.1",
    ) as gateway:
        job = post(gateway, source.url).json()
        eventually(lambda: view(gateway, job["id"])["bytes"] == len(video))
        response = gateway.post("/v1/videos?profile=detect_embedded", content=video)
        assert (response.status_code, response.json()["code"]) == (429, "overloaded")
        gateway.delete(f"/v1/videos/{job['id']}")
        response = gateway.post("/v1/videos?profile=detect_embedded", content=video)
        assert response.status_code == 202, response.text


def test_a_job_belongs_to_the_key_that_names_its_source(
    repository: Path, tmp_path: Path, source: VideoSource
) -> None:
    """As an upload does; a key that may only operate submits none."""
    keys = {scope: new_key() for scope in ("infer", "operate")}
    entries = [
        entry(ApiKey(f"a-{scope}", digest_of(key.encode()), scopes_of(scope))) for scope, key in keys.items()
    ]
    with client(
        repository,
        videos_folder=tmp_path / "videos",
        api_keys=";".join(entries),
        video_sources="127.0.0.1",
        allowed_networks="127.0.0.1",
        wait=False,
    ) as gateway:
        body = {"source": source.url, "profile": BOXES}
        made = gateway.post("/v1/videos", json=body, headers={"x-api-key": keys["infer"]})
        assert (made.status_code, made.json()["owner"]) == (202, "a-infer")
        for headers, status in (({}, 401), ({"x-api-key": keys["operate"]}, 403)):
            assert gateway.post("/v1/videos", json=body, headers=headers).status_code == status
