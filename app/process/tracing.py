"""OpenTelemetry spans: one per request, with a child span per stage of each frame. An extra; imported only on demand.

Frames of a video are no spans (there may be 200,000 of them): its request has one, and the metrics have their stages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import __version__, context
from app.context import CurrentRequest
from app.errors import GatewayError

_W3C = TraceContextTextMapPropagator()


def otlp(endpoint: str) -> SpanProcessor:
    """Create a processor that sends spans to a collector by HTTP, in batches, on its own thread; `url` is the full
    URL.

    A collector that is away costs its spans, never a request.
    """
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))


class Tracer:
    """Made once, after the process has been forked; `close` sends what is left.

    Args:
        processor: where spans go.
        service: the service's name in the traces.
        ratio: of the requests that bring no decision of the caller's with them, how many are traced.
    """

    def __init__(self, processor: SpanProcessor, service: str, ratio: float = 1.0) -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        sampler = ParentBased(TraceIdRatioBased(ratio))
        # Not the process's global provider: other libraries' spans are not asked for.
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gateway", __version__)

    @contextlib.contextmanager
    def request(self, request: CurrentRequest, method: str) -> Iterator[None]:
        """The span of a request, a child of the caller's where it sent a `traceparent`.

        `request` learns its trace's id, and that its stages are traced (unless this one isn't sampled).
        """
        parent = _W3C.extract(request.trace_headers, Context())
        span = self._tracer.start_span(f"{method} {request.route}", parent, SpanKind.SERVER)
        request.trace_id = format_trace_id(span.get_span_context().trace_id)
        token = otel_context.attach(set_span_in_context(span))
        request.trace_headers = _headers()
        if span.is_recording():
            request.spans = self
        try:
            yield
        finally:
            self._describe(span, request, method)
            span.end()
            otel_context.detach(token)

    def _describe(self, span: Span, request: CurrentRequest, method: str) -> None:
        family, branch = request.labels()
        facts = {
            "http.request.method": method, "http.route": request.route, "gateway.request_id": request.id,
            "gateway.family": family, "gateway.branch": branch,
        }  # fmt: skip
        span.set_attributes(facts)
        if request.status.isdecimal():
            span.set_attribute("http.response.status_code", int(request.status))
        if request.codes:
            span.set_attribute("error.type", request.codes[0])
        if request.status[:1] == "5":
            span.set_status(StatusCode.ERROR)

    def begin(self, stage: str) -> context.EndSpan:
        """See `context.Spans.begin`."""
        span = self._tracer.start_span(stage, kind=SpanKind.CLIENT if stage == "infer" else SpanKind.INTERNAL)
        token = otel_context.attach(set_span_in_context(span))

        def end(error: BaseException | None = None) -> None:
            if error is not None:
                kind = error.code if isinstance(error, GatewayError) else type(error).__name__
                span.set_attribute("error.type", kind)
                span.set_status(StatusCode.ERROR)
            span.end()
            otel_context.detach(token)

        return end

    def headers(self) -> Mapping[str, str]:
        """See `context.Spans.headers`."""
        return _headers()

    def close(self) -> None:
        self._provider.shutdown()


def _headers() -> dict[str, str]:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier
