"""Problem answers as bytes, for what a connection refuses before it is a request of the application."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from app.api.server.security_headers import SECURITY
from app.context import new_request_id


def answer(status: int, code: str, title: str, detail: str, common: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Everything after the status line; the connection is closed after it.

    Args:
        status: the HTTP status.
        code: of the problem.
        title: of the problem.
        detail: of the problem.
        common: headers that every answer of the server has.
    """
    request_id = new_request_id()
    body = orjson.dumps(
        {
            "type": f"urn:gateway:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "what_to_do": "Send requests as RFC 9112 defines them.",
            "request_id": request_id,
        }
    )
    own = {
        "content-type": "application/problem+json",
        "content-length": len(body),
        "connection": "close",
        "x-request-id": request_id,
        **SECURITY,
    }
    lines = [b"%s: %s" % header for header in common]
    lines += [f"{name}: {value}".encode() for name, value in own.items()]
    return b"\r\n".join([*lines, b"", body])
