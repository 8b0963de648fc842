"""A collector of OpenTelemetry traces: takes OTLP over HTTP, from the gateway and from Triton alike."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """One span; ids in hex, `parent` empty for a root; times in ns."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    service: str
    facts: dict[str, Any] = field(default_factory=dict)


def _request(body: bytes, form: str) -> ExportTraceServiceRequest:
    """Protobuf, as the gateway sends it; or JSON, as Triton does, whose ids are in hex (OTLP's exception)."""
    if form != "application/json":
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        return request
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            for name in {"traceId", "spanId", "parentSpanId"} & set(span):
                span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    request = ExportTraceServiceRequest()
    ParseDict(document, request, ignore_unknown_fields=True)
    return request


def _spans(request: ExportTraceServiceRequest) -> list[Seen]:
    found = []
    for resource in request.resource_spans:
        service = _facts(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                times = (span.start_time_unix_nano, span.end_time_unix_nano)
                failed = span.status.code == span.status.STATUS_CODE_ERROR
                found.append(Seen(span.name, *ids, *times, failed, service, _facts(span.attributes)))
    return found


def _facts(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in attributes}


class Collector:
    """Start with `with Collector() as collector:`."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the standard library's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.spans += _spans(_request(body, self.headers["Content-Type"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def wait(self, enough: Callable[[list[Seen]], bool], seconds: float = 120) -> list[Seen]:
        """Spans arrive in batches."""
        limit = time.monotonic() + seconds
        while not enough(self.spans) and time.monotonic() < limit:
            time.sleep(0.05)
        return list(self.spans)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
