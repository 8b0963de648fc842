"""`/metrics` of a gateway that has served: what is counted, under which labels, by how many workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.analysis import patches
from support.models.engines import colour_detector
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene, server
from support.waiting import PATIENCE_S

from app import __version__
from app.engine.fake import FakeEngine
from deploy.local.triton_server import TritonServer

FRAME = png(scene(320, 320))


class Scrape:
    """One answer of /metrics, by Prometheus' own parser."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples that have at least these labels; 0 where there are none."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        return {s.labels[label] for s in self.samples if s.name == name}


def scrape(gateway: Any) -> Scrape:
    return Scrape(gateway.get("/metrics").text)


def until(gateway: Any, holds: Callable[[Scrape], bool], seconds: float = 120) -> Scrape:
    """The first scrape of which it holds."""
    limit = time.monotonic() + seconds
    while not holds(found := scrape(gateway)):
        assert time.monotonic() < limit, [(s.name, s.labels, s.value) for s in found.samples if s.value]
        time.sleep(0.05)
    return found


def test_a_request_is_counted_with_what_served_it(repository: Path) -> None:
    """Route, family, branch and status; each stage once; one inference, its tensors' bytes by their contract."""
    with client(repository) as gateway:
        assert gateway.post("/v1/detect", content=FRAME).status_code == 200
        found = scrape(gateway)
    served = {"family": "detect", "branch": "yolo11n_320"}
    assert found("gateway_requests_total", route="/v1/detect", status="200", **served) == 1
    assert found("gateway_request_duration_seconds_count", route="/v1/detect", **served) == 1
    for stage in ("decode", "queue", "prepare", "infer", "finish", "encode"):
        assert found("gateway_stage_duration_seconds_count", stage=stage, **served) == 1, stage
        assert found("gateway_stage_duration_seconds_sum", stage=stage, **served) > 0, stage
    assert found("gateway_branch_decisions_total", kind="rule", **served) == 1
    assert found("gateway_inferences_total", branch="yolo11n_320", transport="inprocess") == 1
    sizes = {"in": 3 * 320 * 320 * 4, "out": 84 * 2100 * 4}
    for direction, nbytes in sizes.items():
        assert found("gateway_transport_bytes_total", transport="inprocess", direction=direction) == nbytes


def test_stages_add_up_to_the_request(repository: Path) -> None:
    """The stages of a frame lie within its request, and are most of it."""
    with client(repository) as gateway:
        for _ in range(5):
            gateway.post("/v1/detect", content=png(scene(1280, 720)))
        found = scrape(gateway)
    whole = found("gateway_request_duration_seconds_sum", route="/v1/detect")
    assert 0.5 * whole < found("gateway_stage_duration_seconds_sum", family="detect") < whole


def test_a_batch_of_several_branches_says_several(repository: Path) -> None:
    """One frame each of two sizes: one request, two decisions."""
    with client(repository) as gateway:
        parts = [
            ("file", ("f", FRAME)),
            ("file", ("f", png(scene(640, 640)))),
            ("file", ("f", b"no picture")),
        ]
        assert gateway.post("/v1/detect", files=parts).json()["errors"] == 1
        found = scrape(gateway)
    assert found("gateway_requests_total", family="detect", branch="several", status="200") == 1
    assert found.labels("gateway_branch_decisions_total", "branch") == {"yolo11n_320", "yolo11n_640"}
    assert found("gateway_rejections_total", route="/v1/detect", code="unsupported_media_type") == 1
    assert found("gateway_stage_duration_seconds_count", stage="encode", branch="several") == 1


def test_problems_are_counted_by_code(gateway: TestClient) -> None:
    """Problems of the domain, of validation and of routing are counted, also without a chosen branch."""
    before = scrape(gateway)
    gateway.post("/v1/detect", content=b"text")
    gateway.post("/v1/detect?conf=7", content=FRAME)
    gateway.get("/nowhere")
    gateway.post("/v1/flow", files=[("frame0", ("a", FRAME)), ("frame1", ("b", FRAME))])
    after = scrape(gateway)
    for route, code in (
        ("/v1/detect", "unsupported_media_type"),
        ("/v1/detect", "validation_failed"),
        ("none", "not_found"),
        ("/v1/flow", "weights_missing"),
    ):
        name, labels = "gateway_rejections_total", {"route": route, "code": code}
        assert after(name, **labels) - before(name, **labels) == 1, labels


