"""Branches that run out of memory, through the whole gateway, on a real Triton whose models really fail that way."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.analysis import opened, patches, profile
from support.models import exhausted
from support.models import repository as test_repository
from support.models.exhausted import Memory, weights_model
from support.servers.gateway import client, png, scene
from support.waiting import PATIENCE_S, eventually

from app.engine.base import Engine
from app.engine.triton.engine import TritonEngine, TritonOptions
from app.engine.weights import WeightsBook
from app.errors import InsufficientGpuMemory
from app.settings import Settings
from app.videos.analysis import Options, VideoAnalysis
from app.videos.stores.folder import FolderStore
from deploy.local.triton_server import TritonServer
from routing.catalogue import Catalogue

pytestmark = pytest.mark.triton
DETECT, SMALLER = "yolo11n_640", "yolo11n_320"
DEPTH, SHALLOWER = "midas_384", "midas_256"
FRAME = png(scene(640, 480, (0, 320, 128, 96)))
SOON_S = 0.3
PAUSE_S = 3.0  # enough for an operator who is faster


def engine(pause_s: float) -> Callable[[Settings, Catalogue], Engine]:
    """Makes engines that look often, and wait so long before they recover a branch."""

    def make(settings: Settings, catalogue: Catalogue) -> Engine:
        options = TritonOptions(
            poll_interval_s=0.05,
            silence_s=5.0,
            control_timeout_s=PATIENCE_S,
            warmup_s=PATIENCE_S,
            reload_pause_s=pause_s,
            reload_longest_s=pause_s,
        )
        return TritonEngine(catalogue, settings.triton.grpc, WeightsBook(settings.repository, None), options)

    return make


@dataclass(frozen=True, slots=True)
class Service:
    """A gateway over a Triton, and what memory is left for two of its models."""

    http: TestClient
    triton: TritonServer
    memory: dict[str, Memory]

    def branch(self, name: str) -> dict[str, Any]:
        """Return a branch as `GET /v1/branches` describes it."""
        families = self.http.get("/v1/branches").json()["families"]
        rows: list[dict[str, Any]] = [row for family in families for row in family["branches"]]
        return next(row for row in rows if row["name"] == name)

    def ready(self, name: str) -> bool:
        return bool(self.branch(name)["readiness"] == "ready")

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def inferences(self) -> dict[str, int]:
        """Return the inferences of each loaded model since it was loaded."""
        with grpcclient.InferenceServerClient(self.triton.grpc_url) as asked:
            rows = asked.get_inference_statistics().model_stats
        return {row.name: row.inference_count for row in rows}

    def loads(self, model: str) -> int:
        """Return how often Triton has loaded the model since it was started."""
        return len(re.findall(rf"successfully loaded '{model}'", self.triton.log.read_text()))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_repository.build(tmp_path_factory.mktemp("models"), [DETECT, SMALLER, DEPTH, SHALLOWER])


@pytest.fixture(scope="module")
def memory(models: Path) -> dict[str, Memory]:
    return {name: Memory(models, weights_model(name)) for name in (DETECT, DEPTH)}


@pytest.fixture(scope="module")
def triton(
    models: Path, memory: dict[str, Memory], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """Under explicit control."""
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running
        running.kill()


@pytest.fixture(scope="module")
def gateway(models: Path, triton: TritonServer, memory: dict[str, Memory]) -> Iterator[Service]:
    """Mends a branch soon."""
    settings = {"engine": "triton", "triton_url": triton.grpc_url, "require_ready": DETECT}
    with client(models, engine(SOON_S), **settings) as http:
        yield Service(http, triton, memory)


@pytest.fixture
def service(gateway: Service) -> Iterator[Service]:
    """All well, before and after."""
    eventually(lambda: gateway.ready(DETECT) and gateway.ready(DEPTH))
    yield gateway
    for left in gateway.memory.values():
        left.is_free()


def detect(service: Service, query: str = "branch=640") -> Any:
    return service.http.post(f"/v1/detect?{query}", content=FRAME)


def boxes(answer: Any) -> list[list[float]]:
    """Return the boxes of an answer, rounded."""
    assert answer.status_code == 200, answer.text
    return [np.round(row["box"]).tolist() for row in answer.json()["detections"]]


@pytest.mark.parametrize(
    "text", [exhausted.ARENA, exhausted.CUDA, exhausted.CUBLAS], ids=["arena", "cuda", "cublas"]
)
def test_a_caller_who_wants_this_branch_is_told(service: Service, text: str) -> None:
    """503 insufficient_gpu_memory with the backend's own words and Retry-After; so is the next, without a run."""
    failures = service.metric("gateway_out_of_memory_total", branch=DETECT)
    service.memory[DETECT].is_short(text)
    first, second = detect(service), detect(service)
    for answer in (first, second):
        assert (answer.status_code, answer.json()["code"]) == (503, "insufficient_gpu_memory"), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert text.strip()[:60] in answer.json()["detail"]
    assert service.metric("gateway_out_of_memory_total", branch=DETECT) == failures + 1
    assert re.search(r"a run was out of memory at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", second.json()["detail"])


