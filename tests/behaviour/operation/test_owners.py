"""Sessions and jobs belong to the API key that made them, by its name."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.analysis import patches
from support.servers.gateway import client, png, scene
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.keys.access import ApiKey, Scope, digest_of, entry, new_key

FRAME = png(scene(320, 320, (0, 64, 96, 32)))
PROFILE = "components: {core_object_detections: {variant: n}}"
SCOPES: Mapping[str, frozenset[Scope]] = {
    "north": frozenset({"infer"}), "south": frozenset({"infer"}),
    "watch": frozenset({"operate"}), "chief": frozenset({"infer", "operate"}),
}  # fmt: skip
KEYS = {name: new_key() for name in SCOPES}


def entries(keys: Mapping[str, str]) -> str:
    return ";".join(entry(ApiKey(name, digest_of(key.encode()), SCOPES[name])) for name, key in keys.items())


def by(name: str, keys: Mapping[str, str] = KEYS) -> dict[str, str]:
    return {"X-API-Key": keys[name]}


@pytest.fixture(scope="module")
def gateway(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A gateway with four keys, sessions in memory, and jobs."""
    folder = tmp_path_factory.mktemp("videos")
    with client(all_families, api_keys=entries(KEYS), videos_folder=folder) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four frames."""
    return patches(tmp_path_factory.mktemp("video") / "v.mp4", 4).read_bytes()


def submit(http: TestClient, video: bytes, headers: Mapping[str, str]) -> str:
    form = {"files": {"file": ("v.mp4", video)}, "data": {"profile": PROFILE}}
    answer = http.post("/v1/videos", headers=headers, **form)  # type: ignore[arg-type]  # as the client takes them
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    limit = time.monotonic() + PATIENCE_S
    while http.get(f"/v1/videos/{job}", headers=headers).json()["state"] != "done":
        assert time.monotonic() < limit
        time.sleep(0.02)
    return job


def track(http: TestClient, session: str, headers: Mapping[str, str]) -> dict[str, Any]:
    answer = http.post(f"/v1/detect?session={session}", content=FRAME, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["session"]
    return found


@pytest.mark.parametrize("path", ["", "/events", "/artifacts/manifest.json"])
@pytest.mark.parametrize(("name", "status"), [("north", 200), ("south", 404), ("watch", 200), ("chief", 200)])
def test_a_job_is_read_by_its_key_and_by_operators(
    gateway: TestClient, video: bytes, path: str, name: str, status: int
) -> None:
    """Another key gets the 404 of a job that isn't there."""
    job = submit(gateway, video, by("north"))
    answer = gateway.get(f"/v1/videos/{job}{path}", headers=by(name))
    assert answer.status_code == status
    if status == 404:
        nothing = gateway.get(f"/v1/videos/{'0' * 32}{path}", headers=by(name)).json()
        assert answer.json()["detail"].replace(job, "") == nothing["detail"].replace("0" * 32, "")
        assert answer.json()["code"] == "video_not_found"


def test_a_job_is_deleted_by_its_key_or_by_operators(gateway: TestClient, video: bytes) -> None:
    """Another key's DELETE is a 404 and removes nothing."""
    for name, status in (("south", 404), ("north", 204), ("watch", 204), ("chief", 204)):
        job = submit(gateway, video, by("north"))
        assert gateway.delete(f"/v1/videos/{job}", headers=by(name)).status_code == status
        after = gateway.get(f"/v1/videos/{job}", headers=by("north")).status_code
        assert after == (200 if status == 404 else 404)


def test_the_list_has_the_caller_s_jobs(gateway: TestClient, video: bytes) -> None:
    """An operator's list has everybody's, with their owners."""
    jobs = {name: submit(gateway, video, by(name)) for name in ("north", "south", "chief")}
    for name in ("north", "south"):
        rows = gateway.get("/v1/videos?limit=1000", headers=by(name)).json()["videos"]
        assert {row["owner"] for row in rows} == {name}
        assert jobs[name] in {row["id"] for row in rows}
    for name in ("watch", "chief"):
        rows = gateway.get("/v1/videos?limit=1000", headers=by(name)).json()["videos"]
        assert {(row["id"], row["owner"]) for row in rows} >= {(job, key) for key, job in jobs.items()}


def test_an_operator_s_key_alone_makes_no_job(gateway: TestClient, video: bytes) -> None:
    """Posting needs the scope `infer`."""
    answer = gateway.post("/v1/videos?profile=x", content=video, headers=by("watch"))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_two_keys_may_call_a_session_the_same(gateway: TestClient) -> None:
    """Each has its own; the other's frames, GET and DELETE never reach it."""
    assert [track(gateway, "cam1", by("north"))["frame"] for _ in range(3)] == [1, 2, 3]
    assert gateway.get("/v1/sessions/cam1", headers=by("south")).status_code == 404
    assert gateway.delete("/v1/sessions/cam1", headers=by("south")).status_code == 404
    assert track(gateway, "cam1", by("south")) | {"timestamp": 0} == {
        "id": "cam1",
        "frame": 1,
        "timestamp": 0,
    }
    assert gateway.delete("/v1/sessions/cam1", headers=by("south")).status_code == 204
    mine = gateway.get("/v1/sessions/cam1", headers=by("north")).json()
    assert (mine["id"], mine["owner"], mine["frames"]) == ("cam1", "north", 3)
    other = gateway.get("/v1/sessions/cam1?owner=north", headers=by("south"))
    assert (other.status_code, other.json()["code"]) == (404, "session_not_found")