def test_nothing_of_the_caller_s_becomes_a_label(repository: Path) -> None:
    """Paths, sessions, ids, queries and models that a caller makes up are in no sample."""
    with client(repository) as gateway:
        for word in ("made-up-1", "made-up-2"):
            headers = {"X-Request-Id": word, "traceparent": f"00-{word}"}
            gateway.post(f"/v1/detect?session={word}", content=FRAME, headers=headers)
            gateway.get(f"/v1/sessions/{word}", headers=headers)
            gateway.get(f"/{word}", headers=headers)
            gateway.get(f"/v1/videos/{word}")
            gateway.post(f"/v1/detect?branch={word}", content=FRAME)
            gateway.post("/v1/clip/text", json={"prompts": [word]})
            gateway.request(word.upper(), "/v1/detect")
        text = gateway.get("/metrics").text
    assert "made-up" not in text.lower()
    assert 'route="/v1/sessions/{id}"' in text


def test_models_and_build_are_told(gateway: TestClient) -> None:
    """Ready by name, required as the checklist says, digests of what serves, and what is running."""
    found = scrape(gateway)
    assert found("gateway_model_ready", model="yolo11n_320", required="false") == 1
    assert found("gateway_model_ready", model="midas_512", required="false", checklist="required") == 0
    assert found.labels("gateway_model_ready", "model") == set(CATALOGUE.models)
    families = gateway.get("/v1/branches").json()["families"]
    rows = {row["name"]: row for family in families for row in family["branches"]}
    ready = {name: row for name, row in rows.items() if row["readiness"] == "ready"}
    infos = {s.labels["model"]: s for s in found.samples if s.name == "gateway_model_info"}
    assert set(infos) == set(ready)
    for name, sample in infos.items():
        assert sample.labels["weights_digest"] == ready[name]["weights_digest"]
        assert (sample.labels["weights"], sample.labels["runtime"]) == ("random", "inprocess")
    assert found("gateway_build_info", version=__version__, engine="embedded") == 1


def test_required_is_what_readiness_waits_for(repository: Path) -> None:
    """GATEWAY_REQUIRE_READY, with the parts of an ensemble, in place of the checklist."""
    with client(repository, require_ready="yolo11n_320,midas_256") as gateway:
        found = scrape(gateway)
    models = [s for s in found.samples if s.name == "gateway_model_ready"]
    required = {s.labels["model"] for s in models if s.labels["required"] == "true"}
    assert required == {"yolo11n_320", "midas_256", "midas_256_onnx", "preprocess_midas_256"}


