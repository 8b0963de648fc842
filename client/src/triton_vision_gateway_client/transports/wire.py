"""Requests as httpx takes them, and httpx's failures as exceptions of this package; shared by both transports."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from triton_vision_gateway_client.calls.base import Default, Form, Raw, Received, Request, Streamed
from triton_vision_gateway_client.errors import ConnectionFailed, GatewayError, NotFound, from_answer
from triton_vision_gateway_client.media import Upload
from triton_vision_gateway_client.retries import Attempts, Deadline, RetryPolicy
from triton_vision_gateway_client.version import __version__

KEY_VARIABLE = "GATEWAY_KEY"
CONNECT_S = 10.0
# Shorter than the gateway's own limit (GATEWAY_IDLE_TIMEOUT_S), so that it seldom closes a connection under a request.
KEEP_ALIVE_S = 3.0
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEP_ALIVE_S)
_NEARLY_S = 0.02  # timers may fire that much early
DONE = Received(204, {}, b"")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a client. `silence_s`: seconds without a byte after which a stream counts as broken."""

    url: str
    api_key: str | None = field(repr=False)
    timeout: float | None
    policy: RetryPolicy
    silence_s: float

    @classmethod
    def of(
        cls, url: str, api_key: str | None, timeout: float | None, retries: int, silence_s: float
    ) -> Settings:
        """Check the arguments of a client.

        Raises:
            ValueError: the address isn't http:// or https://, a number isn't positive, or the key is no key.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the address begins with http:// or https://, unlike {url!r}")
        if not silence_s > 0 or (timeout is not None and not timeout > 0) or retries < 0:
            raise ValueError("timeout and silence_timeout are positive, retries is 0 or more")
        key = (api_key if api_key is not None else os.environ.get(KEY_VARIABLE, "")).strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the API key has characters that no key has")  # and isn't repeated here
        return cls(url.rstrip("/"), key or None, timeout, RetryPolicy(retries), silence_s)

    def begin(self, request: Request) -> tuple[Deadline, Attempts]:
        """Start the clock of a call."""
        timeout = request.timeout
        if isinstance(timeout, Default):
            timeout = None if request.open_ended else self.timeout
        deadline = Deadline(timeout)
        return deadline, Attempts(self.policy, request.repeat, deadline)

    def arguments(self, request: Request, deadline: Deadline) -> dict[str, Any]:
        """Return the arguments of httpx's `build_request`, but for a streamed body."""
        remaining = deadline.remaining()
        headers = {"Accept": request.accept, "User-Agent": f"triton-vision-gateway-client/{__version__}"}
        headers |= request.headers
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if remaining is not None:
            headers["X-Request-Timeout"] = f"{max(remaining, 0.001):.3f}"
        arguments: dict[str, Any] = {
            "method": request.method,
            "url": httpx.URL(self.url + request.path),
            "params": list(request.query) or None,
            "headers": headers,
            "timeout": self._timeouts(request, remaining),
        }
        body = request.body
        if isinstance(body, Raw):
            arguments["content"] = body.content
            headers["Content-Type"] = body.media_type
        elif isinstance(body, Form):
            arguments["files"] = [
                (part.name, (part.file_name, part.content, part.media_type)) for part in body.files
            ]
            arguments["data"] = dict(body.texts)
        return arguments

    def _timeouts(self, request: Request, remaining: float | None) -> httpx.Timeout:
        limits = [
            seconds for seconds in (remaining, self.silence_s if request.open_ended else None) if seconds
        ]
        longest = min(limits, default=self.silence_s)
        return httpx.Timeout(longest, connect=min(CONNECT_S, longest))


class Framed:
    """A streamed body with the form around it, if it has one."""

    def __init__(self, body: Streamed) -> None:
        self._upload: Upload = body.upload
        self.headers = {"Content-Type": "application/octet-stream"}
        self._head = self._tail = b""
        if body.texts:
            boundary = secrets.token_hex(16)
            self.headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
            self._head = _texts(boundary, body.texts) + _file_head(boundary, body.upload.name or "video")
            self._tail = f"\r\n--{boundary}--\r\n".encode()
        if body.upload.size is not None:
            nbytes = len(self._head) + body.upload.size + len(self._tail)
            self.headers["Content-Length"] = str(nbytes)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body."""
        if self._head:
            yield self._head
        yield from self._upload.pieces()
        if self._tail:
            yield self._tail

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        if self._head:
            yield self._head
        async for piece in self._upload.pieces_async():
            yield piece
        if self._tail:
            yield self._tail


def _texts(boundary: str, texts: Mapping[str, str]) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in texts.items()
    ]
    return "".join(parts).encode()


def _file_head(boundary: str, name: str) -> bytes:
    for character, escape in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
        name = name.replace(character, escape)
    disposition = f'form-data; name="file"; filename="{name}"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode("utf-8", "replace")


@contextlib.contextmanager
def translated(deadline: Deadline) -> Iterator[None]:
    """Raise httpx's failures as exceptions of this package.

    Raises:
        DeadlineExceeded: the time for the call has passed.
        ConnectionFailed: there is no complete answer.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        remaining = deadline.remaining()
        if remaining is not None and remaining <= _NEARLY_S:
            raise deadline.error() from error
        sent = not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        what = (
            "nothing came from the service for too long" if sent else "the service can't be reached in time"
        )
        raise ConnectionFailed(what, sent=sent) from error
    except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise ConnectionFailed(f"the service can't be reached: {_words(error)}", sent=False) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise ConnectionFailed(f"the connection broke: {_words(error)}", sent=True) from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def headers_of(response: httpx.Response) -> dict[str, str]:
    """Return the headers by their names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def failure(response: httpx.Response, content: bytes) -> GatewayError:
    """Return the exception for an answer with an error's status."""
    return from_answer(response.status_code, headers_of(response), content)


def was_done(request: Request, attempts: Attempts, error: GatewayError) -> bool:
    """Return whether this 404 means that an earlier attempt, whose answer was lost, has been carried out."""
    return request.gone_is_done and attempts.lost and isinstance(error, NotFound)


def pause_of(request: Request, attempts: Attempts, error: GatewayError) -> float:
    """Return the seconds to wait before the next attempt.

    Raises:
        GatewayError: `error`, if there is none.
    """
    if not request.sendable_again:
        raise error
    return attempts.pause_after(error)
