"""Metrics: what they are called, and that several workers answer for each other."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.paths import ROOT

from app.metrics import STAGE_BUCKETS, Metrics, markdown
from app.metrics.bulk import BulkMetrics

# What a caller can choose: none of it may be a label.
DESCRIBED = [*Metrics(triton=True).described, *BulkMetrics().described]
CALLERS = {"session", "session_id", "request_id", "path", "url", "id", "video", "prompt", "key", "name", "ip"}


def values(text: bytes | str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    families = text_string_to_metric_families(text if isinstance(text, str) else text.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return values(metrics.exposition()).get((name, frozenset(labels.items())))


def test_names_follow_the_conventions() -> None:
    """Counters end in _total, nothing else does; durations are in seconds and sizes in bytes; each says what it is."""
    described = DESCRIBED
    assert len({row.name for row in described}) == len(described)
    for row in described:
        assert re.fullmatch(r"gateway_[a-z]+(_[a-z]+)*", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert not re.search(r"_(ms|milliseconds|mb|kb|count|sum|bucket)(_|$)", row.name), row.name
        assert ("duration" in row.name or "lag" in row.name) <= row.name.endswith("_seconds"), row.name
        assert (row.kind == "histogram") <= row.name.endswith("_seconds"), row.name
        assert len(row.help) > 20
        assert not CALLERS & set(row.labels), row.name


def test_the_page_is_what_the_code_has() -> None:
    """docs/metrics.md is not stale; `gateway metrics` makes it."""
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == markdown(DESCRIBED)


def test_buckets_tell_a_letterbox_from_a_large_model() -> None:
    """From 0.1 ms to 60 s, each at most 3 times the one before, so that a quantile is right within that."""
    assert (STAGE_BUCKETS[0], STAGE_BUCKETS[-1]) == (0.0001, 60)
    assert all(1 < high / low <= 3.01 for low, high in itertools.pairwise(STAGE_BUCKETS))


def test_a_stage_that_a_frame_skipped_is_not_counted() -> None:
    """A prompt has no decode: 0 would pull that stage's quantiles down."""
    metrics = Metrics()
    metrics.observe_frame("clip_text", "clip_text", "rule", {"decode": 0.0, "infer": 20.0, "encode": 0.0})
    labels = {"family": "clip_text", "branch": "clip_text"}
    assert value(metrics, "gateway_stage_duration_seconds_count", stage="infer", **labels) == 1
    assert value(metrics, "gateway_stage_duration_seconds_sum", stage="infer", **labels) == 0.02
    assert value(metrics, "gateway_stage_duration_seconds_count", stage="decode", **labels) is None
    assert value(metrics, "gateway_branch_decisions_total", kind="rule", **labels) == 1


def test_an_info_that_no_longer_holds_is_gone() -> None:
    """A model with new weights has one row, not two."""
    metrics = Metrics()
    row = ("m", "sha256:a", "random", "inprocess", "onnx", "fp32", "cpu")
    metrics.set_infos(metrics.model_info, {row})
    metrics.set_infos(metrics.model_info, {("m", "sha256:b", *row[2:])})
    rows = values(metrics.exposition()).items()
    found = {
        dict(labels)["weights_digest"]: number
        for (name, labels), number in rows
        if name == "gateway_model_info"
    }
    assert found == {"sha256:b": 1}


def test_without_triton_nothing_is_said_of_it() -> None:
    """An embedded gateway must not look like one that has lost its Triton."""
    assert b"gateway_triton" not in Metrics().exposition()
    assert b"gateway_triton_connected 0.0" in Metrics(triton=True).exposition()


