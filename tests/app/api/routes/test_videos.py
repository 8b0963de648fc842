"""Videos as jobs: from the upload to the artefacts, and everything that may happen in between."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import videos
from support.analysis import (
    ARTIFACTS,
    EVERYTHING,
    arrays,
    opened,
    patches,
    pipeline_set,
    profile,
    same_numbers,
)
from support.models.repository import CATALOGUE
from support.servers.gateway import client, server
from support.waiting import PATIENCE_S, eventually

from app.api.openapi.schemas import Problem
from app.api.openapi.video_schemas import Video
from app.deadline import Deadline
from app.errors import ModelNotReady
from app.state.jobs import JobIndex
from app.videos.analysis import VideoAnalysis
from app.videos.stores.folder import FolderStore

# What a frame costs least, for videos that are long.
BOXES = "components: {core_object_detections: {variant: n}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder where the module's service keeps its videos."""
    return tmp_path_factory.mktemp("kept") / "videos"


@pytest.fixture(scope="module")
def gateway(all_families: Path, folder: Path) -> Iterator[TestClient]:
    """Ready, with a branch of every family and a folder for videos."""
    with client(all_families, videos_folder=folder) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twelve frames at 25 a second."""
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4").read_bytes()


def submit(http: Any, video: bytes, text: str = EVERYTHING, **form: str) -> dict[str, Any]:
    response = http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": text, **form})
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/videos/{document['id']}"
    Video.model_validate(document)
    return document


def until(
    http: Any, video_id: str, done: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_S
) -> dict[str, Any]:
    limit = time.monotonic() + seconds
    while True:
        view: dict[str, Any] = http.get(f"/v1/videos/{video_id}").json()
        if done(view):
            return view
        assert time.monotonic() < limit, view
        time.sleep(0.02)


def over(view: dict[str, Any]) -> bool:
    return view["state"] in ("done", "failed")


def problem(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, Problem.model_validate(response.json()).code


def test_a_video_becomes_artefacts(gateway: TestClient, folder: Path, video: bytes) -> None:
    """Submitted, done, and fetched: every artefact of the profile with the digest that the manifest gives."""
    job = submit(gateway, video, name="holiday.mp4")
    assert job["state"] in ("queued", "running")  # it may be at it by now
    assert (job["name"], job["bytes"]) == ("holiday.mp4", len(video))
    view = until(gateway, job["id"], over)
    Video.model_validate(view)
    assert (view["state"], view["frames"], view["fraction"], view["error"]) == ("done", 12, 1.0, None)
    assert not view["partial"]
    manifest = view["manifest"]
    assert manifest["input"] == {
        "name": "holiday.mp4", "bytes": len(video), "sha256": hashlib.sha256(video).hexdigest(),
    }  # fmt: skip
    assert {row["name"] for row in manifest["artifacts"]} == ARTIFACTS
    for row in manifest["artifacts"]:
        fetched = gateway.get(f"/v1/videos/{job['id']}/artifacts/{row['name']}")
        assert hashlib.sha256(fetched.content).hexdigest() == row["sha256"]
        assert len(arrays(fetched.content)["frame_indices"]) == 12
    assert gateway.get(view["links"]["artifacts"][-1]).json()["run_id"] == manifest["run_id"]
    assert not (folder / job["id"] / "input").exists()
    further = {link for link in view["links"]["artifacts"] if link.endswith((".parquet", ".coco.json"))}
    assert len(further) == len(ARTIFACTS) + 1
    for link in further:  # made when they are asked for, and the same the second time
        first, again = gateway.get(link), gateway.get(link)
        assert (first.status_code, first.content) == (200, again.content)
        table = link.endswith(".parquet")
        assert first.headers["content-type"] == (
            "application/vnd.apache.parquet" if table else "application/json"
        )
        assert first.content[:4] == b"PAR1" if table else len(first.json()["images"]) == 12
    assert gateway.get("/v1/videos?limit=1").json()["videos"][0]["id"] == job["id"]


def test_parts_of_an_artefact(gateway: TestClient, video: bytes) -> None:
    """`Range` gives its bytes, one outside of the file a problem, one that can't be read the whole file (RFC 9110)."""
    job = submit(gateway, video, BOXES)
    until(gateway, job["id"], over)
    path = f"/v1/videos/{job['id']}/artifacts/core_object_detections/detections.npz"
    whole = gateway.get(path)
    part = gateway.get(path, headers={"Range": "bytes=3-6"})
    assert (part.status_code, part.content) == (206, whole.content[3:7])
    outside = gateway.get(path, headers={"Range": f"bytes={len(whole.content)}-"})
    assert problem(outside) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == f"bytes */{len(whole.content)}"
    for odd in ("bytes=9-0", "bytes=x", "bytes=-", "items=0-1", "x"):
        answer = gateway.get(path, headers={"Range": odd})
        assert (answer.status_code, answer.content) == (200, whole.content), odd


