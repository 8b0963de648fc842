"""Reading requests: bodies within limits, deadlines, and the form of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.request.content_encoding import chunks_of, codings_of, encoded_limit
from app.api.request.headers import headers_of, length_of
from app.api.response.problems import CallerGone, NotAcceptable
from app.api.server.connections import CYCLE, GONE
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


class listening:  # noqa: N801  # used like the function that it would be, in a quarter of the calls
    """Stop the work inside when the caller disconnects: cancel the deadline and wake the waiting task.

    The body has been read.

    Raises:
        CallerGone: the caller went away.
    """

    __slots__ = ("_deadline", "_gone", "_left", "_over", "_request", "_task", "_watcher")

    def __init__(self, request: Request, deadline: Deadline) -> None:
        self._request, self._deadline = request, deadline
        self._left = self._over = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._watcher: asyncio.Future[None] | None = None
        gone: asyncio.Future[None] | None = self._request.scope.get(GONE)
        if gone is None:  # another server than ours
            gone = self._watcher = asyncio.ensure_future(_disconnected(self._request))
        self._gone = gone
        gone.add_done_callback(self._leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._gone.remove_done_callback(self._leave)
        if self._watcher is not None:
            self._watcher.cancel()
        if not self._left or not isinstance(error, asyncio.CancelledError):
            return
        if self._task is not None and self._task.uncancel() == 0:
            raise CallerGone from error

    def _leave(self, _: object) -> None:
        if self._over:  # this call was on its way when the work ended
            return
        self._left = True
        self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()


async def _disconnected(request: Request) -> None:
    """Wait for the disconnect, the only message that the server sends after the body."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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
        raise InvalidParameter(_LEFT) from error


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


async def receive_whole(request: Request, limit: int, deadline: Deadline) -> bytes:
    """A short body without a coding, see `comes_whole`: in one step where it has come already.

    Raises:
        GatewayError: see `read_body`.
    """
    cycle = request.scope.get(CYCLE)
    if cycle is None or cycle.more_body:
        return await read_body(request, limit, deadline)
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise InvalidParameter(_LEFT)
    body: bytes = message.get("body", b"")
    return bytes(body)


_LEFT = "the sender left before the body was complete"


def negotiate(request: Request, offered: tuple[str, ...]) -> str:
    """The media type to answer in: the caller's best in `Accept`, the first offered where that is open.

    Raises:
        NotAcceptable: the caller takes none of them.
    """
    accepted = _accepted(request)
    best = (_known_best if len(accepted) <= _LONGEST else _best)(accepted, offered)
    if not best:
        raise NotAcceptable(offered)
    return best


@dataclass(frozen=True, slots=True)
class FrameForms:
    """Media types to answer a frame route in, by what the body turns out to be; empty: none is acceptable."""

    pictures: tuple[str, ...]
    picture: str
    video: str

    def of_picture(self) -> str:
        """The form of a picture's answer.

        Raises:
            NotAcceptable: the caller takes none.
        """
        if not self.picture:
            raise NotAcceptable(self.pictures)
        return self.picture

    def of_video(self) -> str:
        """The form of a video's answer.

        Raises:
            NotAcceptable: the caller takes none.
        """
        if not self.video:
            raise NotAcceptable(VIDEO_FORMS)
        return self.video


NDJSON = "application/x-ndjson"
# Videos are answered as NDJSON, also to callers that accept only JSON.
VIDEO_FORMS = (NDJSON, "application/json")


def negotiate_frames(request: Request, pictures: tuple[str, ...], *, videos: bool = True) -> FrameForms:
    """The forms for a picture and for a video, before the body says which of them it is.

    Raises:
        NotAcceptable: the caller takes no form of either.
    """
    accepted = _accepted(request)
    forms = (_known_forms if len(accepted) <= _LONGEST else _forms)(accepted, pictures)
    if not (forms.picture or (videos and forms.video)):
        raise NotAcceptable((*pictures, NDJSON) if videos else pictures)
    return forms


def _forms(accepted: str, pictures: tuple[str, ...]) -> FrameForms:
    return FrameForms(pictures, _best(accepted, pictures), _best(accepted, VIDEO_FORMS))


def _accepted(request: Request) -> str:
    headers = headers_of(request.scope)
    first = headers.get(b"accept")
    if first is None:
        return "*/*"
    if len(headers) == len(request.scope["headers"]):
        return first.decode("latin-1") or "*/*"
    values = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"accept"]
    return ",".join(values) or "*/*"


def _best(accepted: str, offered: tuple[str, ...]) -> str:
    """Return the media type of `offered` that this `Accept` prefers; empty if it accepts none."""
    rows = [row.partition(";") for row in accepted.split(",")]
    ranges = [
        (_ALIASES.get(kind := pattern.strip().lower(), kind), _quality(rest)) for pattern, _, rest in rows
    ]
    best, best_rank = "", (0.0, -1)
    for media_type in offered:  # its most specific range says its quality, even where that is 0
        specificity, quality = max(
            (_specificity(pattern, media_type), quality) for pattern, quality in ranges
        )
        if specificity >= 0 and quality > 0 and (quality, specificity) > best_rank:
            best, best_rank = media_type, (quality, specificity)
    return best


_ALIASES = {"image/jpg": "image/jpeg"}  # no media type, but asked for
# Most callers repeat the same header.
_LONGEST = 256
_known_best = functools.lru_cache(1024)(_best)
_known_forms = functools.lru_cache(1024)(_forms)


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
