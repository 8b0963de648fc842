"""The one reader of the bodies of frame routes: pictures in any form, or a video, and the parameters with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel

from app.api.request.requests import FrameForms, deadline_of, negotiate_frames, receive_whole, timeout_of
from app.api.request.sampling_query import SamplingQuery
from app.api.request.text_bodies import with_pictures
from app.api.request.uploads import Upload, comes_whole, one_picture, read_upload
from app.api.server.direct_route import with_fields
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.media.image import is_picture
from app.settings import Settings

Q = TypeVar("Q", bound=BaseModel)


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
    return negotiate_frames(request, forms, videos=videos), deadline_of(request, settings)


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
    accepted, deadline = begun or begin(request, settings, forms, videos=videos)
    whole = None
    if comes_whole(request, settings.max_body_bytes):
        whole = await receive_whole(request, settings.max_body_bytes, deadline)
        if is_picture(whole):  # most bodies are, and need nothing of what follows
            _refuse_sampling(query)
            return FrameRequest(one_picture(whole), query, accepted.of_picture(), deadline)
    video_deadline = Deadline.after(timeout_of(request, settings.video_timeout_s)) if videos else None
    most, fields = most or {"file": settings.max_parts}, _fields_of(type(query))
    upload = await read_upload(request, settings, deadline, video_deadline, most, fields=fields, whole=whole)
    if upload.video is None:
        upload = await with_pictures(request, upload, most, fields)
    with upload.closed_on_error():
        query = with_fields(request, query, upload.fields)
        if upload.video is not None:
            return FrameRequest(upload, query, accepted.of_video(), deadline)
    _refuse_sampling(query)
    return FrameRequest(upload, query, accepted.of_picture(), deadline)


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
    if not upload.frames:
        raise InvalidParameter("the form has no part named 'file'")
    if len(upload.frames) != 1:
        raise InvalidParameter(f"this route takes one frame per request, not {len(upload.frames)}")
    return upload.frames[0]
