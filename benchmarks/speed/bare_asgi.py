"""The limit's loops behind the barest ASGI app: what HTTP itself costs in Python.

    python -m benchmarks.speed.bare_asgi --triton-url 127.0.0.1:8001 --port 9000

POST /<case> with the JPEG as body (two parts of a form for flow). One hop to a thread per request, the body joined
once, the answer in one piece; uvicorn with uvloop and httptools, as the gateway has them. No routing, validation,
limits, metrics, provenance or errors.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import uvicorn

from app.process import malloc
from benchmarks.common.cases import BOUNDARY, CASES, Case
from benchmarks.speed.limit import Key, Lane, Rig, key_of

LANES = 4
_DELIMITER = f"--{BOUNDARY}".encode()
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """See the module."""

    def __init__(self, triton_url: str) -> None:
        self._rig = Rig(triton_url)
        self._threads = ThreadPoolExecutor(LANES)
        self._free: dict[Key, list[Lane]] = {key_of(case): [] for case in CASES.values()}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = await _body(receive)
        case = CASES.get(scope["path"][1:])
        if case is None:
            await _answer(send, b"ready", b"text/plain")
            return
        content = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, case, body)
        await _answer(send, content, case.accept.encode())

    def _run(self, case: Case, body: bytes) -> bytes:
        # As many threads as lanes: one is always free or yet to be made.
        free = self._free[key_of(case)]
        lane = free.pop() if free else self._rig.lane(case)
        try:
            return lane(_parts(body) if case.parts else (body,))
        finally:
            free.append(lane)

    def close(self) -> None:
        self._threads.shutdown()
        self._rig.close()


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        return message.get("body", b"")  # type: ignore[no-any-return]  # ASGI says so
    pieces = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        pieces.append(message.get("body", b""))
    return b"".join(pieces)


def _parts(body: bytes) -> Sequence[bytes]:
    """Contents of a form's parts."""
    return [part.partition(b"\r\n\r\n")[2][:-2] for part in body.split(_DELIMITER)[1:-1]]


async def _answer(send: Send, content: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triton-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    malloc.keep_pages()  # or every frame would be mapped again
    app = App(options.triton_url)
    try:
        uvicorn.run(
            app, port=options.port, loop="uvloop", http="httptools", lifespan="off", access_log=False,
            log_level="warning",
        )  # fmt: skip
    finally:
        app.close()


if __name__ == "__main__":
    main()