def test_the_next_smaller_branch_answers_in_the_same_request(service: Service) -> None:
    """With fallback the very request whose run fails is answered, degraded, and says what was meant and why not."""
    right = boxes(detect(service, "branch=320"))
    service.memory[DETECT].runs_out()
    answer = detect(service, "branch=640&fallback=true")
    assert boxes(answer) == right
    said = answer.json()
    assert (said["degraded"], said["branch"]["name"]) == (True, SMALLER)
    assert said["branch"]["why"] == f"fallback: {DETECT} out of memory (override: size=640)"
    assert said["branch"]["passed_over"] == [{"branch": DETECT, "reason": "out of memory"}]
    assert [used["model_name"] for used in said["models_used"]] == [SMALLER]
    assert said["resolved_model_mapping"] == {"core_object_detections": SMALLER}


def test_a_branch_is_out_until_it_is_loaded_anew_and_has_run(service: Service) -> None:
    """The model fails for ever after: all pages say so, others serve, Triton reloads it, and it serves again."""
    right, loads, before = boxes(detect(service)), service.loads(DETECT), service.inferences()
    service.memory[DETECT].runs_out()
    service.memory[DETECT].is_too_short_to_load()
    assert detect(service).status_code == 503
    row = service.branch(DETECT)
    assert row["readiness"] == "out_of_memory"
    assert re.search(r"attempt \d+ to reload it and run it", row["reason"])
    checklist = service.http.get("/v1/repository").json()
    listed = {entry["name"]: entry for entry in (*checklist["required"], *checklist["optional"])}
    assert listed[DETECT]["readiness"] == "out_of_memory"
    readyz = service.http.get("/readyz")
    assert (readyz.status_code, readyz.json()["failing"][0]["name"]) == (503, DETECT)
    assert service.metric("gateway_quarantined", branch=DETECT) == 1
    assert service.metric("gateway_model_ready", model=DETECT) == 0
    assert detect(service, "branch=320").status_code == 200
    served = 1
    service.memory[DETECT].is_free()

    def back() -> bool:
        nonlocal served
        assert detect(service, "branch=320").status_code == 200
        served += 1
        return service.ready(DETECT)

    eventually(back)
    assert service.loads(DETECT) == loads + 1
    now = service.inferences()
    assert now[DETECT] in (1, 2)  # first runs of what was reloaded: Triton counts from then on
    assert now[SMALLER] == before[SMALLER] + served  # never reloaded
    assert boxes(detect(service)) == right
    assert detect(service).json()["branch"]["name"] == DETECT
    assert service.http.get("/readyz").status_code == 200
    assert service.metric("gateway_quarantined", branch=DETECT) == 0


