"""`POST /v1/videos` with `Idempotency-Key`, and the pages of `GET /v1/videos`."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.analysis import patches
from support.servers.gateway import client, server
from support.waiting import eventually

from app.api.openapi.schemas import Problem
from app.api.openapi.video_schemas import Videos
from app.keys.access import digest_of
from app.state.jobs import JobIndex

PROFILE = "components: {core_object_detections: {variant: n}}\n"
KEYS = ("gw_a", "gw_b", "gw_all")


def headers(key: str | None = None, api_key: str = KEYS[0]) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} | ({} if key is None else {"Idempotency-Key": key})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "videos"


@pytest.fixture(scope="module")
def gateway(all_families: Path, folder: Path) -> Iterator[TestClient]:
    """Two callers and one who sees all jobs; videos may be fetched from a port where nobody answers."""
    scopes = ("infer", "infer", "infer,operate")
    entries = ";".join(
        f"{name} sha256:{digest_of(key.encode()).hex()} scopes={scope}"
        for name, key, scope in zip("abo", KEYS, scopes, strict=True)
    )
    settings = {"video_sources": "127.0.0.1", "allowed_networks": "127.0.0.1", "api_keys": entries}
    with client(all_families, videos_folder=folder, **settings) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4", 4).read_bytes()


def post(http: Any, video: bytes, key: str | None, api_key: str = KEYS[0], **form: str) -> Any:
    files = {"file": ("v.mp4", video)}
    return http.post(
        "/v1/videos", files=files, data={"profile": PROFILE, **form}, headers=headers(key, api_key)
    )


def problem(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, Problem.model_validate(response.json()).code


def test_a_retry_returns_the_job_of_the_first_request(
    gateway: TestClient, folder: Path, video: bytes
) -> None:
    """Quoted or bare, and nothing of the second video stays on the disk."""
    first, again = post(gateway, video, '"k-1"'), post(gateway, video, "k-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert list((folder / ".incoming").iterdir()) == []
    assert post(gateway, video, "k-1", KEYS[1]).json()["id"] != first.json()["id"]
    assert post(gateway, video, None).json()["id"] != first.json()["id"]


def test_a_retry_with_another_payload_is_refused(gateway: TestClient, video: bytes) -> None:
    """Another video, profile or name; the job of the key stays as it is."""
    first = post(gateway, video, "k-2", name="a").json()
    other_profile = "components: {core_object_detections: {variant: n, classes: [0]}}\n"
    for change in ({"name": "b"}, {"name": "a", "profile": other_profile}):
        assert problem(post(gateway, video, "k-2", **change)) == (422, "idempotency_key_reused")
    assert problem(post(gateway, video + bytes(8), "k-2", name="a")) == (422, "idempotency_key_reused")
    asked = {"source": "http://127.0.0.1:9/v.mp4", "profile": PROFILE, "name": "a"}
    other = gateway.post("/v1/videos", json=asked, headers=headers("k-2"))
    assert problem(other) == (422, "idempotency_key_reused")
    assert post(gateway, video, "k-2", name="a").json()["id"] == first["id"]


def test_a_refused_submission_leaves_its_key_free(gateway: TestClient, video: bytes) -> None:
    """The same key then makes the job; a deleted job's key makes another."""
    assert problem(post(gateway, b"no video", "k-3")) == (415, "unsupported_media_type")
    assert problem(post(gateway, video, "k-3", profile="nope")) == (400, "invalid_parameter")
    first = post(gateway, video, "k-3")
    assert first.status_code == 202, first.text
    gateway.delete(first.headers["location"], headers=headers())
    second = post(gateway, video, "k-3")
    assert second.json()["id"] != first.json()["id"]
    assert "idempotency-replayed" not in second.headers


def test_a_source_has_keys_too(gateway: TestClient) -> None:
    """The digest is that of the URL, since no video is there yet."""
    asked = {"source": "http://127.0.0.1:9/v.mp4?signature=1", "profile": PROFILE}
    first, again = (gateway.post("/v1/videos", json=asked, headers=headers("k-4")) for _ in range(2))
    assert first.status_code == 202, first.text
    assert (again.json()["id"], again.headers["idempotency-replayed"]) == (first.json()["id"], "true")
    other = asked | {"source": "http://127.0.0.1:9/v.mp4?signature=2"}
    assert problem(gateway.post("/v1/videos", json=other, headers=headers("k-4"))) == (
        422,
        "idempotency_key_reused",
    )


@pytest.mark.parametrize("key", ["", '""', '"a', "a b", "a,b", "ä", '"\t"', "x" * 256, '"a"b', "\\"])
def test_what_is_no_key_is_refused(gateway: TestClient, video: bytes, key: str) -> None:
    """With the header's name, before the video is kept."""
    sent = [(b"idempotency-key", key.encode("latin-1")), (b"authorization", f"Bearer {KEYS[0]}".encode())]
    response = gateway.post("/v1/videos?profile=x", content=video, headers=sent)
    assert problem(response) == (400, "invalid_parameter")
    assert "Idempotency-Key" in response.json()["detail"]


def test_several_keys_are_refused(gateway: TestClient, video: bytes) -> None:
    sent = [("Idempotency-Key", "a"), ("Idempotency-Key", "a"), ("Authorization", f"Bearer {KEYS[0]}")]
    assert problem(gateway.post("/v1/videos?profile=x", content=video, headers=sent)) == (
        400,
        "invalid_parameter",
    )