def test_an_artefact_that_the_caller_has(gateway: TestClient, video: bytes) -> None:
    """`If-None-Match` with its tag is answered by 304 and no body."""
    job = submit(gateway, video, BOXES)
    until(gateway, job["id"], over)
    path = f"/v1/videos/{job['id']}/artifacts/manifest.json"
    tag = gateway.get(path).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = gateway.get(path, headers={"If-None-Match": known, "Range": "bytes=0-1"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), known
    assert gateway.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_service_that_calls_nobody_refuses_callbacks(gateway: TestClient, video: bytes) -> None:
    """Without hosts in the settings; the hint names who can change that."""
    form = {"profile": BOXES, "callback_url": "https://hooks.example.com/"}
    response = gateway.post("/v1/videos", files={"file": ("v.mp4", video)}, data=form)
    assert problem(response) == (422, "url_refused")
    assert "GATEWAY_WEBHOOK_HOSTS" in response.json()["detail"]


def test_a_named_profile_and_a_raw_body(gateway: TestClient, video: bytes) -> None:
    """The operator's profiles are known by name, and curl's --data-binary is enough."""
    response = gateway.post("/v1/videos?profile=detect_embedded&name=x", content=video)
    assert response.status_code == 202, response.text
    view = until(gateway, response.json()["id"], over)
    assert (view["state"], view["profile"], view["name"]) == ("done", "detect_embedded", "x")


def _kept(folder: Path) -> set[str]:
    """Return the files there without the journal that SQLite keeps beside its own file."""
    return {path.name for path in folder.iterdir()} - {"jobs.sqlite3-journal"}


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, "invalid_parameter"),
        ({"profile": "nope"}, "invalid_parameter"),
        ({"profile": "components: {core_clip: {prompts: {a: /etc/passwd}}}"}, "invalid_parameter"),
        ({"profile": "components: {core_object_detections: {classes: [unicorn]}}"}, "invalid_parameter"),
        ({"profile": "components: {core_depth_midas: {branch: midas_9}}"}, "model_not_found"),
        ({"profile": "components: {core_depth_midas: {branch: midas_384}}"}, "weights_missing"),
        ({"profile": "a: ["}, "invalid_parameter"),
        ({"profile": "p", "other": "x"}, "invalid_parameter"),
        ({"profile": [BOXES, BOXES]}, "invalid_parameter"),
    ],
    ids=str,
)
def test_what_will_never_work_is_refused_at_once(
    gateway: TestClient, folder: Path, video: bytes, form: dict[str, Any], code: str
) -> None:
    """Profile, classes and branches are looked at before the job is taken; nothing of it is kept."""
    before = _kept(folder)
    response = gateway.post("/v1/videos", files={"file": ("v.mp4", video)}, data=form)
    assert problem(response)[1] == code
    assert _kept(folder) | {".incoming"} == before | {".incoming"}
    assert list((folder / ".incoming").iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"", b"text", b"#EXTM3U\n", b"\xff\xd8\xff\xe0picture", b"\0\0\0\x20ftypisom" + b"\0" * 99]
)
def test_what_is_no_video_is_refused(gateway: TestClient, folder: Path, body: bytes) -> None:
    """By content: 415 for another kind, 400 for a broken one; nothing is left on the disk."""
    response = gateway.post("/v1/videos?profile=detect_embedded", content=body)
    assert problem(response) in [(415, "unsupported_media_type"), (400, "invalid_video")]
    assert "MP4" in response.json()["what_to_do"]
    assert list((folder / ".incoming").iterdir()) == []