def test_what_an_ensemble_consists_of_is_loaded_anew(service: Service) -> None:
    """The ensemble holds no memory, its parts do; the branch beside it is left alone."""
    parts = ("midas_384", "midas_384_onnx", "preprocess_midas_384")
    loads = {name: service.loads(name) for name in (*parts, "midas_256_onnx", DETECT)}
    service.memory[DEPTH].runs_out(exhausted.CUDA)
    answer = service.http.post("/v1/depth?branch=384&fallback=true&size=branch", content=FRAME)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["degraded"], said["branch"]["name"], said["map"]["width"]) == (True, SHALLOWER, 256)
    eventually(lambda: service.ready(DEPTH))
    assert {name: service.loads(name) - before for name, before in loads.items()} == {
        **dict.fromkeys(parts, 1),
        "midas_256_onnx": 0,
        DETECT: 0,
    }
    assert service.http.post("/v1/depth?branch=384", content=FRAME).json()["branch"]["name"] == DEPTH


def test_what_still_fails_is_tried_again(service: Service) -> None:
    """No memory to load it, then none to run it: it stays out and says what failed; once there is, it serves."""
    attempts = {
        outcome: service.metric("gateway_quarantine_attempts_total", branch=DETECT, outcome=outcome)
        for outcome in ("out_of_memory", "reloaded")
    }
    ran_out = service.metric("gateway_out_of_memory_total", branch=DETECT)
    service.memory[DETECT].is_short()
    service.memory[DETECT].is_too_short_to_load()
    assert detect(service).status_code == 503
    loading = r"(?s)attempt \d+ to recover it failed: loading.*out of memory ; GPU=0"
    eventually(lambda: re.search(loading, service.branch(DETECT)["reason"]) is not None)
    service.memory[DETECT].is_free()
    service.memory[DETECT].is_short()
    eventually(lambda: "to recover it failed: yolo11n_640: " in service.branch(DETECT)["reason"])
    service.memory[DETECT].is_free()
    eventually(lambda: service.ready(DETECT))
    now = {
        outcome: service.metric("gateway_quarantine_attempts_total", branch=DETECT, outcome=outcome)
        for outcome in attempts
    }
    assert now["reloaded"] == attempts["reloaded"] + 1
    assert now["out_of_memory"] >= attempts["out_of_memory"] + 2
    assert service.metric("gateway_out_of_memory_total", branch=DETECT) == ran_out + 1


def test_requests_on_the_way_end_cleanly(service: Service) -> None:
    """While the branch fails, is unloaded and loaded, every request on it is answered right, or told what is wrong."""
    right = boxes(detect(service))
    service.memory[DETECT].takes(0.05)
    codes: list[tuple[int, str]] = []

    def ask(number: int) -> None:
        if number == 8:
            service.memory[DETECT].runs_out()
        answer = detect(service)
        codes.append((answer.status_code, answer.json().get("code", "")))
        if answer.status_code == 200:
            assert boxes(answer) == right

    with ThreadPoolExecutor(6) as callers:
        list(callers.map(ask, range(60)))
    assert {*codes} == {(200, ""), (503, "insufficient_gpu_memory")}
    service.memory[DETECT].is_free()
    eventually(lambda: detect(service).status_code == 200)


def test_what_somebody_has_unloaded_is_not_loaded(models: Path, service: Service) -> None:
    """An operator who needs the memory unloads the branch: it stays so, until it is loaded by hand."""
    settings = {"engine": "triton", "triton_url": service.triton.grpc_url}
    with (
        client(models, engine(PAUSE_S), **settings) as http,
        grpcclient.InferenceServerClient(service.triton.grpc_url) as operator,
    ):
        other = Service(http, service.triton, service.memory)
        other.memory[DETECT].runs_out()
        loads = other.loads(DETECT)
        assert detect(other).status_code == 503
        operator.unload_model(DETECT)
        eventually(lambda: other.metric("gateway_quarantined", branch=DETECT) == 0)
        eventually(lambda: other.branch(DETECT)["reason"] == "unloaded")
        assert other.loads(DETECT) == loads
        operator.load_model(DETECT)
        eventually(lambda: other.ready(DETECT))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4", 12).read_bytes()