def test_exemplars_only_where_openmetrics_is_asked_for() -> None:
    """The text format has none; OpenMetrics has the trace's id at its bucket, and ends with # EOF."""
    metrics = Metrics()
    metrics.request_seconds.labels("/v1/detect", "detect", "b").observe(0.003, {"trace_id": "a" * 32})
    text, kind = metrics.negotiated("text/plain")
    assert (b"trace_id" in text, kind.partition(";")[0]) == (False, "text/plain")
    text, kind = metrics.negotiated("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert re.search(rb'_bucket\{[^}]*le="0.005"[^}]*\} 1.0 # \{trace_id="a{32}"\} 0.003', text)
    assert text.endswith(b"# EOF\n")


WORKER = """
import sys
from pathlib import Path
from app.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]), triton=True)
metrics.requests.labels("/v1/detect", "detect", "b", "200").inc(int(sys.argv[2]))
metrics.request_seconds.labels("/v1/detect", "detect", "b").observe(0.003)
metrics.in_flight.labels("/v1/detect").inc(2)
metrics.leases.labels("b").set(4)
metrics.model_ready.labels("b", "true", "").set(int(sys.argv[3]))
metrics.triton_connected.set(1)
metrics.video_jobs.labels("queued", "db").set(7)
metrics.set_build("1.0", "triton")
for line in sys.stdin:
    text, _ = metrics.negotiated(line.strip())
    sys.stdout.write(f"{len(text)}\\n{text.decode()}")
    sys.stdout.flush()
"""


class Worker:
    """A process of its own with its own Metrics, which is asked through a pipe."""

    def __init__(self, folder: Path, requests: int, ready: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(requests), str(ready)],
            cwd=ROOT, env={"PROMETHEUS_MULTIPROC_DIR": str(folder)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def scrape(self, accept: str = "text/plain") -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{accept}\n")
        self.process.stdin.flush()
        return self.process.stdout.read(int(self.process.stdout.readline()))

    def value(self, name: str, **labels: str) -> float | None:
        return values(self.scrape()).get((name, frozenset(labels.items())))


@contextmanager
def workers(folder: Path) -> Iterator[tuple[Worker, Worker]]:
    """Two, which have served 3 and 5 requests; the second's model isn't ready."""
    pair = Worker(folder, 3, 1), Worker(folder, 5, 0)
    try:
        for worker in pair:
            worker.scrape()  # it has begun
        yield pair
    finally:
        for worker in pair:
            worker.process.kill()
            worker.process.communicate()


def test_whichever_worker_answers_it_answers_for_all(tmp_path: Path) -> None:
    """Counters, histograms, queues and leases add up; ready is only what is ready in each; jobs are counted once."""
    detect = {"route": "/v1/detect"}
    served = {**detect, "family": "detect", "branch": "b"}
    with workers(tmp_path) as pair:
        for worker in pair:
            assert worker.value("gateway_requests_total", **served, status="200") == 8
            assert worker.value("gateway_request_duration_seconds_bucket", **served, le="0.005") == 2
            assert worker.value("gateway_requests_in_flight", **detect) == 4
            assert worker.value("gateway_leases", branch="b") == 8
            assert worker.value("gateway_model_ready", model="b", required="true", checklist="") == 0
            assert worker.value("gateway_triton_connected") == 1
            assert worker.value("gateway_video_jobs", state="queued", store="db") == 7
            assert "gateway_build_info{" in worker.scrape()
            assert 'pid="' not in worker.scrape()


def test_a_dead_worker_holds_nothing_and_has_served_what_it_served(tmp_path: Path) -> None:
    """Its gauges go with it, whatever killed it; its counts stay, or rates would jump."""
    with workers(tmp_path) as (alive, dead):
        dead.process.kill()
        dead.process.wait()
        assert alive.value("gateway_requests_in_flight", route="/v1/detect") == 2
        assert alive.value("gateway_leases", branch="b") == 4
        assert alive.value("gateway_model_ready", model="b", required="true", checklist="") == 1
        served = {"route": "/v1/detect", "family": "detect", "branch": "b", "status": "200"}
        assert alive.value("gateway_requests_total", **served) == 8


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_help_and_type_survive_the_files(tmp_path: Path, accept: str) -> None:
    """With several workers too, every metric says what it is."""
    with workers(tmp_path) as (worker, _):
        text = worker.scrape(accept)
    assert re.search(r"# HELP gateway_requests_in_flight Requests that are being answered\.", text)
    assert re.search(r"# TYPE gateway_request_duration_seconds histogram", text)
    assert "Multiprocess metric" not in text