@pytest.mark.parametrize("key", ["x" * 255, '"a b, \\"c\\" \\\\"', "8e03978e-40d5-43dd-bc93-6894a57f9324"])
def test_keys_may_have_any_printable_characters(gateway: TestClient, video: bytes, key: str) -> None:
    first, again = (post(gateway, video, key) for _ in range(2))
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_a_request_in_progress_holds_its_key(all_families: Path, tmp_path: Path, video: bytes) -> None:
    """Over a real connection: the second request waits for its turn; a first one that breaks off frees the key."""
    with server(all_families, tmp_path / "log", videos_folder=tmp_path / "v") as (http, _):
        host, port = http.base_url.host, http.base_url.port
        head = (
            f"POST /v1/videos?profile=detect_embedded&name=v HTTP/1.1\r\nHost: {host}\r\nIdempotency-Key: k\r\n"
            f"Content-Length: {len(video)}\r\n\r\n"
        ).encode()

        def second() -> Any:
            url = "/v1/videos?profile=detect_embedded&name=v"
            return http.post(url, content=video, headers={"Idempotency-Key": "k"})

        with socket.create_connection((host, port or 80)) as first:
            first.sendall(head + video[:100])
            eventually(lambda: _reserved(tmp_path / "v"))
            refused = second()
            assert problem(refused) == (409, "idempotency_key_in_use")
            assert int(refused.headers["retry-after"]) > 0
        eventually(lambda: not _reserved(tmp_path / "v"))
        made = second()
        assert made.status_code == 202, made.text
        assert second().json()["id"] == made.json()["id"]


def _reserved(folder: Path) -> bool:
    index = JobIndex.in_folder(folder)
    try:
        with index._database.reading() as connection:
            query = "SELECT count(*) FROM idempotency_keys WHERE digest IS NULL"
            return bool(connection.execute(query).fetchone()[0])
    finally:
        index.close()


def test_many_retries_at_once_make_one_job(gateway: TestClient, video: bytes) -> None:
    """Each gets the job, or is told to wait."""
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(post(gateway, video, "k-5"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {202, 409}
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(ids) == 1
    assert ids == {post(gateway, video, "k-5").json()["id"]}


def _page(http: Any, query: str, api_key: str = KEYS[2]) -> tuple[list[str], str | None]:
    response = http.get(f"/v1/videos?{query}", headers=headers(api_key=api_key))
    assert response.status_code == 200, response.text
    document = response.json()
    Videos.model_validate(document)
    link = re.fullmatch(r'<([^>]+)>; rel="next"', response.headers.get("link", ""))
    assert (link is None) == (document["next"] is None)
    if link is not None:
        assert link[1].startswith("/v1/videos?")
        assert link[1].endswith(f"after={document['next']}")
    return [row["id"] for row in document["videos"]], document["next"]


def test_pages_hold_each_job_once(gateway: TestClient, video: bytes) -> None:
    """Whatever is added and deleted between two pages; each key sees its own jobs only."""
    made = [post(gateway, video, None, KEYS[number % 2]).json()["id"] for number in range(5)]
    whole, _ = _page(gateway, "limit=1000")
    assert set(made) <= set(whole)
    first, cursor = _page(gateway, "limit=2")
    gateway.delete(f"/v1/videos/{first[1]}", headers=headers(api_key=KEYS[2]))
    post(gateway, video, None)
    rest = []
    while cursor is not None:
        page, cursor = _page(gateway, f"limit=2&after={cursor}")
        rest += page
    assert first + rest == whole
    own, _ = _page(gateway, "limit=1000", KEYS[1])
    assert set(own) & set(made) == {made[1]}  # made[3] was deleted


def test_the_list_is_filtered_by_state(gateway: TestClient, video: bytes) -> None:
    """Repeated or separated by commas; a job that is being fetched is one of the queued, too."""
    done = post(gateway, video, None, name="done").json()["id"]
    where = f"/v1/videos/{done}"
    eventually(lambda: gateway.get(where, headers=headers()).json()["state"] == "done")
    asked = {"source": "http://127.0.0.1:9/v.mp4", "profile": PROFILE}
    fetched = gateway.post("/v1/videos", json=asked, headers=headers()).json()["id"]
    assert fetched in _page(gateway, "limit=1000&state=fetching")[0]
    assert fetched in _page(gateway, "limit=1000&state=queued")[0]
    both = _page(gateway, "limit=1000&state=done,fetching")[0]
    assert {done, fetched} <= set(both)
    assert both == _page(gateway, "limit=1000&state=done&state=fetching")[0]
    assert not {done, fetched} & set(_page(gateway, "limit=1000&state=failed,running")[0])
    response = gateway.get("/v1/videos?state=deleted", headers=headers())
    assert problem(response) == (422, "validation_failed")


def _word(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x", "", "%00", "ä", _word("1/nan/" + "0" * 32), _word("1/0x1p+99999/" + "0" * 32), _word("1/0x1p+2/x"),
        _word("2/0x1.0p+2/" + "0" * 32), json.dumps({}), "a" * 199,
    ],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(gateway: TestClient, cursor: str) -> None:
    response = gateway.get("/v1/videos", params={"after": cursor}, headers=headers())
    assert problem(response) == (422, "invalid_cursor")