def test_a_video_waits_for_its_branch(service: Service, video: bytes) -> None:
    """Memory runs out in the middle: the frames wait for the branch, and one model makes all lines."""
    service.memory[DEPTH].runs_out()
    *frames, last = map(
        json.loads, service.http.post("/v1/depth?branch=384", content=video).text.splitlines()
    )
    assert len(frames) == 12
    assert {line["branch"]["name"] for line in frames} == {DEPTH}
    assert (last["summary"]["errors"], last["summary"]["degraded"]) == (0, False)
    assert service.metric("gateway_retries_total", reason="out_of_memory") > 0


def test_a_video_with_fallback_says_frame_by_frame_what_served(service: Service, video: bytes) -> None:
    """Frames without memory are answered by the smaller branch; each line and the summary name what served."""
    service.memory[DEPTH].is_short()
    url = "/v1/depth?branch=384&fallback=true&size=branch"
    *frames, last = map(json.loads, service.http.post(url, content=video).text.splitlines())
    assert len(frames) == 12
    for line in frames:
        assert (line["degraded"], line["branch"]["name"]) == (True, SHALLOWER)
        assert line["branch"]["passed_over"] == [{"branch": DEPTH, "reason": "out of memory"}]
    assert last["summary"]["degraded"] is True
    assert last["summary"]["resolved_model_mapping"] == {"core_depth_midas": SHALLOWER}


def test_a_video_job_is_made_by_one_model(
    models: Path, service: Service, video: bytes, tmp_path: Path
) -> None:
    """Fallback or not, memory that runs out on the way is waited for: no artefact mixes the maps of two branches."""
    profile = "on_missing: fallback\ncomponents: {core_depth_midas: {branch: midas_384, maps: true}}\n"
    settings = {"engine": "triton", "triton_url": service.triton.grpc_url, "videos_folder": tmp_path}
    with client(models, engine(SOON_S), **settings) as http:
        files = {"file": ("v.mp4", video)}
        service.memory[DEPTH].runs_out()
        job = http.post("/v1/videos", files=files, data={"profile": profile}).json()["id"]
        eventually(lambda: http.get(f"/v1/videos/{job}").json()["state"] in ("done", "failed"))
        view = http.get(f"/v1/videos/{job}").json()
        assert view["state"] == "done", view
        waited = Service(http, service.triton, {}).metric("gateway_retries_total", reason="out_of_memory")
        assert (view["manifest"]["degraded"], waited > 0) == (False, True)
        assert view["manifest"]["resolved_model_mapping"] == {"core_depth_midas": DEPTH}
        depth = http.get(f"/v1/videos/{job}/artifacts/core_depth_midas/depth.npz").content
    with np.load(io.BytesIO(depth)) as arrays:
        assert arrays["depth_maps"].shape == (12, 384, 384)


def test_several_gateways_load_a_branch_anew_once(models: Path, service: Service) -> None:
    """Two that both saw the failure: the first to try recovers it for both, and neither takes it from the other."""
    loads = service.loads(DETECT)
    settings = {"engine": "triton", "triton_url": service.triton.grpc_url}
    with client(models, engine(3600.0), **settings) as http:
        other = Service(http, service.triton, service.memory)
        service.memory[DETECT].runs_out()
        with ThreadPoolExecutor(2) as callers:
            answers = list(callers.map(detect, (service, other)))
        assert [answer.status_code for answer in answers] == [503, 503]
        eventually(lambda: service.ready(DETECT))
        quarantine = http.app.state.gateway.router.engine._quarantine  # type: ignore[attr-defined]  # a Starlette application
        eventually(lambda: quarantine._cases[DETECT].reloaded)  # it has seen that
        quarantine.try_now()
        eventually(lambda: other.ready(DETECT))
        assert [boxes(detect(one)) != [] for one in (service, other)] == [True, True]
        assert service.loads(DETECT) == loads + 1
        assert other.metric("gateway_quarantine_attempts_total", branch=DETECT, outcome="reloaded") == 0


