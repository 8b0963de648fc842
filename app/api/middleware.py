"""Around every request: its id and trace, what is counted of it, and its line in the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import context
from app.context import CurrentRequest
from app.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_log = logging.getLogger("gateway.requests")


class Templates:
    """Which template of ours a path is: known before routing, and `none` for what a caller made up."""

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
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, templates: Templates) -> None:
        self._app = app
        self._metrics = metrics
        self._templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _request(scope)
        scope["request_id"] = request.id
        route = self._templates.of(scope["path"])
        watched = _Watched(request, scope, receive, send)
        token = context.enter(request)
        in_flight = self._metrics.in_flight.labels(route)
        in_flight.inc()
        started = time.perf_counter()
        try:
            await self._app(scope, watched.receive, watched.send)
        except Exception:
            watched.failed()
            raise
        finally:
            in_flight.dec()
            seconds = time.perf_counter() - started
            self._count(request, route, watched.status, seconds)
            _say(request, route, watched.status, seconds)
            context.leave(token)

    def _count(self, request: CurrentRequest, route: str, status: str, seconds: float) -> None:
        metrics, labels = self._metrics, request.labels()
        metrics.requests.labels(route, *labels, status).inc()
        exemplar = {"trace_id": request.trace_id} if request.trace_id else None
        metrics.request_seconds.labels(route, *labels).observe(seconds, exemplar)
        for frame in request.frames:  # now, since the stages of a frame go on until its answer is written
            metrics.observe_frame(*frame)
        metrics.observe_encode(*labels, request.encode_ms)
        for code in request.codes:
            metrics.rejections.labels(route, code).inc()


class _Watched:
    """The two ends of one request, with what passes them remembered."""

    def __init__(self, request: CurrentRequest, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = "aborted"
        self._request = request
        self._receive = receive
        self._send = send
        self._unread = _has_body(scope)

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = self._unread and bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
            headers = [*message.get("headers", ()), (b"x-request-id", self._request.id.encode())]
            if self._unread:  # answered early: the rest is cut off, not read and thrown away
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)

    def failed(self) -> None:
        """A defect: it is answered further out, see `problems`."""
        if self.status == "aborted":
            self.status = "500"
        self._request.codes.append("internal_error")


def _request(scope: Scope) -> CurrentRequest:
    headers = dict(scope["headers"])
    wished = headers.get(b"x-request-id", b"")
    request_id = wished.decode() if _REQUEST_ID.fullmatch(wished) else uuid.uuid4().hex
    traceparent = headers.get(b"traceparent", b"").decode("latin-1")
    return CurrentRequest(request_id, traceparent, headers.get(b"tracestate", b"").decode("latin-1"))


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _say(request: CurrentRequest, route: str, status: str, seconds: float) -> None:
    """A line for what failed; for what went well only at debug.

    At hundreds of requests a second a line each costs more than all of its metrics, and says little that those and the
    traces don't; a failure is what one comes to the log for. Never the path or the query: they may name a session.
    """
    failure = status[0] == "5"
    level = logging.WARNING if failure else logging.INFO if status[0] not in "23" else logging.DEBUG
    if _log.isEnabledFor(level):
        family, branch = request.labels()
        facts = {
            "route": route, "status": status, "family": family, "branch": branch,
            "codes": request.codes[:5], "ms": round(seconds * 1000, 3),
        }  # fmt: skip
        _log.log(level, "%s %s %s %.1f ms", route, status, branch, seconds * 1000, extra={"facts": facts})
