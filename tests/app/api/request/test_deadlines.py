"""One deadline end to end: every stage can use up the time, says so, and ends what would have come after it.

Models count the runs that reach them and hold them until a test releases them; a test sets the clock forward.
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
from starlette.testclient import TestClient
from support.analysis import patches
from support.models import repository as test_repository
from support.models.timed import Timed
from support.servers.gateway import client, png, scene, server
from support.videos import count
from support.waiting import PATIENCE_S, eventually

from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton
FRAME = png(scene(300, 200))
BEFORE = 2  # runs that end before the time is over, while a third one is under way
MODELS = {"detect": "yolo11n_320", "depth": "midas_256_onnx", "clip_text": "clip_text_onnx"}


@dataclass(frozen=True, slots=True)
class Place:
    """A Triton whose models hold their runs when they are told to, and its repository."""

    triton: TritonServer
    models: Path
    timed: dict[str, Timed]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a gateway that runs one inference of a branch at a time."""
        return {
            "engine": "triton",
            "triton_url": self.triton.grpc_url,
            "leases": 1,
            "request_timeout_s": PATIENCE_S,
        }

    def runs(self, family: str) -> int:
        """Count the runs that a model has begun, with any result."""
        return self.timed[family].begun


class Clock:
    """The clock of deadlines, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def passes(self) -> None:
        """Let all the time pass that a request may have."""
        self.ahead_s += 2 * PATIENCE_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("app.deadline.time", clock)
    return clock


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
    """No run is held, until a test says otherwise."""
    for timed in place.timed.values():
        timed.release("run")


@pytest.fixture(scope="module")
def http(place: Place) -> Iterator[TestClient]:
    with client(place.models, **place.settings) as test_client:
        yield test_client


def late(answer: Any) -> str:
    """The stage that a 504 names."""
    document = answer.json()
    assert (answer.status_code, document["code"]) == (504, "deadline_exceeded"), document
    return str(document["stage"])


def overtaken(place: Place, family: str, clock: Clock, ask: Callable[[], Any]) -> tuple[Any, int]:
    """Ask; the time is over while the third run is under way. Return the answer, and how many runs began."""
    timed = place.timed[family]
    before = timed.begun
    with ThreadPoolExecutor(1) as caller, timed.held("run", after=BEFORE):
        answer = caller.submit(ask)
        eventually(lambda: timed.begun > before + BEFORE)
        clock.passes()
        timed.release("run")
        return answer.result(), timed.begun - before


# Family, stage, what carries it out, and how many runs Triton has seen when it is over.
STAGES = [
    ("detect", "decode", "app.pipelines.detect.decode_image", 0),
    ("detect", "prepare", "app.pipelines.detect.letterbox_into", 0),
    ("detect", "finish", "app.pipelines.detect.detect", 1),
    ("depth", "decode", "app.pipelines.dense.decode_image", 0),
    ("depth", "prepare", "app.pipelines.dense.square_into", 0),
    ("depth", "finish", "app.pipelines.depth.resize_map", 1),
]


@pytest.mark.parametrize(
    ("family", "stage", "work", "runs"), STAGES, ids=[f"{row[0]}-{row[1]}" for row in STAGES]
)
def test_the_stage_that_used_the_time_is_named_and_is_the_last(
    place: Place, http: TestClient, monkeypatch: pytest.MonkeyPatch, clock: Clock,
    family: str, stage: str, work: str, runs: int,
) -> None:  # fmt: skip
    """The real work of one stage, slower than the caller allows: 504 names it, and nothing behind it is begun."""
    module, _, name = work.rpartition(".")
    real: Callable[..., Any] = getattr(importlib.import_module(module), name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock.passes()
        return real(*args, **kwargs)

    before = place.runs(family)
    monkeypatch.setattr(work, slow)
    answer = http.post(f"/v1/{family}", content=FRAME)
    assert late(answer) == stage
    assert place.runs(family) - before == runs


def test_time_that_triton_takes_is_that_of_infer(place: Place, http: TestClient) -> None:
    """And the caller hears of it when its time is over, not when Triton is done; the next one is served then."""
    timed = place.timed["detect"]
    before = timed.begun
    with timed.held("run"):
        for seconds in (0.3, 3, 30):  # so much must be left for the stages before it
            answer = http.post("/v1/detect", content=FRAME, headers={"X-Request-Timeout": str(seconds)})
            stage = late(answer)
            if timed.begun > before:
                break
    assert stage == "infer"
    assert http.post("/v1/detect", content=FRAME).status_code == 200


def test_who_waits_for_a_lease_too_long_was_queued(place: Place, http: TestClient) -> None:
    """Three run or wait for the lease at a time; none that came too late is run."""
    before = place.runs("detect")
    engine = http.app.state.gateway.router.engine  # type: ignore[attr-defined]  # a Starlette application

    def ask(seconds: float) -> Any:
        return http.post("/v1/detect", content=FRAME, headers={"X-Request-Timeout": str(seconds)})

    with ThreadPoolExecutor(6) as callers:
        with place.timed["detect"].held("run"):
            first = callers.submit(ask, PATIENCE_S)
            eventually(lambda: engine.usage().pools[MODELS["detect"]].in_use == 1)
            for seconds in (0.5, 5, 30):  # so much must be left for decoding
                stages = [late(one.result()) for one in [callers.submit(ask, seconds) for _ in range(5)]]
                if stages.count("queue") >= 2:
                    break
        # Whose turn comes with the last millisecond may still run out of it in decoding.
        assert {*stages} <= {"queue", "decode"}
        assert stages.count("queue") >= 2
        assert first.result().status_code == 200
    assert place.runs("detect") - before == 1


def test_of_a_batch_no_frame_is_begun_after_the_deadline(
    place: Place, http: TestClient, clock: Clock
) -> None:
    """Frames before it are answered; each of the others has its own 504 in its place."""
    files = [("file", ("f.png", FRAME)) for _ in range(8)]
    answer, runs = overtaken(place, "detect", clock, lambda: http.post("/v1/detect", files=files))
    codes = [row["error"]["code"] if "error" in row else "ok" for row in answer.json()["results"]]
    assert (codes.count("ok"), codes.count("deadline_exceeded")) == (BEFORE, 8 - BEFORE)
    assert runs == BEFORE + 1


def test_of_many_prompts_none_is_begun_after_the_deadline(
    place: Place, http: TestClient, clock: Clock
) -> None:
    """They are one request: 504 for all."""
    prompts = {"prompts": [f"a picture of {number} dogs" for number in range(8)]}
    answer, runs = overtaken(place, "clip_text", clock, lambda: http.post("/v1/clip/text", json=prompts))
    assert late(answer) in ("infer", "queue", "finish")
    assert runs == BEFORE + 1


def test_of_a_video_no_frame_is_begun_after_the_deadline(
    place: Place, http: TestClient, clock: Clock, tmp_path: Path
) -> None:
    """Its lines say of each later frame that the time is over, or it ends."""
    video = count(tmp_path / "v.mp4", 12).read_bytes()
    answer, runs = overtaken(
        place,
        "detect",
        clock,
        lambda: http.post("/v1/detect", content=video, headers={"X-Request-Timeout": str(PATIENCE_S)}),
    )
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert sum("detections" in line for line in lines) in (BEFORE, BEFORE + 1)
    assert runs == BEFORE + 1


def test_a_job_whose_frame_is_late_comes_back(place: Place, tmp_path: Path) -> None:
    """A backend that is too slow for one frame doesn't fail a whole video: it waits, with its input, and says why."""
    film = patches(tmp_path / "film.mp4", 4).read_bytes()
    text = "components: {core_object_detections: {branch: yolo11n_320}}"
    kept = tmp_path / "videos"
    with (
        client(place.models, **place.settings, videos_folder=kept, video_frame_timeout_s=0.3) as http,
        place.timed["detect"].held("run"),
    ):
        job = http.post("/v1/videos", files={"file": ("v.mp4", film)}, data={"profile": text}).json()

        def waits() -> bool:
            view = http.get(job["links"]["self"]).json()
            return view["state"] == "queued" and (view["error"] or {}).get("code") == "deadline_exceeded"

        eventually(waits)
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
    with (
        server(place.models, tmp_path / "gateway.log", **place.settings) as (gateway, _),
        place.timed["detect"].held("run"),
    ):
        before = place.runs("detect")
        assert gateway.base_url.port is not None
        with socket.create_connection((gateway.base_url.host, gateway.base_url.port)) as caller:
            caller.sendall(head + body)
            eventually(lambda: place.runs("detect") == before + 1)
        gone = 'gateway_requests_in_flight{route="/v1/detect"} 0'
        eventually(lambda: gone in gateway.get("/metrics").text)
        place.timed["detect"].release("run")
        assert gateway.post("/v1/detect", content=FRAME).status_code == 200
        assert place.runs("detect") == before + 2
