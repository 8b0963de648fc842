"""Around every request: its id, and its count and duration."""

from __future__ import annotations

import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestContext:
    """Plain ASGI, so that bodies and answers pass untouched.

    A caller's `X-Request-Id` is echoed if it is a plain word of at most 128 characters; otherwise one is made.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wished = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = wished if _REQUEST_ID.fullmatch(wished) else uuid.uuid4().hex.encode()
        scope["request_id"] = request_id.decode()
        started = time.perf_counter()
        status, unread = "aborted", _has_body(scope)

        async def receive_and_watch() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body", False))
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
                if unread:  # answered early: the rest is cut off, not read and thrown away
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive_and_watch, send_with_id)
        except Exception:
            status = "500" if status == "aborted" else status  # answered further out, see `problems`
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
