"""`callback_url` of POST /v1/videos: what is refused, what is called, and what the job says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.analysis import patches
from support.servers.gateway import client
from support.servers.receiver import Receiver, receiving
from support.waiting import eventually

from app.api.openapi.schemas import Problem
from app.api.openapi.video_schemas import Video
from app.keys import signing
from app.state.jobs import Job, JobIndex

SECRET = "whsec_" + "QUJD" * 8
BOXES = "components: {core_object_detections: {variant: n}}\n"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that may call two hosts, and one loopback address."""
    with client(
        repository,
        videos_folder=tmp_path_factory.mktemp("kept") / "videos",
        webhook_hosts="127.0.0.1,127.0.0.2,*.invalid",
        allowed_networks="127.0.0.1",
        webhook_secret=SECRET,
        webhook_retry_s=0.01,
    ) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4").read_bytes()


def post(gateway: TestClient, video: bytes, query: dict[str, str] | None = None, **form: str) -> Any:
    form = {"profile": BOXES, **form}
    return gateway.post("/v1/videos", params=query, files={"file": ("v.mp4", video)}, data=form)


@pytest.mark.parametrize("place", ["query", "form"])
def test_the_end_of_a_job_is_told(gateway: TestClient, receiver: Receiver, video: bytes, place: str) -> None:
    """After an error of the receiver, once, signed; the job shows every step."""
    receiver.seen.clear()
    receiver.answers = [500, 200]
    asked = {"callback_url": receiver.url}
    response = post(gateway, video, asked) if place == "query" else post(gateway, video, **asked)
    assert response.status_code == 202, response.text
    job = response.json()
    Video.model_validate(job)
    assert (job["callback"]["url"], job["callback"]["state"]) == (receiver.url, "waiting")

    def callback() -> dict[str, Any]:
        view: dict[str, Any] = gateway.get(f"/v1/videos/{job['id']}").json()["callback"]
        return view

    eventually(lambda: callback()["state"] == "delivered")
    assert {name: callback()[name] for name in ("attempts", "status", "error", "next_attempt")} == {
        "attempts": 2, "status": 200, "error": None, "next_attempt": None,
    }  # fmt: skip
    headers, body = receiver.seen[-1]
    signed = signing.signature(
        signing.secrets(SECRET), headers["webhook-id"], int(headers["webhook-timestamp"]), body
    )
    assert headers["webhook-signature"] == signed
    document = json.loads(body)
    assert (document["type"], document["data"]["id"]) == ("video.done", job["id"])
    view = gateway.get(document["data"]["links"]["self"]).json()
    assert {name: view[name] for name in ("state", "frames", "finished", "sha256")} == {
        name: document["data"][name] for name in ("state", "frames", "finished", "sha256")
    }
    attempts = 'gateway_webhook_attempts_total{outcome="delivered"}'
    assert attempts in gateway.get("/metrics").text


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://other.example/x", 422, "url_refused"),
        ("http://127.0.0.2:9/x", 422, "url_refused"),
        ("http://[::ffff:127.0.0.1]/x", 422, "url_refused"),
        ("ftp://127.0.0.1/x", 400, "invalid_parameter"),
        ("http://user:word@127.0.0.1/x", 400, "invalid_parameter"),
        ("words", 400, "invalid_parameter"),
        ("", 400, "invalid_parameter"),
    ],
)
@pytest.mark.parametrize("place", ["query", "form"])
def test_what_may_not_be_called_is_refused(
    gateway: TestClient, video: bytes, url: str, status: int, code: str, place: str
) -> None:
    """Before there is a job."""
    before = gateway.get("/v1/videos").json()
    asked = {"callback_url": url}
    response = post(gateway, video, asked) if place == "query" else post(gateway, video, **asked)
    assert (response.status_code, Problem.model_validate(response.json()).code) == (status, code)
    assert gateway.get("/v1/videos").json() == before


@pytest.mark.parametrize("hosts", ["", "other.example"])
def test_a_host_that_the_settings_no_longer_list_is_refused(
    repository: Path, tmp_path: Path, hosts: str
) -> None:
    """A delivery that waits from before the settings changed ends, and the job and the metrics say so."""
    now = time.time()
    index = JobIndex.in_folder(tmp_path)
    job = Job("a", "failed", "v", "p", 1, "00", now, now, now, code="invalid_video", detail="x")
    index.add(job, 1, "http://127.0.0.1:9/")
    index.close()
    with client(
        repository, videos_folder=tmp_path, webhook_hosts=hosts, webhook_secret=SECRET if hosts else None
    ) as gateway:

        def view() -> dict[str, Any]:
            return dict(gateway.get("/v1/videos/a").json())

        eventually(lambda: view()["callback"]["state"] == "refused")
        Video.model_validate(view())
        assert "GATEWAY_WEBHOOK_HOSTS" in view()["callback"]["error"]
        assert view()["callback"]["next_attempt"] is None
        refused = 'gateway_webhook_attempts_total{outcome="refused"} 1.0'
        eventually(lambda: refused in gateway.get("/metrics").text)


def test_a_refusal_comes_before_the_video_is_read(gateway: TestClient) -> None:
    """A URL in the query is judged first; what follows isn't even a video."""
    response = gateway.post("/v1/videos", params={"callback_url": "http://other.example/"}, content=b"words")
    assert response.json()["code"] == "url_refused"


def test_one_url_is_given_once(gateway: TestClient, receiver: Receiver, video: bytes) -> None:
    """Not in the query and in the form."""
    response = post(gateway, video, {"callback_url": receiver.url}, callback_url=receiver.url)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert "once" in response.json()["detail"]
