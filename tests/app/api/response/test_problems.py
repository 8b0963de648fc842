"""Every failure has its status and code, and says what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.models.engines import Arrays
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene
from support.waiting import PATIENCE_S

from app import errors
from app.api.openapi.schemas import Problem
from app.api.response.problems import STATUS, problem
from app.engine.fake import FakeEngine, Function

BODY = png(scene(320, 320))
# API.md; beyond it: 403, 422 url_refused, pages and idempotency keys, 429 rate_limited, 502 ("no failure of the backend
# is ever a 500") and two services that can be switched off.
STATUS_OF_CODE = {
    "invalid_image": 400,
    "invalid_video": 400,
    "prompt_too_long": 400,
    "url_refused": 422,
    "invalid_cursor": 422,
    "idempotency_key_in_use": 409,
    "idempotency_key_reused": 422,
    "source_not_allowed": 422,
    "source_refused": 502,
    "source_unreachable": 502,
    "source_too_large": 413,
    "source_timeout": 504,
    "unauthorized": 401,
    "forbidden": 403,
    "session_not_found": 404,
    "video_not_found": 404,
    "session_conflict": 409,
    "video_too_long": 413,
    "invalid_parameter": 400,
    "model_not_found": 404,
    "payload_too_large": 413,
    "image_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "overloaded": 429,
    "inference_failed": 502,
    "triton_unavailable": 503,
    "several_servers": 503,
    "model_not_ready": 503,
    "weights_missing": 503,
    "insufficient_gpu_memory": 503,
    "sessions_unavailable": 503,
    "videos_unavailable": 503,
    "shutting_down": 503,
    "deadline_exceeded": 504,
}


def _leaves(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for sub in below:
        yield from _leaves(sub)


LEAVES = sorted(_leaves(errors.GatewayError), key=lambda kind: kind.__name__)


def test_every_error_that_can_be_raised_has_the_contract_s_status() -> None:
    """No error of the tree is missing from the service's table, which agrees with the contract's."""
    assert set(STATUS) == set(LEAVES)
    assert {kind.code: STATUS[kind] for kind in LEAVES}.items() <= STATUS_OF_CODE.items()


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_a_problem_says_what_happened_and_what_to_do(kind: type[errors.GatewayError]) -> None:
    """Code, title, detail, request id and advice stand in every problem object."""
    body = problem(kind("queue"), "abc")
    Problem.model_validate(body)
    assert body["code"] == kind.code
    assert body["request_id"] == "abc"
    assert "queue" in body["detail"]
    assert body["title"]
    assert body["what_to_do"]
    assert body["type"].endswith(kind.code)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The tree that the errors module draws is the tree of its classes, with the codes."""
    drawn = dict(line.strip("│├└─ ").split() for line in (errors.__doc__ or "").splitlines() if "_" in line)
    written = {kind.__name__: kind.code for kind in LEAVES}
    assert drawn == {name: code for name, code in written.items() if "_" in code}
    assert all(name in (errors.__doc__ or "") for name in written)


def _engine(function: Function, leases: int = 2, max_waiting: int = 64) -> FakeEngine:
    return FakeEngine(CATALOGUE, {"yolo11n_320": function}, leases, max_waiting)


def test_a_model_that_fails_is_a_bad_gateway(repository: Path) -> None:
    """A failure of the backend carries the backend's message and is no 500."""

    def fail(inputs: Arrays, outputs: Arrays) -> None:
        raise errors.InferenceFailed("node Conv_3 said no")

    with client(repository, lambda *_: _engine(fail)) as gateway:
        answer = gateway.post("/v1/detect", content=BODY)
    assert (answer.status_code, answer.json()["code"]) == (502, "inference_failed")
    assert "node Conv_3 said no" in answer.json()["detail"]


def test_a_full_queue_says_when_to_come_again(repository: Path) -> None:
    """With the one lease out and no place to wait, the next call is a 429 at once, with Retry-After in seconds."""
    inside, leave = threading.Event(), threading.Event()

    def hold(inputs: Arrays, outputs: Arrays) -> None:
        inside.set()
        assert leave.wait(PATIENCE_S)
        outputs["output0"].fill(0)

    with (
        client(repository, lambda *_: _engine(hold, leases=1, max_waiting=0)) as gateway,
        ThreadPoolExecutor(1) as other,
    ):
        first = other.submit(gateway.post, "/v1/detect", content=BODY)
        try:
            assert inside.wait(PATIENCE_S)
            refused = gateway.post("/v1/detect", content=BODY)
        finally:
            leave.set()
        assert first.result(PATIENCE_S).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


def test_a_defect_is_a_500_with_its_request_id_and_is_counted(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen error is still a problem answer, is found in log and metrics, and reveals nothing internal."""

    def break_(inputs: Arrays, outputs: Arrays) -> None:
        raise RuntimeError("secret of the inside")

    with client(repository, lambda *_: _engine(break_)) as gateway:
        answer = gateway.post("/v1/detect", content=BODY, headers={"x-request-id": "find-me"})
        counted = _counted(gateway)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "find-me"
    assert "secret" not in json.dumps(answer.json())
    assert "find-me" in caplog.text
    assert counted["/v1/detect", "500"] == 1


def _counted(gateway: TestClient) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(gateway.get("/metrics").text)
    return {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in families
        if family.name == "gateway_requests"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
