"""64 file descriptors for everything: no answer is a 500, no accepted job is lost, and service resumes."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import threading
import time
from collections import Counter
from pathlib import Path

from support.analysis import patches
from support.servers.gateway import server
from support.waiting import PATIENCE_S

PROFILE_QUERY = "/v1/videos?profile=detect_embedded"
CALLERS = 56
# Where nothing has to be opened the answer comes; elsewhere it may be that there is no descriptor.
ALLOWED = {
    ("GET", "/v1/videos"): {200, 503}, ("GET", "job"): {200, 503}, ("GET", "artifact"): {200, 503},
    ("GET", "/metrics"): {200}, ("POST", PROFILE_QUERY): {202, 429, 503}, ("POST", "/v1/detect"): {200, 429, 503},
}  # fmt: skip


def _ask(
    port: int, paths: dict[str, str], video: bytes, together: threading.Barrier, seen: Counter[object]
) -> None:
    """One caller: connects, waits for the others, then asks everything over that connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.suppress(OSError):
        connection.connect()
    together.wait(PATIENCE_S)
    for method, name in ALLOWED:
        try:
            connection.request(method, paths.get(name, name), video if method == "POST" else None)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):  # it was never accepted
            seen["unanswered"] += 1
            break
        code = json.loads(body).get("code") if answer.status >= 400 else None
        seen[method, name, answer.status, code] += 1
    connection.close()


def test_64_descriptors(all_families: Path, tmp_path: Path) -> None:
    """Callers of all routes at once, more than there are descriptors; then all is served again."""
    video = patches(tmp_path / "v.mp4", 6).read_bytes()
    with server(all_families, tmp_path / "log", videos_folder=tmp_path / "videos") as (client, pid):
        first = client.post(PROFILE_QUERY, content=video).json()["id"]
        _until_done(client, 60)
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, hard))
        port, together = client.base_url.port, threading.Barrier(CALLERS)
        assert port is not None
        paths = {"job": f"/v1/videos/{first}", "artifact": f"/v1/videos/{first}/artifacts/manifest.json"}
        seen: Counter[object] = Counter()
        arguments = (port, paths, video, together, seen)
        callers = [threading.Thread(target=_ask, args=arguments) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        answered = {key for key in seen if key != "unanswered"}
        wrong = {key for key in answered if key[2] not in ALLOWED[key[:2]]}  # type: ignore[index]  # all are tuples
        assert not wrong
        assert any(key[3] == "videos_unavailable" for key in answered)  # type: ignore[index]  # there was a shortage
        _until_done(client, 120)
        assert client.get("/livez").status_code == 200
        assert client.post(PROFILE_QUERY, content=video).status_code == 202
    assert "Traceback" not in (tmp_path / "log").read_text()


def _until_done(client: object, seconds: float) -> None:
    """Until every job is over; the connection of `client` may have been refused for a while."""
    limit = time.monotonic() + seconds
    states = {"?"}
    while not states <= {"done"}:
        assert time.monotonic() < limit, states
        with contextlib.suppress(Exception):
            rows = client.get("/v1/videos?limit=1000").json()["videos"]  # type: ignore[attr-defined]  # an HTTP client
            states = {row["state"] for row in rows}
        time.sleep(0.1)