def test_openmetrics_has_the_trace_of_a_request(gateway: TestClient) -> None:
    """The caller's trace id stands at the bucket that its request fell into; in the text format it doesn't."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    gateway.post("/v1/detect", content=FRAME, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.1"}
    answer = gateway.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    (line,) = (line for line in answer.text.splitlines() if trace in line)
    assert line.startswith("gateway_request_duration_seconds_bucket{")
    assert trace not in gateway.get("/metrics").text


def test_prompts_that_are_remembered_are_hits(all_families: Path) -> None:
    """Three new prompts, one of them twice; then all again."""
    with client(all_families) as gateway:
        for _ in range(2):
            gateway.post("/v1/clip/text", json={"prompts": ["a cat", "a dog", "a bus", "a cat"]})
        found = scrape(gateway)
    assert found("gateway_text_cache_lookups_total", result="miss") == 3
    assert found("gateway_text_cache_lookups_total", result="hit") == 3
    assert found("gateway_text_cache_entries") == 3
    assert found("gateway_text_cache_bytes") >= 3 * 512 * 4
    assert found("gateway_inferences_total", branch="clip_text") == 3
    assert found("gateway_requests_total", branch="clip_text", status="200") == 2
    assert found("gateway_stage_duration_seconds_count", branch="clip_text", stage="decode") == 0


@contextmanager
def held(repository: Path, leases: int) -> Iterator[tuple[TestClient, threading.Event]]:
    """A gateway whose one detector answers when the event is set."""
    let_go = threading.Event()

    def wait(inputs: Any, outputs: Any) -> None:
        assert let_go.wait(PATIENCE_S)
        colour_detector(inputs, outputs)

    def fake(settings: Any, catalogue: Any) -> FakeEngine:
        return FakeEngine(catalogue, {"yolo11n_320": wait}, leases=leases)

    with client(repository, fake, leases=leases) as gateway:
        try:
            yield gateway, let_go
        finally:
            let_go.set()


def test_load_is_seen_while_it_lasts(repository: Path) -> None:
    """Twelve requests to one lease: in flight, leases in use, those that wait for one, and those not begun yet."""
    with held(repository, 1) as (gateway, let_go), ThreadPoolExecutor(12) as callers:
        answers = [callers.submit(gateway.post, "/v1/detect", content=FRAME) for _ in range(12)]
        busy = until(
            gateway,
            lambda s: s("gateway_admission_waiting", family="detect") == 9 and s("gateway_queue_depth") == 2,
        )
        assert busy("gateway_requests_in_flight") == 13  # one of them is the scrape
        assert busy("gateway_requests_in_flight", route="/v1/detect") == 12
        assert busy("gateway_leases", branch="yolo11n_320") == 1
        assert busy("gateway_leases_in_use", branch="yolo11n_320") == 1
        assert busy("gateway_admission_running", family="detect") == 3  # two more than leases
        assert busy("gateway_admission_waiting", family="detect") == 9
        assert busy("gateway_admission_bytes", family="detect") == 12 * len(FRAME)
        let_go.set()
        assert {answer.result().status_code for answer in answers} == {200}
        calm = scrape(gateway)
    for name in (
        "requests_in_flight",
        "leases_in_use",
        "queue_depth",
        "admission_running",
        "admission_waiting",
    ):
        assert calm(f"gateway_{name}") == (1 if name == "requests_in_flight" else 0), (
            name
        )  # the scrape itself


def test_videos_are_counted_frame_by_frame(repository: Path, tmp_path: Path) -> None:
    """Streamed: frames by route, their lag, and one request; as a job: frames by `job`, and the job by its state."""
    video = patches(tmp_path / "video.mp4", 12).read_bytes()
    profile = "components:\n  core_object_detections: {variant: n}\n"
    with client(repository, videos_folder=tmp_path / "jobs") as gateway:
        assert len(gateway.post("/v1/detect", content=video).text.splitlines()) == 13
        found = scrape(gateway)
        assert found("gateway_video_frames_total", route="/v1/detect", result="ok") == 12
        assert found("gateway_video_lag_seconds_count") == 12
        assert 0 < found("gateway_video_lag_seconds_sum") / 12 < 10
        until(gateway, lambda s: s("gateway_video_streams_in_progress") == 0)
        assert found("gateway_inferences_total", transport="inprocess") == 12
        assert found("gateway_requests_total", route="/v1/detect", family="detect", status="200") == 1
        assert found("gateway_video_jobs", state="done") == 0
        parts = {"file": ("v.mp4", video), "profile": (None, profile)}
        assert gateway.post("/v1/videos", files=parts).status_code == 202
        done = until(gateway, lambda s: s("gateway_video_jobs", state="done") == 1)
    assert done("gateway_video_frames_total", route="job", result="ok") == 12
    assert done("gateway_video_jobs", state="running") == done("gateway_video_jobs", state="queued") == 0


def test_a_frame_that_waits_for_a_full_backend_is_a_retry(repository: Path, tmp_path: Path) -> None:
    """A streamed video meets a branch whose one lease is out, and waits: overloaded, again and again."""
    video = patches(tmp_path / "video.mp4", 4).read_bytes()
    with held(repository, 1) as (gateway, let_go), ThreadPoolExecutor(2) as caller:
        gateway.app.state.gateway.router.engine._pools["yolo11n_320"]._max_waiting = 0
        frame = caller.submit(gateway.post, "/v1/detect", content=FRAME)
        until(gateway, lambda s: s("gateway_leases_in_use") == 1)
        answer = caller.submit(gateway.post, "/v1/detect?branch=yolo11n_320", content=video)
        until(gateway, lambda s: s("gateway_retries_total", reason="overloaded") >= 2)
        assert scrape(gateway)("gateway_video_streams_in_progress") == 1
        let_go.set()
        assert (frame.result().status_code, answer.result().status_code) == (200, 200)


def settled(folder: Path) -> list[Path]:
    return list(folder.glob("gateway-metrics-*"))


def test_workers_of_a_real_server_answer_for_each_other(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, one sum; one that is killed takes its leases and leaves its counts; the folder goes at the end."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with server(repository, tmp_path / "log", workers=2, embedded_threads=1) as (http, pid):
        assert len(settled(tmp_path)) == 1
        alone = {"Connection": "close"}
        answered = _until_both_have_answered(http, settled(tmp_path)[0])
        for _ in range(8):
            found = Scrape(http.get("/metrics", headers=alone).text)
            assert found("gateway_requests_total", route="/v1/detect", status="200") == answered
            assert found("gateway_stage_duration_seconds_count", stage="encode") == answered
        both = until(_Alone(http), lambda s: s("gateway_leases", branch="yolo11n_320") == 8)
        assert both("gateway_model_ready", model="yolo11n_320") == 1
        assert both("gateway_build_info") == 1
        victim = _workers(pid)[0]
        os.kill(victim, signal.SIGKILL)
        gone = f"gauge_live*_{victim}.db"  # for a moment the dead one is a zombie, and counts as alive
        until(_Alone(http), lambda _: not list(settled(tmp_path)[0].glob(gone)))
        until(_Alone(http), lambda s: s("gateway_leases", branch="yolo11n_320") == 8)
        found = Scrape(http.get("/metrics", headers=alone).text)
        assert found("gateway_requests_total", route="/v1/detect", status="200") == answered
    assert settled(tmp_path) == []


def _until_both_have_answered(http: httpx2.Client, folder: Path) -> int:
    """Send frames by connections of their own, eight at once, until both workers have counted one; return how many."""
    alone = {"Connection": "close"}

    def send(_: int) -> int:
        return http.post("/v1/detect", content=FRAME, headers=alone).status_code

    answered = 0
    with ThreadPoolExecutor(8) as callers:
        while len(list(folder.glob("counter_*.db"))) < 2:
            assert answered < 4000, "one worker takes every connection"
            assert list(callers.map(send, range(8))) == [200] * 8
            answered += 8
    return answered


class _Alone:
    """Each request by a connection of its own, so that any worker may take it; one that dies may take it with it."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, path: str) -> Any:
        for _ in range(50):
            try:
                return self._http.get(path, headers={"Connection": "close"})
            except httpx2.TransportError:
                time.sleep(0.1)
        raise AssertionError("nobody answers")


