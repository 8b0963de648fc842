"""The one reader of the bodies of frame routes: pictures in any form, or a video, and the parameters with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel

from app.api.request.headers import accept_of, comes_whole, headers_of
from app.api.request.requests import LEFT, NDJSON, VIDEO_FORMS, best, read_body, timeout_of
from app.api.request.sampling_query import SamplingQuery
from app.api.request.text_bodies import with_pictures
from app.api.request.uploads import Upload, read_upload
from app.api.response.problems import NotAcceptable
from app.api.server.connections import CYCLE
from app.api.server.direct_route import with_fields
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.media.image import is_picture
from app.settings import Settings

Q = TypeVar("Q", bound=BaseModel)
# Most callers repeat the same `Accept`; what is longer is read each time.
_REMEMBERED, _LONGEST = 1024, 256


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


@functools.lru_cache(_REMEMBERED)
def _forms(accept: str, pictures: tuple[str, ...], videos: bool) -> FrameForms:  # of a cache
    forms = FrameForms(pictures, best(accept, pictures), best(accept, VIDEO_FORMS))
    if not (forms.picture or (videos and forms.video)):
        raise NotAcceptable((*pictures, NDJSON) if videos else pictures)
    return forms


@dataclass(frozen=True, slots=True)
class FrameRequest(Generic[Q]):
    """A request of a frame route, read: the body, the parameters of query and form, the form of the answer.

    `deadline` is that of pictures; a video has one of its own.
    """

    upload: Upload
    query: Q
    form: str
    deadline: Deadline


def begin(
    request: Request, settings: Settings, forms: tuple[str, ...], *, videos: bool = True
) -> tuple[FrameForms, Deadline]:
    """Choose the form of the answer and start the deadline for pictures; see `read_frames`.

    Raises:
        NotAcceptable: no form that the caller takes.
        InvalidParameter: `X-Request-Timeout` is no positive number.
    """
    headers, limit = headers_of(request.scope), settings.request_timeout_s
    if b"x-request-timeout" in headers:
        limit = timeout_of(request, limit)
    accept = accept_of(request.scope)
    known = _forms if len(accept) <= _LONGEST else _forms.__wrapped__
    return known(accept, forms, videos), Deadline.after(limit)


async def read_frames(
    request: Request,
    settings: Settings,
    query: Q,
    forms: tuple[str, ...],
    most: Mapping[str, int] | None = None,
    *,
    videos: bool = True,
    begun: tuple[FrameForms, Deadline] | None = None,
) -> FrameRequest[Q]:
    """Read a request of a route that takes pictures, and videos unless `videos` is False.

    Args:
        request: not read yet.
        settings: the limits.
        query: the parameters of the query.
        forms: the media types that a picture is answered in.
        most: which parts there may be, and how many of each (default: `file`, as often as the settings allow).
        videos: whether the body may be a video.
        begun: the result of `begin`, where something had to be done between that and reading.

    Raises:
        NotAcceptable: no form that the caller takes.
        InvalidParameter: parameters of videos with a picture.
        GatewayError: see `read_upload`, `with_pictures` and `with_fields`.
    """
    offered, deadline = begun or begin(request, settings, forms, videos=videos)
    whole = None
    if comes_whole(headers_of(request.scope), settings.max_body_bytes):
        whole = await _whole(request, settings.max_body_bytes, deadline)
        if is_picture(whole):  # most bodies are, and need nothing of what follows
            _refuse_sampling(query)
            upload = Upload(None, {"file": [whole]}, form=False)
            return FrameRequest(upload, query, offered.of_picture(), deadline)
    video_deadline = Deadline.after(timeout_of(request, settings.video_timeout_s)) if videos else None
    most, fields = most or {"file": settings.max_parts}, _fields_of(type(query))
    upload = await read_upload(request, settings, deadline, video_deadline, most, fields=fields, whole=whole)
    if upload.video is None:
        upload = await with_pictures(request, upload, most, fields)
    with upload.closed_on_error():
        query = with_fields(request, query, upload.fields)
        if upload.video is not None:
            return FrameRequest(upload, query, offered.of_video(), deadline)
    _refuse_sampling(query)
    return FrameRequest(upload, query, offered.of_picture(), deadline)


async def _whole(request: Request, limit: int, deadline: Deadline) -> bytes:
    """A short body without a coding, see `comes_whole`: in one step where it has come already.

    Raises:
        GatewayError: see `read_body`.
    """
    cycle = request.scope.get(CYCLE)
    if cycle is None or cycle.more_body:
        return await read_body(request, limit, deadline)
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise InvalidParameter(LEFT)
    body: bytes = message.get("body", b"")
    return bytes(body)


def _refuse_sampling(query: BaseModel) -> None:
    if query.model_fields_set and isinstance(query, SamplingQuery):
        query.refuse_for_pictures()


@functools.cache
def _fields_of(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model.model_fields)


def only_frame(upload: Upload) -> bytes:
    """Return the one picture of a request, raw or as the part `file`.

    Raises:
        InvalidParameter: there are several, or none.
    """
    frames = upload.parts["file"]
    if not frames:
        raise InvalidParameter("the form has no part named 'file'")
    if len(frames) != 1:
        raise InvalidParameter(f"this route takes one frame per request, not {len(frames)}")
    return frames[0]
