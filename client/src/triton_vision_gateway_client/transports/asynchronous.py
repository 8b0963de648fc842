"""The asynchronous transport, on asyncio: one call, or one open stream. See `sync` for what the parts do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
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


async def in_time(deadline: Deadline, work: Awaitable[T]) -> T:
    """Return what `work` returns.

    Raises:
        DeadlineExceeded: the time for the call has passed; the work is cancelled.
    """
    limit = asyncio.timeout(deadline.remaining())
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise deadline.error() from error


class AsyncOpenStream:
    """An answer whose content hasn't come yet."""

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self._response = response
        self._deadline = deadline
        self.status = response.status_code
        self.headers = headers_of(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content as it comes.

        Raises:
            DeadlineExceeded, ConnectionFailed.
        """
        content = self._response.aiter_bytes()
        while (chunk := await in_time(self._deadline, self._next(content))) is not None:
            yield chunk

    async def _next(self, content: AsyncIterator[bytes]) -> bytes | None:
        with translated(self._deadline):
            return await anext(content, None)

    async def close(self) -> None:
        """End the connection, unless the answer is complete."""
        await self._response.aclose()


class AsyncTransport:
    """See the module. `http` is a client of the caller's own, which the caller closes."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient | None) -> None:
        self._settings = settings
        self._own = http is None
        self._http = httpx.AsyncClient(limits=LIMITS) if http is None else http

    async def close(self) -> None:
        """Close the connections, unless they are the caller's."""
        if self._own:
            await self._http.aclose()

    async def run(self, make: Callable[[], Call[T]]) -> T:
        """Make a call, as often as is safe and in time, and read its answer.

        `make` reads and encodes pictures, so it runs on another thread.

        Raises:
            GatewayError: there is no good answer.
        """
        call = await asyncio.to_thread(make)
        return call.parse(await self._persist(call.request, self._received))

    async def open(self, request: Request) -> AsyncOpenStream:
        """Make a call whose answer is read piece by piece; close it at the end.

        Raises:
            GatewayError: there is no good answer.
        """
        return await self._persist(request, self._opened)

    async def _persist(self, request: Request, attempt: Callable[[Request, Deadline], Awaitable[T]]) -> T:
        deadline, attempts = self._settings.begin(request)
        while True:
            try:
                return await in_time(deadline, attempt(request, deadline))
            except GatewayError as error:
                if was_done(request, attempts, error):
                    return DONE  # type: ignore[return-value]  # such requests aren't streams
                pause = pause_of(request, attempts, error)
            await asyncio.sleep(pause)

    async def _received(self, request: Request, deadline: Deadline) -> Received:
        stream = await self._opened(request, deadline)
        try:
            content = b"".join([chunk async for chunk in stream.chunks()])
        finally:
            await stream.close()
        return Received(stream.status, stream.headers, content)

    async def _opened(self, request: Request, deadline: Deadline) -> AsyncOpenStream:
        deadline.check()
        arguments = self._settings.arguments(request, deadline)
        if isinstance(request.body, Streamed):
            framed = Framed(request.body)
            arguments["headers"].update(framed.headers)
            arguments["content"] = framed.pieces_async()
        with translated(deadline):
            response = await self._http.send(
                self._http.build_request(**arguments), stream=True, follow_redirects=False
            )
            if response.status_code in request.good:
                return AsyncOpenStream(response, deadline)
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        raise failure(response, content)
