"""The videos' folder without room: reading and deleting work, writing is a 503, and no job is lost."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.analysis import patches
from support.servers.gateway import server

PROFILE = "components: {core_object_detections: {variant: n}}"
DISK_BYTES = 3 << 20
LEVELS = 12


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, room: int) -> None:
    """Leave `room` bytes of the disk."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while (left := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - room) > 0:
            file.write(bytes(min(left, 1 << 16)))


def submit(http: httpx2.Client, video: bytes) -> httpx2.Response:
    return http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": PROFILE})


def state(http: httpx2.Client, job: str) -> str:
    view = http.get(f"/v1/videos/{job}")
    assert view.status_code == 200, view.text
    return str(view.json()["state"])


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def folders(videos: Path) -> set[str]:
    return {path.name for path in videos.iterdir() if len(path.name) == 32}


def reads(http: httpx2.Client, job: str) -> list[int]:
    paths = ("/v1/videos", f"/v1/videos/{job}", f"/v1/videos/{job}/events", "/metrics", "/readyz")
    return [http.get(path).status_code for path in paths]


def test_every_fill_level_is_survived(repository: Path, disk: Path, tmp_path: Path) -> None:
    """At 12 fill levels nothing is a 500, reading and deleting work, and every accepted job is done in the end."""
    video = patches(tmp_path / "v.mp4", 6).read_bytes()
    with server(repository, tmp_path / "log", videos_folder=disk / "videos") as (http, _):
        kept = submit(http, video).json()["id"]
        accepted: list[str] = [kept]
        answers: list[Any] = []
        for level in range(LEVELS):
            doomed = submit(http, video).json()["id"]
            until(lambda doomed=doomed: {state(http, kept), state(http, doomed)} == {"done"})
            fill(disk, level * (len(video) // 2))
            answer = submit(http, video)
            answers.append((answer.status_code, "retry-after" in answer.headers, answer.json().get("code")))
            assert reads(http, kept) == [200] * 5, level
            assert http.delete(f"/v1/videos/{doomed}").status_code == 204, level
            (disk / "ballast").unlink()
            accepted += [answer.json()["id"]] if answer.status_code == 202 else []
            until(lambda accepted=tuple(accepted): all(state(http, job) == "done" for job in accepted))
        assert set(answers) == {(202, False, None), (503, True, "videos_unavailable")}
        until(lambda: folders(disk / "videos") == set(accepted))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_running_job_resumes_when_there_is_room(repository: Path, disk: Path, tmp_path: Path) -> None:
    """A job that runs while the disk fills up waits with its input, and says for what; with room it is done."""
    video = patches(tmp_path / "v.mp4", 600).read_bytes()
    with server(repository, tmp_path / "log", videos_folder=disk / "videos") as (http, _):
        job = submit(http, video).json()["id"]
        until(lambda: state(http, job) == "running")
        fill(disk, 0)
        until(lambda: state(http, job) == "queued")
        view = http.get(f"/v1/videos/{job}").json()
        assert view["error"]["code"] == "videos_unavailable"
        assert (disk / "videos" / job / "input").stat().st_size == len(video)
        (disk / "ballast").unlink()
        until(lambda: state(http, job) == "done")
        assert http.get(f"/v1/videos/{job}").json()["frames"] == 600


def test_a_job_waits_for_room_under_a_file_size_limit(repository: Path, tmp_path: Path) -> None:
    """The same with a limit of the process in place of a full disk, which needs no root; SQLite can't write either."""
    video = patches(tmp_path / "v.mp4", 900).read_bytes()
    with server(repository, tmp_path / "log", videos_folder=tmp_path / "videos") as (http, pid):
        job = submit(http, video).json()["id"]
        until(lambda: http.get(f"/v1/videos/{job}").json()["frames"] > 0)
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        until(lambda: not _children(pid))  # the analysis has ended, and with it its decoder
        refused = submit(http, video)
        assert (refused.status_code, refused.json()["code"]) == (503, "videos_unavailable")
        assert (state(http, job), (tmp_path / "videos" / job / "input").exists()) == ("running", True)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: state(http, job) == "done")
        assert http.get(f"/v1/videos/{job}").json()["frames"] == 900


def _children(pid: int) -> list[str]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for path in found for child in path.read_text().split()]


def test_a_service_that_starts_on_a_full_disk_begins_when_there_is_room(
    repository: Path, disk: Path, tmp_path: Path
) -> None:
    """The service starts, answers 503 for videos and serves the rest; then it takes jobs without a restart."""
    video = patches(tmp_path / "v.mp4", 12).read_bytes()
    fill(disk, 0)
    with server(repository, tmp_path / "log", videos_folder=disk / "videos") as (http, _):
        listed, posted = http.get("/v1/videos"), submit(http, video)
        assert (listed.status_code, posted.status_code) == (503, 503)
        assert {listed.json()["code"], posted.json()["code"]} == {"videos_unavailable"}
        assert (http.get("/metrics").status_code, http.get("/readyz").status_code) == (200, 200)
        (disk / "ballast").unlink()
        until(lambda: http.get("/v1/videos").status_code == 200)  # it is looked at twice a second
        job = submit(http, video).json()["id"]
        until(lambda: state(http, job) == "done")


def test_folders_that_belong_to_no_job_are_swept(repository: Path, tmp_path: Path) -> None:
    """Folders and uploads that a crash left go at the next start; what isn't ours stays."""
    videos = tmp_path / "videos"
    orphan, foreign = videos / ("0" * 32), videos / "notes"
    for folder in (orphan, foreign, videos / ".incoming"):
        folder.mkdir(parents=True)
        (folder / "x.upload").write_bytes(b"x")
    with server(repository, tmp_path / "log", videos_folder=videos):
        until(lambda: not orphan.exists() and not (videos / ".incoming" / "x.upload").exists())
    assert foreign.exists()


def test_uploads_that_wait_have_a_quota(repository: Path, tmp_path: Path) -> None:
    """Inputs on disk together stay under the quota: 429 with Retry-After; one that can never fit is a 413."""
    video = patches(tmp_path / "v.mp4", 600).read_bytes()
    small = patches(tmp_path / "s.mp4", 4).read_bytes()
    quota = len(video) + len(small) // 2
    with server(
        repository, tmp_path / "log", videos_folder=tmp_path / "videos", videos_waiting_bytes=quota
    ) as (http, _):
        job = submit(http, video).json()["id"]
        refused = http.post("/v1/videos?profile=detect_embedded", content=iter([small]))
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert list((tmp_path / "videos" / ".incoming").iterdir()) == []
        too_large = http.post("/v1/videos?profile=detect_embedded", content=video + bytes(len(video)))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "payload_too_large")
        until(lambda: state(http, job) == "done")
        assert submit(http, small).status_code == 202
