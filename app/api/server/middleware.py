"""Around every request: its id and trace, a check of its head, its counters, and its line in the log."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import context
from app.api.request.headers import fault_of, headers_of, length_of
from app.api.response import problems
from app.api.server.security_headers import lacking
from app.context import CurrentRequest
from app.errors import ShuttingDown
from app.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_log = logging.getLogger("gateway.requests")
# A body that nobody asked for costs less than a new connection up to this size: the server throws it away.
_DISCARDED = 1 << 20

# The span around a request of this method.
Traced = Callable[[CurrentRequest, str], AbstractContextManager[None]]


class Templates:
    """Map a path to its route template before routing; `none` for paths that no route has."""

    def __init__(self, templates: Iterable[str]) -> None:
        templates = tuple(dict.fromkeys(templates))
        self._plain = {template for template in templates if "{" not in template}
        self._patterns = [(compile_path(t)[0], t) for t in templates if "{" in t]

    def of(self, path: str) -> str:
        if path in self._plain:
            return path
        return next((template for pattern, template in self._patterns if pattern.match(path)), "none")


class RequestContext:
    """Plain ASGI, so that bodies and answers pass untouched.

    A caller's `X-Request-Id` is echoed if it is a plain word of at most 128 characters; otherwise one is made.

    Args:
        app: what is inside.
        metrics: where requests are counted.
        templates: of our paths.
        traced: the span around a request, if any are wanted; see `app.process.tracing.Tracer.request`.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, templates: Templates, traced: Traced | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._templates = templates
        self._traced = traced
        self._in_flight = functools.cache(metrics.in_flight.labels)  # routes are few: they are templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        request = _request(headers)
        scope["request_id"] = request.id
        request.route = self._templates.of(scope["path"])
        watched = _Watched(request, headers, receive, send)
        token = context.enter(request)
        try:
            if self._traced is None:
                await self._counted(request, scope, watched)
            else:
                with self._traced(request, scope["method"]):
                    await self._counted(request, scope, watched)
        finally:
            context.leave(token)

    async def _counted(self, request: CurrentRequest, scope: Scope, watched: _Watched) -> None:
        in_flight = self._in_flight(request.route)
        in_flight.inc()
        started = time.perf_counter()
        try:
            fault = fault_of(scope["http_version"], scope["headers"])
            if fault is None:
                await self._app(scope, watched.receive, watched.send)
            else:
                refusal = HTTPException(400, fault, {"Connection": "close"})
                await (await problems.refusal(scope, refusal))(scope, watched.receive, watched.send)
        except asyncio.CancelledError:  # the time for requests under way is over, see `shutdown_timeout_s`
            await self._cut_off(request, scope, watched)
        except Exception:
            watched.failed()
            raise
        finally:
            in_flight.dec()
            seconds = time.perf_counter() - started
            self._count(request, seconds)
            _say(request, seconds)

    async def _cut_off(self, request: CurrentRequest, scope: Scope, watched: _Watched) -> None:
        """Answer a request that the server ends; an answer that has begun can only be broken off."""
        if request.status != "aborted":
            raise asyncio.CancelledError
        error = ShuttingDown("the service ended before the request was answered", retry_after=1)
        response = await problems.refusal(scope, error)
        response.headers["Connection"] = "close"
        await response(scope, watched.receive, watched.send)

    def _count(self, request: CurrentRequest, seconds: float) -> None:
        metrics, labels = self._metrics, request.labels()
        metrics.observe_request((request.route, *labels), request.status, seconds, request.trace_id)
        for frame in request.frames:  # now, since the stages of a frame go on until its answer is written
            metrics.observe_frame(*frame)
        metrics.observe_encode(*labels, request.encode_ms)
        for code in request.codes:
            metrics.rejections.labels(request.route, code).inc()


class _Watched:
    """`receive` and `send` of one request, which record what passes through them."""

    def __init__(
        self, request: CurrentRequest, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._unread = _has_body(headers)
        # A caller that waits for 100 may leave its body out after a refusal: nothing says what comes next then.
        self._short = length_of(headers.get(b"content-length")) <= _DISCARDED and b"expect" not in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = self._unread and bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._request.status = str(message["status"])
            headers = [*message.get("headers", ()), (b"x-request-id", self._request.id.encode())]
            if self._unread and not self._short:  # answered early: the rest is cut off, not thrown away
                headers.append((b"connection", b"close"))
            said = dict(headers)
            message["headers"] = [*headers, *lacking(tuple(said), said.get(b"content-type", b""))]
        await self._send(message)

    def failed(self) -> None:
        """A defect: it is answered further out, see `problems`."""
        if self._request.status == "aborted":
            self._request.status = "500"
        self._request.codes.append("internal_error")


def _request(headers: Mapping[bytes, bytes]) -> CurrentRequest:
    wished = headers.get(b"x-request-id", b"")
    request_id = wished.decode() if _REQUEST_ID.fullmatch(wished) else context.new_request_id()
    traceparent = headers.get(b"traceparent", b"").decode("latin-1")
    request = CurrentRequest(request_id, traceparent, headers.get(b"tracestate", b"").decode("latin-1"))
    request.rollout_header = headers.get(b"x-rollout-key", b"")
    return request


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _say(request: CurrentRequest, seconds: float) -> None:
    """Log failures as a line, successes only at debug level.

    At hundreds of requests per second, a line for each costs more than all its metrics and adds little to them and the
    traces. The line never has the path or the query, which may name a session.
    """
    level = logging.DEBUG if request.route in _PROBES else _LEVELS.get(request.status[0], logging.DEBUG)
    if _log.isEnabledFor(level):
        family, branch = request.labels()
        ms = round(seconds * 1000, 3)
        facts = {
            "route": request.route,
            "status": request.status,
            "family": family,
            "branch": branch,
            "ms": ms,
        }
        if request.codes:
            facts["codes"] = request.codes[:5]  # a batch may have hundreds
        words = " ".join(f"{name}={value}" for name, value in facts.items() if value != "")
        _log.log(level, "%s", words, extra={"facts": facts})


_PROBES = {"/livez", "/readyz", "/metrics"}  # asked every few seconds, and /readyz may be red for as long
_LEVELS = {"4": logging.INFO, "a": logging.INFO, "5": logging.WARNING}  # a: aborted
