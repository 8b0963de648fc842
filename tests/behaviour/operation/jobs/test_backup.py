"""A copy of the video jobs while they run, and another service that continues from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.analysis import patches
from support.paths import ROOT
from support.servers.gateway import server
from support.waiting import eventually

PROFILE = "components: {core_object_detections: {variant: n}}\n"


def gateway(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def submit(http: Any, video: bytes) -> str:
    response = http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": PROFILE})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def view(http: Any, job: str) -> dict[str, Any]:
    document: dict[str, Any] = http.get(f"/v1/videos/{job}").json()
    return document


def test_another_service_continues_from_a_copy(all_families: Path, tmp_path: Path) -> None:
    """One job is done, one runs, one waits: the copy has all three, and its results have their digests."""
    short = patches(tmp_path / "short.mp4", 12).read_bytes()
    long = patches(tmp_path / "long.mp4", 900).read_bytes()
    folder, copy = tmp_path / "videos", tmp_path / "copy"
    with server(all_families, tmp_path / "log", videos_folder=folder) as (http, _):
        done = submit(http, short)
        eventually(lambda: view(http, done)["state"] == "done")
        running, waiting = submit(http, long), submit(http, short)
        eventually(lambda: view(http, running)["frames"] > 0)
        made = gateway("backup", copy, videos_folder=folder)
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith("3 jobs, ")
        later = submit(http, short)
        digests = {row["name"]: row["sha256"] for row in view(http, done)["manifest"]["artifacts"]}
    assert {path.name for path in copy.iterdir()} == {"jobs.sqlite3", done, running, waiting}
    with server(all_families, tmp_path / "log2", videos_folder=copy) as (http, _):
        for job in (running, waiting):
            eventually(lambda job=job: view(http, job)["state"] == "done")  # type: ignore[misc]  # bound at once
        assert {row["name"]: row["sha256"] for row in view(http, done)["manifest"]["artifacts"]} == digests
        assert http.get(f"/v1/videos/{later}").status_code == 404
        assert view(http, running)["manifest"]["frames"]["sampled"] == 900
    checked = gateway("verify", copy, repository=all_families)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_can_t_be_copied_is_said(tmp_path: Path) -> None:
    """No jobs, a target that is in use, and a database elsewhere."""
    target = tmp_path / "copy"
    none = gateway("backup", target, videos_folder=tmp_path / "none")
    assert (none.returncode, "GATEWAY_VIDEOS_FOLDER" in none.stderr) == (2, True)
    (tmp_path / "jobs.sqlite3").touch()
    used = gateway("backup", tmp_path, videos_folder=tmp_path)
    assert (used.returncode, "empty" in used.stderr) == (2, True)
    elsewhere = gateway("backup", target, videos_folder=tmp_path, job_store="postgresql://localhost/jobs")
    assert (elsewhere.returncode, "pg_dump" in elsewhere.stderr) == (2, True)
    (tmp_path / "jobs.sqlite3").write_bytes(b"no database" * 100)
    damaged = gateway("backup", target, videos_folder=tmp_path)
    assert damaged.returncode == 1, damaged.stderr
    assert "Traceback" not in damaged.stderr
