"""One deadline end to end: every stage can use up the time, says so, and ends what would have come after it.

What reached Triton is counted by Triton itself.
"""

from __future__ import annotations

import importlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
from starlette.testclient import TestClient
from support.analysis import patches
from support.models import repository as test_repository
from support.models.timed import Timed
from support.servers.gateway import client, png, scene, server
from support.videos import count
from support.waiting import eventually

from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton
FRAME = png(scene(300, 200))
RUN_S, LIMIT_S = 0.8, 2.1  # of runs, one after another: a third one is under way when the time is over
MOST = 3
MODELS = {"detect": "yolo11n_320", "depth": "midas_256_onnx", "clip_text": "clip_text_onnx"}


@dataclass(frozen=True, slots=True)
class Place:
    """A Triton whose models take as long as they are told, and its repository."""

    triton: TritonServer
    models: Path
    timed: dict[str, Timed]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a gateway that runs one inference of a branch at a time."""
        return {"engine": "triton", "triton_url": self.triton.grpc_url, "leases": 1}

    def runs(self, family: str) -> int:
        """Count the runs that a model has begun, with any result."""
        with grpcclient.InferenceServerClient(self.triton.grpc_url) as asked:
            return int(asked.get_inference_statistics(MODELS[family]).model_stats[0].execution_count)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    models = test_repository.build(
        tmp_path_factory.mktemp("models"), ["yolo11n_320", "midas_256", "clip_text"]
    )
    timed = {family: Timed(models, name) for family, name in MODELS.items()}
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log") as triton:
        yield Place(triton, models, timed)
        triton.kill()


@pytest.fixture(autouse=True)
def quick(place: Place) -> None:
    """Runs take no time, until a test says otherwise."""
    for timed in place.timed.values():
        timed.takes(0)


@pytest.fixture(scope="module")
def http(place: Place) -> Iterator[TestClient]:
    with client(place.models, **place.settings) as test_client:
        yield test_client


def late(answer: Any) -> str:
    """The stage that a 504 names."""
    document = answer.json()
    assert (answer.status_code, document["code"]) == (504, "deadline_exceeded"), document
    return str(document["stage"])


def settled(place: Place, family: str, before: int) -> int:
    """Runs since then, once those that were under way are over and any that would follow had the time to begin."""
    time.sleep(2 * RUN_S)
    return place.runs(family) - before


# Family, stage, what carries it out, and how many runs Triton has seen when it is over.
STAGES = [
    ("detect", "decode", "app.pipelines.detect.decode_image", 0),
    ("detect", "prepare", "app.pipelines.detect.letterbox_into", 0),
    ("detect", "finish", "app.pipelines.detect.detect", 1),
    ("depth", "decode", "app.pipelines.dense.decode_image", 0),
    ("depth", "prepare", "app.pipelines.dense.fit_square", 0),
    ("depth", "finish", "app.pipelines.depth.resize_map", 1),
]


@pytest.mark.parametrize(
    ("family", "stage", "work", "runs"), STAGES, ids=[f"{row[0]}-{row[1]}" for row in STAGES]
)
def test_the_stage_that_used_the_time_is_named_and_is_the_last(
    place: Place, http: TestClient, monkeypatch: pytest.MonkeyPatch, family: str, stage: str, work: str, runs: int
) -> None:  # fmt: skip
    """The real work of one stage, slower than the caller allows: 504 names it, and nothing behind it is begun."""
    module, _, name = work.rpartition(".")
    real: Callable[..., Any] = getattr(importlib.import_module(module), name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.4)
        return real(*args, **kwargs)

    before = place.runs(family)
    monkeypatch.setattr(work, slow)
    answer = http.post(f"/v1/{family}", content=FRAME, headers={"X-Request-Timeout": "0.35"})
    assert late(answer) == stage
    assert place.runs(family) - before == runs


def test_time_that_triton_takes_is_that_of_infer(place: Place, http: TestClient) -> None:
    """And the caller hears of it when its time is over, not when Triton is done; the next one is served then."""
    place.timed["detect"].takes(1.5)
    started = time.monotonic()
    answer = http.post("/v1/detect", content=FRAME, headers={"X-Request-Timeout": "0.3"})
    assert late(answer) == "infer"
    assert time.monotonic() - started < 1.2
    place.timed["detect"].takes(0)
    assert http.post("/v1/detect", content=FRAME).status_code == 200


def test_who_waits_for_a_lease_too_long_was_queued(place: Place, http: TestClient) -> None:
    """Three run or wait for the lease at a time; none that came too late is run."""
    before = place.runs("detect")
    engine = http.app.state.gateway.router.engine  # type: ignore[attr-defined]  # a Starlette application

    def ask(seconds: float) -> Any:
        return http.post("/v1/detect", content=FRAME, headers={"X-Request-Timeout": str(seconds)})

    with ThreadPoolExecutor(6) as callers:
        with place.timed["detect"].held("run"):
            first = callers.submit(ask, 60)
            eventually(lambda: engine.usage().pools[MODELS["detect"]].in_use == 1)
            stages = [late(one.result()) for one in [callers.submit(ask, 0.5) for _ in range(5)]]
        # Whose turn comes with the last millisecond may still run out of it in decoding.
        assert {*stages} <= {"queue", "decode"}
        assert stages.count("queue") >= 2
        assert first.result().status_code == 200
    assert place.runs("detect") - before == 1


def test_of_a_batch_no_frame_is_begun_after_the_deadline(place: Place, http: TestClient) -> None:
    """Frames before it are answered; each of the others has its own 504 in its place."""
    place.timed["detect"].takes(RUN_S)
    before = place.runs("detect")
    files = [("file", ("f.png", FRAME)) for _ in range(8)]
    answer = http.post("/v1/detect", files=files, headers={"X-Request-Timeout": str(LIMIT_S)})
    codes = [row["error"]["code"] if "error" in row else "ok" for row in answer.json()["results"]]
    assert 1 <= codes.count("ok") < MOST
    assert {*codes} == {"ok", "deadline_exceeded"}
    assert settled(place, "detect", before) <= MOST


def test_of_many_prompts_none_is_begun_after_the_deadline(place: Place, http: TestClient) -> None:
    """They are one request: 504, and what was embedded by then is remembered."""
    place.timed["clip_text"].takes(RUN_S)
    before = place.runs("clip_text")
    prompts = {"prompts": [f"a picture of {number} dogs" for number in range(8)]}
    answer = http.post("/v1/clip/text", json=prompts, headers={"X-Request-Timeout": str(LIMIT_S)})
    assert late(answer) in ("infer", "queue")
    assert 1 <= settled(place, "clip_text", before) <= MOST


def test_of_a_video_no_frame_is_begun_after_the_deadline(
    place: Place, http: TestClient, tmp_path: Path
) -> None:
    """Its lines say of each later frame that the time is over, or it ends."""
    video = count(tmp_path / "v.mp4", 12).read_bytes()
    place.timed["detect"].takes(RUN_S)
    before = place.runs("detect")
    answer = http.post("/v1/detect", content=video, headers={"X-Request-Timeout": str(LIMIT_S + 0.5)})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert sum("detections" in line for line in lines) <= MOST + 1
    assert settled(place, "detect", before) <= MOST + 2


def test_a_job_whose_frame_is_late_comes_back(place: Place, tmp_path: Path) -> None:
    """A backend that is too slow for one frame doesn't fail a whole video: it waits, with its input, and says why."""
    film = patches(tmp_path / "film.mp4", 4).read_bytes()
    text = "components: {core_object_detections: {branch: yolo11n_320}}"
    kept = tmp_path / "videos"
    place.timed["detect"].takes(1.5)
    with client(place.models, **place.settings, videos_folder=kept, video_frame_timeout_s=0.3) as http:
        job = http.post("/v1/videos", files={"file": ("v.mp4", film)}, data={"profile": text}).json()
        view, limit = job, time.monotonic() + 30
        while view["error"] is None and time.monotonic() < limit:
            time.sleep(0.05)
            view = http.get(job["links"]["self"]).json()
        assert (view["state"], view["error"]["code"]) == ("queued", "deadline_exceeded")
        assert (kept / job["id"] / "input").read_bytes() == film


def test_a_caller_that_leaves_ends_its_batch(place: Place, tmp_path: Path) -> None:
    """The frame that is in Triton is finished there; those behind it are never sent, and the next caller is served."""
    body = b"".join(
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + FRAME + b"\r\n"
        for _ in range(8)
    ) + b"--XX--\r\n"  # fmt: skip
    head = (
        b"POST /v1/detect HTTP/1.1\r\nHost: gateway\r\nContent-Type: multipart/form-data; boundary=XX\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    with server(place.models, tmp_path / "gateway.log", **place.settings) as (gateway, _):
        place.timed["detect"].takes(RUN_S)
        before = place.runs("detect")
        assert gateway.base_url.port is not None
        with socket.create_connection((gateway.base_url.host, gateway.base_url.port)) as caller:
            caller.sendall(head + body)
            time.sleep(1.5 * RUN_S)
        assert 1 <= settled(place, "detect", before) <= 2
        assert gateway.post("/v1/detect", content=FRAME).status_code == 200
