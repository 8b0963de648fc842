"""Reading requests: bodies within limits, parts, deadlines, and which form the answer takes."""

from __future__ import annotations

import asyncio
import math

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.api.problems import NotAcceptable
from app.errors import DeadlineExceeded, InvalidParameter, PayloadTooLarge
from app.pipelines.base import Deadline
from app.settings import Settings


def deadline_of(request: Request, settings: Settings) -> Deadline:
    """The server's limit, or what the caller allows in `X-Request-Timeout` (seconds) if that is less.

    Raises:
        InvalidParameter: the header is no positive number.
    """
    text = request.headers.get("x-request-timeout")
    seconds = settings.request_timeout_s
    if text is not None:
        try:
            wished = float(text)
        except ValueError:
            wished = math.nan
        if not wished > 0:
            raise InvalidParameter(f"X-Request-Timeout must be a positive number of seconds, not {text!r}")
        seconds = min(seconds, wished)
    return Deadline.after(seconds)


async def read_body(request: Request, limit: int, deadline: Deadline) -> bytes:
    """The whole body, counted while it comes.

    Raises:
        PayloadTooLarge: more than `limit` bytes, announced or sent.
        DeadlineExceeded: the sender was too slow (stage `receive`).
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise PayloadTooLarge(f"the body has {announced} bytes; the limit is {limit}")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(deadline.remaining()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise DeadlineExceeded("receive") from error
    except ClientDisconnect as error:  # nobody is there to read the answer
        raise InvalidParameter("the sender left before the body was complete") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_frames(request: Request, settings: Settings, deadline: Deadline) -> tuple[list[bytes], bool]:
    """The frames of a request in order, and whether they came as multipart (a batch).

    Raises:
        PayloadTooLarge, DeadlineExceeded: see `read_body`; too many parts.
        InvalidParameter: a multipart body that isn't one, or with other parts than `file`.
    """
    body = await read_body(request, settings.max_body_bytes, deadline)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        return [body], False
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidParameter("the multipart body names no boundary")
    return _Parts(settings.max_parts).parse(body, boundary), True


class _Parts:
    """Collects `file` parts in memory: no name of the caller's ever reaches a file system."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: list[bytes] = []
        self._part: list[bytes] = []
        self._field = ""
        self._value = b""
        self._name: bytes | None = None
        self._ended = False

    def parse(self, body: bytes, boundary: bytes) -> list[bytes]:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
                "on_end": self._on_end,
            },
        )
        try:
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            raise InvalidParameter(f"the multipart body is damaged: {error}") from error
        if not self._ended:
            raise InvalidParameter("the multipart body is cut off")
        if not self._files:
            raise InvalidParameter("the multipart body has no part named 'file'")
        return self._files

    def _begin(self) -> None:
        if len(self._files) >= self._most:
            raise PayloadTooLarge(f"more than {self._most} parts")
        self._part, self._name = [], None

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end].decode("latin-1")

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == "content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._field, self._value = "", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._part.append(data[start:end])

    def _end(self) -> None:
        if self._name != b"file":
            name = (self._name or b"").decode("utf-8", "replace")
            raise InvalidParameter(f"unknown part {name!r}; frames are parts named 'file'")
        self._files.append(b"".join(self._part))

    def _on_end(self) -> None:
        self._ended = True


def negotiate(request: Request, offered: tuple[str, ...]) -> str:
    """The media type to answer in: the caller's best in `Accept`, the first offered where that is open.

    Raises:
        NotAcceptable: the caller takes none of them.
    """
    best, best_rank = "", (0.0, -1)
    for row in request.headers.get("accept", "*/*").split(","):
        pattern, _, parameters = row.strip().partition(";")
        quality = _quality(parameters)
        for media_type in offered:
            rank = (quality, _specificity(pattern.strip().lower(), media_type))
            if rank[1] >= 0 and quality > 0 and rank > best_rank:
                best, best_rank = media_type, rank
    if not best:
        raise NotAcceptable(offered)
    return best


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _specificity(pattern: str, media_type: str) -> int:
    """2: named, 1: its kind is, 0: anything, -1: not meant (RFC 9110, 12.5.1)."""
    if pattern == media_type:
        return 2
    if pattern == f"{media_type.partition('/')[0]}/*":
        return 1
    return 0 if pattern in ("*/*", "") else -1