def test_a_video_that_breaks_off_is_done_as_far_as_it_goes(gateway: TestClient, tmp_path: Path) -> None:
    """The job is done, and its manifest says partial and why."""
    broken = videos.cut(patches(tmp_path / "whole.mkv", 60), 0.5).read_bytes()
    view = until(gateway, submit(gateway, broken)["id"], over)
    assert (view["state"], view["partial"], view["error"]["code"]) == ("done", True, "invalid_video")
    rows = {row["id"]: row["partial"] for row in gateway.get("/v1/videos").json()["videos"]}
    assert rows[view["id"]]
    assert (view["manifest"]["status"], view["manifest"]["fault"]["code"]) == ("partial", "invalid_video")


def test_events_tell_the_progress(gateway: TestClient, tmp_path: Path) -> None:
    """Progress as it goes, then the end, each with the job as JSON; a job that is over is told at once."""
    long = patches(tmp_path / "long.mp4", 100).read_bytes()
    job = submit(gateway, long, BOXES)
    response = gateway.get(f"/v1/videos/{job['id']}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.replace("\r\n", "\n").strip().split("\n\n")
    events = [block.splitlines() for block in blocks if not block.startswith(":")]  # a ping on a slow machine
    kinds = [rows[0] for rows in events]
    assert kinds[-1] == "event: done"
    assert set(kinds[:-1]) == {"event: progress"}
    frames = [json.loads(rows[1].removeprefix("data: "))["frames"] for rows in events]
    assert frames == sorted(frames)
    assert frames[-1] == 100
    again = gateway.get(f"/v1/videos/{job['id']}/events").text
    assert again.startswith("event: done")


@pytest.mark.parametrize("path", ["", "/events", "/artifacts/manifest.json"])
def test_an_unknown_video_is_not_found(gateway: TestClient, path: str) -> None:
    """A word that no job has is a 404 with its code."""
    assert problem(gateway.get(f"/v1/videos/nope{path}")) == (404, "video_not_found")
    assert problem(gateway.delete("/v1/videos/nope")) == (404, "video_not_found")


@pytest.mark.parametrize(
    "name",
    [
        "../profile.json",
        "..%2fprofile.json",
        "/etc/passwd",
        "core_clip",
        "nope",
    ],
)
def test_only_what_the_manifest_lists_is_given_out(gateway: TestClient, video: bytes, name: str) -> None:
    """No path leads anywhere else."""
    job = submit(gateway, video)
    until(gateway, job["id"], over)
    response = gateway.get(f"/v1/videos/{job['id']}/artifacts/{name}")
    assert response.status_code == 404
    assert response.json()["code"] in ("video_not_found", "not_found")


def test_deleting_stops_a_job_and_removes_it(gateway: TestClient, folder: Path, tmp_path: Path) -> None:
    """A running job ends soon, its files are gone, and nobody finds it any more."""
    long = patches(tmp_path / "long.mp4", 600).read_bytes()
    job = submit(gateway, long)
    until(gateway, job["id"], lambda view: view["state"] == "running" and view["frames"] > 0)
    assert gateway.delete(f"/v1/videos/{job['id']}").status_code == 204
    assert problem(gateway.get(f"/v1/videos/{job['id']}")) == (404, "video_not_found")
    eventually(lambda: not (folder / job["id"]).exists())
    after = submit(gateway, videos.write(tmp_path / "s.mp4", videos.textured(3)).read_bytes())
    assert until(gateway, after["id"], over)["state"] == "done"


def test_deleting_a_job_that_waits_or_is_done(gateway: TestClient, folder: Path, video: bytes) -> None:
    """Whatever its state, it is gone at once."""
    done = submit(gateway, video)
    until(gateway, done["id"], over)
    assert gateway.delete(f"/v1/videos/{done['id']}").status_code == 204
    assert not (folder / done["id"]).exists()


def test_only_so_many_wait(all_families: Path, tmp_path: Path) -> None:
    """A full queue is a 429 with Retry-After; what was taken is done."""
    short = patches(tmp_path / "short.mp4", 12).read_bytes()
    with client(all_families, videos_folder=tmp_path / "v", max_jobs_waiting=1, leases=1) as http:
        engine = http.app.state.gateway.router.engine  # type: ignore[attr-defined]  # a Starlette application
        with engine.lease(
            CATALOGUE.branches["clip_text"], Deadline.after(PATIENCE_S)
        ):  # the first one waits for it
            first = submit(http, short)
            until(http, first["id"], lambda view: view["state"] == "running")
            second = submit(http, short)
            assert http.get(f"/v1/videos/{second['id']}").json()["position"] == 0
            refused = http.post("/v1/videos?profile=detect_embedded", content=short)
            assert problem(refused) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
        assert until(http, second["id"], over)["state"] == "done"


def test_finished_videos_are_kept_for_a_limited_time(
    all_families: Path, tmp_path: Path, video: bytes
) -> None:
    """Videos beyond the limit are removed with their files."""
    with client(all_families, videos_folder=tmp_path / "v") as http:
        job = submit(http, video)
        until(http, job["id"], over)
    with client(all_families, videos_folder=tmp_path / "v", videos_keep_bytes=0) as http:
        limit = time.monotonic() + PATIENCE_S
        while http.get(f"/v1/videos/{job['id']}").status_code == 200 or (tmp_path / "v" / job["id"]).exists():
            assert time.monotonic() < limit
            time.sleep(0.05)


def test_files_that_are_made_on_demand_are_kept_and_removed_with_their_job(
    gateway: TestClient, folder: Path, video: bytes
) -> None:
    """They count as kept, so that the limit holds them too, and go with the job."""
    job = submit(gateway, video)
    links = until(gateway, job["id"], over)["links"]["artifacts"]
    index = JobIndex.in_folder(folder)
    (before,) = [row.kept_bytes for row in index.newest(1)]
    sizes = [len(gateway.get(link).content) for link in links if link.endswith((".parquet", ".coco.json"))]
    (after,) = [row.kept_bytes for row in index.newest(1)]
    assert len(sizes) == len(ARTIFACTS) + 1
    assert after == before + sum(sizes)
    files = [path for path in (folder / job["id"]).rglob("*") if path.is_file() and path.name != "input"]
    assert after == sum(path.stat().st_size for path in files)
    assert job["id"] in index.expired(time.time(), 3600.0, after - 1)
    index.close()
    gateway.delete(f"/v1/videos/{job['id']}")
    eventually(lambda: not (folder / job["id"]).exists())


def test_a_service_without_a_folder_takes_no_videos(all_families: Path, video: bytes) -> None:
    """The service says so, and serves everything else."""
    with client(all_families, videos_folder=None) as http:
        assert problem(http.post("/v1/videos?profile=x", content=video)) == (503, "videos_unavailable")
        assert http.get("/readyz").status_code == 200


def test_stopping_the_service_keeps_its_jobs(all_families: Path, tmp_path: Path) -> None:
    """A job that runs when the service is told to stop goes on in the next one; no frame is done twice."""
    long = patches(tmp_path / "long.mp4", 300).read_bytes()
    with client(all_families, videos_folder=tmp_path / "v") as http:
        job = submit(http, long, BOXES)
        seen = until(http, job["id"], lambda view: view["frames"] > 70)["frames"]
    with client(all_families, videos_folder=tmp_path / "v") as http:
        view = until(http, job["id"], over)
        assert view["state"] == "done"
        assert view["manifest"]["frames"]["resumed"] >= seen


def test_a_killed_service_s_job_ends_the_same(all_families: Path, tmp_path: Path) -> None:
    """Kill -9 in the middle of a job; started again, the artefacts are those of an undisturbed run, to the bit."""
    long = patches(tmp_path / "long.mp4", 120)
    with opened(long) as given, pipeline_set(all_families) as pipelines:
        VideoAnalysis(pipelines, profile(), FolderStore(tmp_path / "undisturbed"), "x").run(given)
    kept = tmp_path / "v"
    with server(all_families, tmp_path / "first.log", videos_folder=kept, embedded_threads=1) as (http, pid):
        job = submit(http, long.read_bytes())
        chunks = kept / job["id"] / "output" / ".partial"
        until(http, job["id"], lambda view: view["frames"] > 20 and any(chunks.glob("chunk-*")))
        os.kill(pid, signal.SIGKILL)
    with server(all_families, tmp_path / "second.log", videos_folder=kept, embedded_threads=1) as (http, _):
        view = until(http, job["id"], over)
    assert (view["state"], view["attempts"]) == ("done", 2)
    assert view["manifest"]["frames"]["resumed"] > 0
    assert same_numbers(tmp_path / "undisturbed", kept / job["id"] / "output")
    assert [path.name for path in (kept / job["id"]).iterdir()] != []
    assert not (kept / job["id"] / "output" / ".partial").exists()


def test_a_job_that_finds_its_models_loading_tries_again_soon(
    gateway: TestClient, folder: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pause is 2 s, and the next one twice as long."""
    run, failed = VideoAnalysis.run, list[float]()

    def once_loaded(self: VideoAnalysis, *given: Any, **options: Any) -> dict[str, Any]:
        if len(failed) < 2:
            failed.append(time.time())
            raise ModelNotReady("it loads", retry_after=1.0)
        return run(self, *given, **options)

    monkeypatch.setattr(VideoAnalysis, "run", once_loaded)
    job = submit(gateway, video, BOXES)
    view = until(gateway, job["id"], over)
    assert (view["state"], view["attempts"]) == ("done", 3)
    index = JobIndex.in_folder(folder)
    row = index.get(job["id"])
    index.close()
    assert row is not None
    assert failed[1] + 3.9 < row.not_before < failed[1] + 29
    gateway.delete(f"/v1/videos/{job['id']}")


def test_a_branch_that_nobody_loads_is_no_reason_to_wait(
    all_families: Path, tmp_path: Path, video: bytes
) -> None:
    """A profile for what is left out here is refused at once, and says that waiting won't help."""
    with client(all_families, videos_folder=tmp_path / "v", models="yolo11n_320") as http:
        text = "components: {core_object_detections: {branch: yolo11n_640}}"
        answer = http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": text})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")
        assert "retry-after" not in answer.headers
        assert http.get("/v1/videos").json()["videos"] == []


def test_workers_share_the_queue(all_families: Path, tmp_path: Path, video: bytes) -> None:
    """With two worker processes every job runs once, whichever process took it and whichever is asked."""
    with server(all_families, tmp_path / "log", videos_folder=tmp_path / "v", workers=2) as (http, _):
        ids = [submit(http, video)["id"] for _ in range(6)]
        views = [until(http, video_id, over) for video_id in ids]
    assert {(view["state"], view["attempts"]) for view in views} == {("done", 1)}
