"""Single HTTP calls with the standard library: a JSON answer, and the lines of a streamed one."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any


def asked(port: int, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
    """A JSON answer; None where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status}: {content[:500]!r}")
        return json.loads(content) if content else None


def lines(port: int, path: str, video: Path) -> Generator[bytes, None, None]:
    """The lines of an answer to a video."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": "video/mp4", "Content-Length": str(video.stat().st_size)}
    with contextlib.closing(connection), video.open("rb") as body:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read(500)!r}")
        yield from answer
