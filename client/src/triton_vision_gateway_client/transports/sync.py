"""The synchronous transport: one call, or one open stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx

from triton_vision_gateway_client.calls.base import Call, Received, Request, Streamed
from triton_vision_gateway_client.errors import GatewayError
from triton_vision_gateway_client.retries import Deadline
from triton_vision_gateway_client.transports.wire import (
    DONE,
    LIMITS,
    Framed,
    Settings,
    failure,
    headers_of,
    pause_of,
    translated,
    was_done,
)

T = TypeVar("T")


class OpenStream:
    """An answer whose content hasn't come yet."""

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self._response = response
        self._deadline = deadline
        self.status = response.status_code
        self.headers = headers_of(response)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content as it comes.

        Raises:
            DeadlineExceeded, ConnectionFailed.
        """
        with translated(self._deadline):
            for chunk in self._response.iter_bytes():
                yield chunk
                self._deadline.check()

    def close(self) -> None:
        """End the connection, unless the answer is complete."""
        self._response.close()


class Transport:
    """See the module. `http` is a client of the caller's own, which the caller closes."""

    def __init__(self, settings: Settings, http: httpx.Client | None) -> None:
        self._settings = settings
        self._own = http is None
        self._http = httpx.Client(limits=LIMITS) if http is None else http

    def close(self) -> None:
        """Close the connections, unless they are the caller's."""
        if self._own:
            self._http.close()

    def run(self, call: Call[T]) -> T:
        """Make a call, as often as is safe and in time, and read its answer.

        Raises:
            GatewayError: there is no good answer.
        """
        return call.parse(self._persist(call.request, self._received))

    def open(self, request: Request) -> OpenStream:
        """Make a call whose answer is read piece by piece; close it at the end.

        Raises:
            GatewayError: there is no good answer.
        """
        return self._persist(request, self._opened)

    def _persist(self, request: Request, attempt: Callable[[Request, Deadline], T]) -> T:
        deadline, attempts = self._settings.begin(request)
        while True:
            try:
                return attempt(request, deadline)
            except GatewayError as error:
                if was_done(request, attempts, error):
                    return DONE  # type: ignore[return-value]  # such requests aren't streams
                pause = pause_of(request, attempts, error)
            time.sleep(pause)

    def _received(self, request: Request, deadline: Deadline) -> Received:
        stream = self._opened(request, deadline)
        try:
            content = b"".join(stream.chunks())
        finally:
            stream.close()
        return Received(stream.status, stream.headers, content)

    def _opened(self, request: Request, deadline: Deadline) -> OpenStream:
        deadline.check()
        arguments = self._settings.arguments(request, deadline)
        if isinstance(request.body, Streamed):
            framed = Framed(request.body)
            arguments["headers"].update(framed.headers)
            arguments["content"] = framed.pieces()
        with translated(deadline):
            response = self._http.send(
                self._http.build_request(**arguments), stream=True, follow_redirects=False
            )
            if response.status_code in request.good:
                return OpenStream(response, deadline)
            try:
                content = response.read()
            finally:
                response.close()
        raise failure(response, content)
