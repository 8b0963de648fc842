"""Reading requests: bodies within limits, parts, deadlines, and which form the answer takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

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
    parts = _multipart(request, body, {"file": settings.max_parts})
    if parts is None:
        return [body], False
    if not parts["file"]:
        raise InvalidParameter("the multipart body has no part named 'file'")
    return parts["file"], True


async def read_one(request: Request, settings: Settings, deadline: Deadline) -> bytes:
    """The one frame of a request, raw or as the part `file`.

    Raises:
        InvalidParameter: several parts; see also `read_frames`.
    """
    frames, _ = await read_frames(request, settings, deadline)
    if len(frames) > 1:
        raise InvalidParameter(f"this route takes one frame a request, not {len(frames)}")
    return frames[0]


async def read_parts(
    request: Request, settings: Settings, deadline: Deadline, most: Mapping[str, int]
) -> dict[str, list[bytes]]:
    """The parts of a multipart request by name; `most` says which there may be and how many of each.

    Raises:
        PayloadTooLarge, DeadlineExceeded: see `read_body`; too many parts.
        InvalidParameter: no multipart body, a damaged one, or one with other parts.
    """
    body = await read_body(request, settings.max_body_bytes, deadline)
    parts = _multipart(request, body, most)
    if parts is None:
        raise InvalidParameter(f"send multipart/form-data with the parts {', '.join(most)}")
    return parts


def _multipart(request: Request, body: bytes, most: Mapping[str, int]) -> dict[str, list[bytes]] | None:
    """The parts of a multipart body; None where the request is none."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidParameter("the multipart body names no boundary")
    return _Parts(most).parse(body, boundary)


class _Parts:
    """Collects parts in memory: no name of the caller's ever reaches a file system."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = most
        self._parts: dict[str, list[bytes]] = {name: [] for name in most}
        self._part: list[bytes] = []
        self._field = ""
        self._value = b""
        self._name: bytes | None = None
        self._ended = False

    def parse(self, body: bytes, boundary: bytes) -> dict[str, list[bytes]]:
        try:
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
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            raise InvalidParameter(f"the multipart body is damaged: {error}") from error
        if not self._ended:
            raise InvalidParameter("the multipart body is cut off")
        return self._parts

    def _begin(self) -> None:
        self._part, self._name = [], None

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end].decode("latin-1")

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == "content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
            self._check_name()
        self._field, self._value = "", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._part.append(data[start:end])

    def _check_name(self) -> str:
        name = (self._name or b"").decode("utf-8", "replace")
        if name not in self._most:
            raise InvalidParameter(f"unknown part {name!r}; this route takes {', '.join(self._most)}")
        if len(self._parts[name]) >= self._most[name]:
            raise PayloadTooLarge(f"more than {self._most[name]} parts named {name!r}")
        return name

    def _end(self) -> None:
        self._parts[self._check_name()].append(b"".join(self._part))

    def _on_end(self) -> None:
        self._ended = True


def negotiate(request: Request, offered: tuple[str, ...]) -> str:
    """The media type to answer in: the caller's best in `Accept`, the first offered where that is open.

    Raises:
        NotAcceptable: the caller takes none of them.
    """
    rows = [row.partition(";") for row in ",".join(request.headers.getlist("accept") or ["*/*"]).split(",")]
    ranges = [(pattern.strip().lower(), _quality(parameters)) for pattern, _, parameters in rows]
    best, best_rank = "", (0.0, -1)
    for media_type in offered:  # its most specific range says its quality, even where that is 0
        specificity, quality = max(
            (_specificity(pattern, media_type), quality) for pattern, quality in ranges
        )
        if specificity >= 0 and quality > 0 and (quality, specificity) > best_rank:
            best, best_rank = media_type, (quality, specificity)
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
