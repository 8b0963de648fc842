"""Logs: structured, joined to the request and its trace, and without anything of the caller's."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers.gateway import png, scene, server

from app import context
from app.context import CurrentRequest
from app.process import logs

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Capture the log; pytest's own handlers are back afterwards."""
    root = logging.getLogger()
    access = logging.getLogger("uvicorn.access")
    before = root.handlers[:], root.level, access.disabled
    yield io.StringIO()
    root.handlers[:], root.level, access.disabled = before


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_says_when_what_who_and_for_which_request(stream: io.StringIO) -> None:
    """Time in UTC, level, logger, process, message; ids only while there is a request."""
    logs.configure("info", "json", stream)
    log = logging.getLogger("gateway.test")
    log.info("outside of %s", "requests")
    token = context.enter(CurrentRequest("r-1", TRACEPARENT))
    log.warning("inside", extra={"facts": {"branch": "midas_256"}})
    context.leave(token)
    outside, inside = logged(stream)
    assert outside["time"].endswith("Z")
    assert (outside["level"], outside["logger"]) == ("info", "gateway.test")
    assert outside["message"] == "outside of requests"
    assert "request_id" not in outside
    assert (inside["request_id"], inside["trace_id"], inside["branch"]) == ("r-1", TRACE, "midas_256")


@pytest.mark.parametrize("text", ['a"b\\', "two\nlines", "\ud800 half a character", "ü\x00\x1b[31m"])
def test_every_record_is_one_line_of_json(stream: io.StringIO, text: str) -> None:
    """Whatever is in a message, it can't break the line, or forge another."""
    logs.configure("info", "json", stream)
    logging.getLogger("gateway").info("%s", text)
    (line,) = logged(stream)
    assert line["message"] == text


def test_a_defect_s_trace_is_in_its_record(stream: io.StringIO) -> None:
    """The traceback is a field, so that it is found by its request."""
    logs.configure("info", "json", stream)
    try:
        int("four")
    except ValueError:
        logging.getLogger("gateway").exception("failed")
    (line,) = logged(stream)
    assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'four'")


def test_the_console_s_line_can_t_be_forged(stream: io.StringIO) -> None:
    """A line break in a message stays in its line; the ids stand at the end."""
    logs.configure("info", "console", stream)
    token = context.enter(CurrentRequest("r-1", TRACEPARENT))
    logging.getLogger("gateway").info("said\r\n2026 ERROR forged")
    context.leave(token)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(f"said\\r\\n2026 ERROR forged request_id=r-1 trace_id={TRACE}")


SECRETS = ("my-session-4711", "top-secret-key", "private-picture")


def test_a_real_server_s_log_is_all_json_and_holds_nothing_of_the_caller_s(
    repository: Path, tmp_path: Path
) -> None:
    """At debug: uvicorn's lines too; one a request with route, status, branch, time; no session, key, query or body."""
    log = tmp_path / "log"
    session, key, name = SECRETS
    headers = {"X-Request-Id": "r-7", "traceparent": TRACEPARENT, "Authorization": f"Bearer {key}"}
    with server(repository, log, log_format="json", log_level="debug") as (http, _):
        seen = png(scene(320, 320))
        assert http.post(f"/v1/detect?session={session}", content=seen, headers=headers).status_code == 200
        assert http.get(f"/v1/sessions/{session}").status_code == 200
        assert http.post(f"/v1/detect?api_key={key}", content=name.encode()).status_code == 422
        assert http.post("/v1/detect", content=name.encode()).status_code == 415
    text = log.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert not [secret for secret in SECRETS if secret in text]
    assert {"uvicorn.error", "gateway", "gateway.requests"} <= {line["logger"] for line in lines}
    requests = [line for line in lines if line["logger"] == "gateway.requests" and "/v1/" in line["route"]]
    facts = [(line["level"], line["route"], line["status"], line["branch"]) for line in requests]
    assert facts == [
        ("debug", "/v1/detect", "200", "yolo11n_320"),
        ("debug", "/v1/sessions/{id}", "200", ""),
        ("info", "/v1/detect", "422", ""),
        ("info", "/v1/detect", "415", ""),
    ]
    assert (requests[0]["request_id"], requests[0]["trace_id"]) == ("r-7", TRACE)
    assert requests[0]["ms"] > 0
    assert [line.get("codes") for line in requests[2:]] == [["validation_failed"], ["unsupported_media_type"]]


def test_at_info_only_failures_have_a_line(repository: Path, tmp_path: Path) -> None:
    """Successes are in the metrics; so are probes, which may be red for long."""
    log = tmp_path / "log"
    with server(repository, log, log_format="json") as (http, _):
        http.post("/v1/detect", content=png(scene(64, 64)))
        http.post("/v1/detect", content=b"text")
        http.get("/nowhere/my-session-4711")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    requests = [line for line in lines if line["logger"] == "gateway.requests"]
    assert [(line["route"], line["status"]) for line in requests] == [("/v1/detect", "415"), ("none", "404")]