@pytest.fixture
def uncontrolled(tmp_path: Path) -> Iterator[tuple[Path, Memory, TritonServer]]:
    """A Triton that loads what it finds when it starts, and lets nobody change that."""
    models = test_repository.build(tmp_path / "models", [DETECT, SMALLER])
    left = Memory(models, DETECT)
    extra = ["--model-control-mode=none"]
    with TritonServer(models, tmp_path / "triton.log", load=[], extra=extra) as running:
        yield models, left, running
        running.kill()


def test_without_explicit_control_a_branch_is_only_tried_again(
    uncontrolled: tuple[Path, Memory, TritonServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Triton refuses to reload anything: that is logged, the branch stays out, and serves once a run goes well."""
    models, left, triton = uncontrolled
    with client(models, engine(SOON_S), engine="triton", triton_url=triton.grpc_url) as http:
        service = Service(http, triton, {DETECT: left})
        eventually(lambda: service.ready(DETECT))
        left.is_short()
        answer = detect(service, "branch=640&fallback=true")
        assert (answer.status_code, answer.json()["branch"]["name"]) == (200, SMALLER)
        again = r"attempt ([2-9]|\d\d+) to recover it failed"
        eventually(lambda: re.search(again, service.branch(DETECT)["reason"]) is not None)
        assert "--model-control-mode=explicit" in caplog.text
        assert detect(service).status_code == 503
        left.is_free()
        eventually(lambda: service.ready(DETECT))
        assert detect(service).status_code == 200
        assert service.loads(DETECT) == 1
        assert service.metric("gateway_quarantine_attempts_total", branch=DETECT, outcome="ran") == 1


def test_a_first_run_without_memory_is_no_end(models: Path, service: Service) -> None:
    """A gateway that starts while there is no memory for a branch serves the others, and this one once there is."""
    service.memory[DETECT].is_short()
    settings = {"engine": "triton", "triton_url": service.triton.grpc_url}
    with client(models, engine(SOON_S), **settings) as http:
        other = Service(http, service.triton, service.memory)
        eventually(lambda: other.branch(DETECT)["readiness"] == "out_of_memory")
        assert detect(other, "branch=640&fallback=true").json()["branch"]["name"] == SMALLER
        service.memory[DETECT].is_free()
        eventually(lambda: other.ready(DETECT))
        assert detect(other).status_code == 200


def test_a_server_that_comes_back_mends_its_branches(uncontrolled: tuple[Path, Memory, TritonServer]) -> None:
    """Whatever the pause: after a restart of Triton the branch is run at once, and serves."""
    models, left, triton = uncontrolled
    with client(models, engine(3600.0), engine="triton", triton_url=triton.grpc_url) as http:
        service = Service(http, triton, {DETECT: left})
        eventually(lambda: service.ready(DETECT))
        left.runs_out()
        assert detect(service).status_code == 503
        triton.kill()
        triton.start()
        eventually(lambda: service.ready(DETECT))
        assert detect(service).status_code == 200


def test_a_video_job_that_waited_in_vain_decides_anew(service: Service, video: bytes, tmp_path: Path) -> None:
    """Its next attempt is served by the smaller branch from the first frame on, where the profile allows that."""
    (tmp_path / "v.mp4").write_bytes(video)
    text = "name: depth\non_missing: fallback\ncomponents: {core_depth_midas: {branch: midas_384}}"
    pipelines, options = service.http.app.state.gateway.pipelines, Options(backend_s=0.2)  # type: ignore[attr-defined]  # FastAPI
    service.memory[DEPTH].is_short()
    with opened(tmp_path / "v.mp4") as file:
        with pytest.raises(InsufficientGpuMemory):
            VideoAnalysis(pipelines, profile(text=text), FolderStore(tmp_path / "out"), "v", options).run(
                file
            )
        manifest = VideoAnalysis(
            pipelines, profile(text=text), FolderStore(tmp_path / "out"), "v", options
        ).run(file)
    assert (manifest["degraded"], manifest["frames"]["resumed"]) == (True, 0)
    assert manifest["resolved_model_mapping"] == {"core_depth_midas": SHALLOWER}