def _workers(pid: int) -> list[int]:
    """The processes that serve; Python's resource tracker is none."""
    children = psutil.Process(pid).children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


@pytest.mark.triton
def test_a_triton_that_goes_and_comes_is_seen(repository: Path, tmp_path: Path) -> None:
    """Connected 1, 0, 1; one reconnect; inferences by shared memory."""
    with (
        TritonServer(repository, tmp_path / "triton.log") as triton,
        client(repository, engine="triton", triton_url=triton.grpc_url) as gateway,
    ):
        gateway.post("/v1/detect", content=FRAME)
        found = scrape(gateway)
        assert found("gateway_triton_connected") == 1
        assert found("gateway_triton_reconnects_total") == 0
        assert found("gateway_inferences_total", transport="shared_memory") == 1
        assert found("gateway_retries_total", reason="region_lost") == 0
        assert found("gateway_retries_refused_total", reason="unavailable") == 0
        assert found("gateway_triton_breaker_open") == 0
        triton.stop()
        away = until(gateway, lambda s: s("gateway_triton_connected") == 0)
        assert away("gateway_triton_breaker_open") == 1
        assert away("gateway_triton_breaker_openings_total", cause="refused") == 1
        assert away("gateway_model_ready", model="yolo11n_320") == 0
        assert away("gateway_leases") == 0
        triton.start()
        back = until(gateway, lambda s: s("gateway_triton_connected") == 1, 60)
        assert back("gateway_triton_reconnects_total") == 1
        assert back("gateway_triton_breaker_open") == 0
