"""Traces: one span per request and one per stage, in the caller's trace, and propagated to Triton."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.analysis import patches
from support.paths import ROOT
from support.servers.collector import Collector, Seen
from support.servers.gateway import client, png, scene

from app.context import CurrentRequest
from deploy.local.triton_server import TritonServer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STAGES = ["admission", "decode", "encode", "finish", "infer", "prepare", "queue"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Running, empty."""
    with Collector() as running:
        yield running


def traced(repository: Path, collector: Collector, **settings: Any) -> Any:
    """A gateway that sends its spans there; all of them have arrived when it has ended."""
    return client(repository, tracing_endpoint=collector.url, **settings)


def of(spans: list[Seen], trace: str) -> tuple[Seen, list[Seen]]:
    """The request's span, and those below it."""
    mine = [span for span in spans if span.trace == trace]
    (request,) = (span for span in mine if "http.route" in span.facts)
    return request, [span for span in mine if span is not request]


def test_stages_stand_under_the_request_in_the_caller_s_trace(repository: Path, collector: Collector) -> None:
    """`traceparent` is the parent; each stage is a child, inside its time; the span says what served."""
    with traced(repository, collector) as gateway:
        headers = {**TRACEPARENT, "X-Request-Id": "mine"}
        answer = gateway.post("/v1/detect", content=png(scene(320, 320)), headers=headers)
        assert answer.status_code == 200
    request, stages = of(collector.spans, TRACE)
    assert (request.name, request.parent, request.failed) == ("POST /v1/detect", PARENT, False)
    assert request.service == "triton-vision-gateway"
    assert request.facts == {
        "http.request.method": "POST", "http.route": "/v1/detect", "http.response.status_code": 200,
        "gateway.request_id": "mine", "gateway.family": "detect", "gateway.branch": "yolo11n_320",
    }  # fmt: skip
    assert sorted(span.name for span in stages) == STAGES
    assert {span.parent for span in stages} == {request.id}
    assert all(request.start <= span.start <= span.end <= request.end for span in stages)


def test_without_a_caller_s_trace_one_begins(repository: Path, collector: Collector) -> None:
    """No header, and one that is none: a trace of its own each."""
    with traced(repository, collector) as gateway:
        for headers in ({}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, {"traceparent": "x-y"}):
            assert gateway.get("/livez", headers=headers).status_code == 200
    roots = [span for span in collector.spans if span.name == "GET /livez"]
    assert {span.parent for span in roots} == {""}
    assert len({span.trace for span in roots}) == len(roots) == 3


def test_frames_of_a_batch_have_their_own_stages(repository: Path, collector: Collector) -> None:
    """Three frames side by side: three of each stage under one request, and one encoding."""
    parts = [("file", ("f", png(scene(320, 320)))) for _ in range(3)]
    with traced(repository, collector) as gateway:
        assert gateway.post("/v1/detect", files=parts, headers=TRACEPARENT).status_code == 200
    request, stages = of(collector.spans, TRACE)
    names = [span.name for span in stages]
    assert {name: names.count(name) for name in STAGES} == {**dict.fromkeys(STAGES, 3), "encode": 1}
    assert {span.parent for span in stages} == {request.id}


def test_a_stage_that_fails_says_so(repository: Path, collector: Collector) -> None:
    """The span of the stage and of the request name the problem; a caller's mistake is no error of the server."""
    with traced(repository, collector) as gateway:
        png_without_pixels = png(scene(64, 64))[:60]
        answer = gateway.post("/v1/detect", content=png_without_pixels, headers=TRACEPARENT)
        assert answer.json()["code"] == "invalid_image"
    request, stages = of(collector.spans, TRACE)
    (decode,) = (span for span in stages if span.name == "decode")
    assert (decode.failed, decode.facts["error.type"]) == (True, "invalid_image")
    assert (request.failed, request.facts["error.type"]) == (False, "invalid_image")
    assert request.facts["http.response.status_code"] == 400


def test_what_the_caller_doesn_t_sample_is_not_recorded(repository: Path, collector: Collector) -> None:
    """Flags 00, and a ratio of 0: no span leaves, and the answer is the same."""
    unsampled = {"traceparent": TRACEPARENT["traceparent"][:-1] + "0"}
    with traced(repository, collector, tracing_sample_ratio=0) as gateway:
        for headers in ({}, unsampled):
            assert gateway.post("/v1/detect", content=png(scene(64, 64)), headers=headers).status_code == 200
    assert collector.spans == []


