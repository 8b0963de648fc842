"""HEAD on every GET route: the answer to GET without its body (RFC 9110, 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):  # no error: it ends an answer whose rest nobody gets
    """The head of the answer has been sent."""


class HeadAsGet:
    """Plain ASGI; calls what is inside with GET, and ends it as soon as the answer's head is complete.

    An answer without end, such as the events of a job, is over with its head.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _Answered
            await send(message)

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except* _Answered:
            pass
