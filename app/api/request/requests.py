"""Reading requests: bodies within limits, their time, and the form of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.request.content_encoding import chunks_of, codings_of, encoded_limit
from app.api.request.headers import accept_of, headers_of, length_of
from app.api.response.problems import NotAcceptable
from app.deadline import Deadline
from app.errors import DeadlineExceeded, InvalidParameter, PayloadTooLarge
from app.settings import Settings


def deadline_of(request: Request, settings: Settings) -> Deadline:
    """The server's limit, or what the caller allows in `X-Request-Timeout` (seconds) if that is less.

    Raises:
        InvalidParameter: the header is no positive number.
    """
    return Deadline.after(timeout_of(request, settings.request_timeout_s))


def timeout_of(request: Request, limit: float) -> float:
    """Seconds that the request may take: what the caller allows, and at most `limit`.

    Raises:
        InvalidParameter: the header is no positive number.
    """
    given = headers_of(request.scope).get(b"x-request-timeout")
    if given is None:
        return limit
    text = given.decode("latin-1")
    try:
        wished = float(text)
    except ValueError:
        wished = math.nan
    if not wished > 0:
        raise InvalidParameter(f"X-Request-Timeout must be a positive number of seconds, not {text!r}")
    return min(limit, wished)


def check_announced(request: Request, limit: int) -> None:
    """Refuse a body by its announced length in bytes, before any of it is read.

    Raises:
        PayloadTooLarge: it says that it is longer than `limit`.
    """
    nbytes = length_of(headers_of(request.scope).get(b"content-length"))
    if nbytes <= limit or nbytes == math.inf:
        return
    if not codings_of(request.scope["headers"]):
        raise PayloadTooLarge(f"the body has {nbytes} bytes; the limit is {limit}")
    if nbytes > encoded_limit(limit):
        raise PayloadTooLarge(f"the encoded body has {nbytes} bytes; the limit is {limit} once decoded")


@contextlib.contextmanager
def receiving() -> Iterator[None]:
    """Translate the failures of receiving a body within `asyncio.timeout`.

    Raises:
        DeadlineExceeded: the sender was too slow (stage `receive`).
        InvalidParameter: it left; nobody is there to read that.
    """
    try:
        yield
    except TimeoutError as error:
        raise DeadlineExceeded("receive") from error
    except ClientDisconnect as error:
        raise InvalidParameter(LEFT) from error


async def read_body(request: Request, limit: int, deadline: Deadline) -> bytes:
    """The whole body, decoded, counted while it comes.

    Raises:
        PayloadTooLarge: more than `limit` bytes, announced or sent.
        UnsupportedMediaType, InvalidParameter: see `chunks_of`.
        DeadlineExceeded: the sender was too slow (stage `receive`).
    """
    check_announced(request, limit)
    chunks: list[bytes] = []
    size = 0
    with receiving():
        async with asyncio.timeout(deadline.remaining()):
            async for chunk in chunks_of(request, limit):
                size += len(chunk)
                if size > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes")
                chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


LEFT = "the sender left before the body was complete"


def negotiate(request: Request, offered: tuple[str, ...]) -> str:
    """The media type to answer in: the caller's best in `Accept`, the first offered where that is open.

    Raises:
        NotAcceptable: the caller takes none of them.
    """
    form = best(accept_of(request.scope), offered)
    if not form:
        raise NotAcceptable(offered)
    return form


NDJSON = "application/x-ndjson"
# Videos are answered as NDJSON, also to callers that accept only JSON.
VIDEO_FORMS = (NDJSON, "application/json")


def best(accepted: str, offered: tuple[str, ...]) -> str:
    """Return the media type of `offered` that this `Accept` prefers; empty if it accepts none."""
    rows = [row.partition(";") for row in accepted.split(",")]
    ranges = [
        (_ALIASES.get(kind := pattern.strip().lower(), kind), _quality(rest)) for pattern, _, rest in rows
    ]
    found, rank = "", (0.0, -1)
    for media_type in offered:  # its most specific range says its quality, even where that is 0
        specificity, quality = max(
            (_specificity(pattern, media_type), quality) for pattern, quality in ranges
        )
        if specificity >= 0 and quality > 0 and (quality, specificity) > rank:
            found, rank = media_type, (quality, specificity)
    return found


_ALIASES = {"image/jpg": "image/jpeg"}  # no media type, but asked for


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