def test_a_video_is_one_span(repository: Path, collector: Collector, tmp_path: Path) -> None:
    """However many frames it has."""
    video = patches(tmp_path / "video.mp4", 12).read_bytes()
    with traced(repository, collector) as gateway:
        answer = gateway.post("/v1/detect", content=video, headers=TRACEPARENT)
        assert len(answer.text.splitlines()) == 13
    request, below = of(collector.spans, TRACE)
    assert below == []
    assert request.facts["gateway.branch"].startswith("yolo11n")


def test_a_collector_that_is_away_costs_no_request(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: the answers are there all the same."""
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_TIMEOUT", "1"
    )  # of the last attempts, at the end; default: 10 seconds
    with client(repository, tracing_endpoint="http://127.0.0.1:9/v1/traces") as gateway:
        assert gateway.post("/v1/detect", content=png(scene(64, 64))).status_code == 200


OFF = """
import sys
from app.main import create_app
from app.settings import Settings
create_app(Settings())
unwanted = ("opentelemetry.sdk", "opentelemetry.exporter", "app.process.tracing")
print([name for name in sys.modules if name.startswith(unwanted)])
"""


def test_off_nothing_is_imported() -> None:
    """Without an endpoint no package of the extra is touched."""
    done = subprocess.run([sys.executable, "-c", OFF], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_the_start_says_what_to_install() -> None:
    """A gateway whose installation has no OpenTelemetry SDK refuses the setting by its remedy."""
    hide = "import sys; sys.modules['opentelemetry.sdk'] = None\n"
    code = hide + OFF.replace("Settings()", "Settings(tracing_endpoint='http://127.0.0.1:9/v1/traces')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("tracing needs OpenTelemetry: pip install '.[tracing]'\n")


@pytest.fixture
def tracing_triton(repository: Path, collector: Collector, tmp_path: Path) -> Iterator[TritonServer]:
    """A real Triton that sends spans of its own to the same collector."""
    exporter = [f"opentelemetry,{setting}" for setting in (f"url={collector.url}", "bsp_schedule_delay=100")]
    trace = ["mode=opentelemetry", *exporter, "level=TIMESTAMPS", "rate=1000000"]
    extra = [word for setting in trace for word in ("--trace-config", setting)]
    with TritonServer(repository, tmp_path / "triton.log", extra=extra) as server:
        yield server
        server.kill()  # a stop takes seconds longer, and proves nothing here


def _is_triton_s(span: Seen) -> bool:
    return span.service == "triton-inference-server" and span.trace == TRACE


def _of_triton(spans: list[Seen]) -> bool:
    return any(map(_is_triton_s, spans))


@pytest.mark.triton
@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
@pytest.mark.parametrize("tracing", [True, False], ids=["traced", "passed-on"])
def test_triton_s_own_spans_stand_in_the_same_trace(
    repository: Path, tracing_triton: TritonServer, collector: Collector, transport: str, tracing: bool
) -> None:
    """Triton's span is a child of our `infer`; of the caller's, where we trace nothing ourselves."""
    endpoint = collector.url if tracing else None
    settings = {"engine": "triton", "triton_url": tracing_triton.grpc_url, "triton_transport": transport}
    with client(repository, **settings, tracing_endpoint=endpoint) as gateway:
        for _ in range(3):  # Triton's exporter loses a batch of spans now and then
            answer = gateway.post("/v1/detect", content=png(scene(320, 320)), headers=TRACEPARENT)
            assert answer.status_code == 200
            if _of_triton(collector.wait(_of_triton, seconds=12)):
                break
    spans = collector.wait(_of_triton)  # ours are all there once the gateway has ended
    theirs = [span for span in spans if _is_triton_s(span)]
    outside = {span.parent for span in theirs} - {span.id for span in theirs}
    if tracing:
        assert outside
        assert outside <= {span.id for span in spans if span.name == "infer" and span.trace == TRACE}
    else:
        assert outside == {PARENT}
    assert "yolo11n_320" in {span.name for span in theirs}


def test_what_can_t_be_metadata_is_not_passed_on() -> None:
    """A tracestate with bytes that gRPC refuses must not fail the inference."""
    request = CurrentRequest("id", TRACEPARENT["traceparent"], "a=\xff")
    assert request.trace_headers == TRACEPARENT
    assert CurrentRequest("id", "", "a=1").trace_headers == {}
    assert CurrentRequest("id", TRACEPARENT["traceparent"], "a=1").trace_headers["tracestate"] == "a=1"
