"""The port for operation: probes and metrics away from where callers are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.server.access import OPERATE_PORT
from app.api.server.connections import Connection


class _Second(uvicorn.Server):
    """Second server in another server's event loop; the other one handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, sock: socket.socket | None) -> AsyncIterator[None]:
    """Answer on `sock` too, in this loop: it opens before the service does, and closes after the last request.

    Each of several workers has a socket of its own at the same port; what one answers of metrics holds for all.
    """
    if sock is None:
        yield
        return
    # The service's own life is not this server's; a scrape that hangs doesn't hold the process.
    config = uvicorn.Config(
        _marked(app), lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=2, http=Connection,
    )  # fmt: skip
    server = _Second(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _marked(app: ASGIApp) -> ASGIApp:
    """`app`, told by which port a request came."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, OPERATE_PORT: True}, receive, send)

    return marked
