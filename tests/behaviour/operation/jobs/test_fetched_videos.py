"""A video that is being fetched survives a stop and a kill of the service, and leaves no secret of its URL."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from support.analysis import patches
from support.servers.gateway import server
from support.video_source import Plan, serving
from support.waiting import eventually

SETTINGS = {"video_sources": "127.0.0.1", "allowed_networks": "127.0.0.1", "log_level": "debug"}
PROFILE = {"components": {"core_object_detections": {"variant": "n"}}}


def test_a_fetch_is_continued_after_a_stop_and_after_a_kill(repository: Path, tmp_path: Path) -> None:
    """The second and the third service ask for the rest only, and the job runs once the video is whole."""
    video = patches(tmp_path / "v.mp4").read_bytes()
    half, kept, logs = len(video) // 2, tmp_path / "kept", [tmp_path / f"{name}.log" for name in "abc"]
    settings = {"videos_folder": kept, "embedded_threads": 1, **SETTINGS}
    with serving(video) as source:
        source.plans = [Plan(most=half, hang=True), Plan(most=half // 2, hang=True), Plan()]
        with server(repository, logs[0], **settings) as (http, _):
            asked = {"source": f"{source.url}?X-Signature=secret", "profile": PROFILE}
            answer = http.post("/v1/videos", json=asked)
            assert answer.status_code == 202, answer.text
            partial = kept / answer.json()["id"] / "input.partial"
            eventually(partial.exists)
        assert partial.stat().st_size <= half
        with server(repository, logs[1], **settings) as (http, pid):
            eventually(lambda: len(source.seen) == 2)
            os.kill(pid, signal.SIGKILL)
        with server(repository, logs[2], **settings) as (http, _):

            def view() -> dict[str, Any]:
                return dict(http.get(f"/v1/videos/{answer.json()['id']}").json())

            eventually(lambda: view()["state"] in ("done", "failed"))
            done = view()
    assert (done["state"], done["error"], done["frames"]) == ("done", None, 12)
    assert done["manifest"]["input"]["sha256"] == hashlib.sha256(video).hexdigest()
    assert (done["source"]["state"], done["source"]["attempts"], done["attempts"]) == ("fetched", 3, 1)
    assert source.ranges()[0] is None
    assert all("secret" not in log.read_text() for log in logs)
    assert b"secret" not in (kept / "jobs.sqlite3").read_bytes()