def test_operators_see_all_sessions(gateway: TestClient) -> None:
    """Their own first; of several keys' the one that `owner` names; without it a 400 that lists them."""
    for name in ("north", "south"):
        track(gateway, "gate", by(name))
    several = gateway.get("/v1/sessions/gate", headers=by("watch"))
    assert (several.status_code, several.json()["code"]) == (400, "invalid_parameter")
    assert "north, south" in several.json()["detail"]
    assert gateway.get("/v1/sessions/gate?owner=south", headers=by("watch")).json()["owner"] == "south"
    assert gateway.delete("/v1/sessions/gate?owner=south", headers=by("watch")).status_code == 204
    assert gateway.get("/v1/sessions/gate", headers=by("watch")).json()["owner"] == "north"
    track(gateway, "gate", by("chief"))
    assert gateway.get("/v1/sessions/gate", headers=by("chief")).json()["owner"] == "chief"


def test_a_rotated_key_keeps_what_it_made(all_families: Path, tmp_path: Path, video: bytes) -> None:
    """Owners are names: a new key of the old name sees the old one's jobs and sessions."""
    file = tmp_path / "keys"
    file.write_text(entries(KEYS).replace(";", "\n"))
    with client(all_families, api_keys_file=file, videos_folder=tmp_path / "v") as http:
        job = submit(http, video, by("north"))
        track(http, "cam1", by("north"))
        fresh = {**KEYS, "north": new_key()}
        file.write_text(entries(fresh).replace(";", "\n"))
        limit = time.monotonic() + PATIENCE_S
        while http.get(f"/v1/videos/{job}", headers=by("north", fresh)).status_code == 401:
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert http.get(f"/v1/videos/{job}", headers=by("north", fresh)).status_code == 200
        assert track(http, "cam1", by("north", fresh))["frame"] == 2


def test_what_was_made_without_keys_belongs_to_operators(
    all_families: Path, tmp_path: Path, video: bytes
) -> None:
    """A job of a gateway without keys, once keys are set: `operate` sees it, `infer` doesn't; and back."""
    with client(all_families, videos_folder=tmp_path) as http:
        job = submit(http, video, {})
        assert http.get(f"/v1/videos/{job}").json()["owner"] is None
    with client(all_families, videos_folder=tmp_path, api_keys=entries(KEYS)) as http:
        seen = {name: http.get(f"/v1/videos/{job}", headers=by(name)).status_code for name in KEYS}
        assert seen == {"north": 404, "south": 404, "watch": 200, "chief": 200}
        submit(http, video, by("north"))
    with client(all_families, videos_folder=tmp_path) as http:
        assert {row["owner"] for row in http.get("/v1/videos").json()["videos"]} == {None, "north"}


def test_jobs_of_an_earlier_version_are_opened(all_families: Path, tmp_path: Path, video: bytes) -> None:
    """An index without the column of owners, in WAL mode as it was written, opens with its jobs."""
    with client(all_families, videos_folder=tmp_path) as http:
        job = submit(http, video, {})
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as index:
        index.execute("ALTER TABLE jobs DROP COLUMN made_by")
        index.execute("DROP TABLE reserve")
    index.execute("PRAGMA journal_mode = WAL")
    index.close()
    with client(all_families, videos_folder=tmp_path, api_keys=entries(KEYS)) as http:
        assert http.get(f"/v1/videos/{job}", headers=by("watch")).json()["state"] == "done"
        assert http.get(f"/v1/videos/{job}", headers=by("north")).status_code == 404


def test_sessions_in_redis_are_separate_too(all_families: Path, tmp_path: Path) -> None:
    """Two keys' `cam1` in one Redis are two sessions; one made before keys were set is an operator's."""
    with RedisServer(tmp_path / "redis") as redis:
        with client(all_families, session_store=redis.url) as http:
            track(http, "old", {})
        with client(all_families, session_store=redis.url, api_keys=entries(KEYS)) as http:
            assert [track(http, "cam1", by(name))["frame"] for name in ("north", "south", "north")] == [
                1,
                1,
                2,
            ]
            seen = {name: http.get("/v1/sessions/old", headers=by(name)).status_code for name in KEYS}
    assert seen == {"north": 404, "south": 404, "watch": 200, "chief": 200}
