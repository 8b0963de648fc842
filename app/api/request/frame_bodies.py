"""The bodies of frame routes: pictures in any form, or a video, and the parameters that come with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from app.api.request.requests import deadline_of, negotiate, timeout_of
from app.api.request.text_bodies import with_pictures
from app.api.request.uploads import Upload, read_upload
from app.api.response.ndjson import NDJSON, SamplingQuery
from app.api.server.direct_route import with_fields
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.settings import Settings

Q = TypeVar("Q", bound=BaseModel)
S = TypeVar("S", bound=SamplingQuery)


async def read_pictures(
    request: Request, settings: Settings, query: Q, deadline: Deadline, most: Mapping[str, int] | None = None
) -> tuple[Upload, Q]:
    """Read the pictures of a request, and its parameters: those of the query and the form's fields.

    Raises:
        GatewayError: see `read_upload`, `with_pictures` and `with_fields`.
    """
    most, fields = most or {"file": settings.max_parts}, _fields_of(type(query))
    upload = await read_upload(request, settings, deadline, None, most, fields=fields)
    upload = await with_pictures(request, upload, most, fields)
    return upload, with_fields(request, query, upload.fields)


async def read_frames_or_video(
    request: Request,
    settings: Settings,
    query: S,
    forms: tuple[str, ...],
    most: Mapping[str, int] | None = None,
) -> tuple[Upload, S, Deadline]:
    """Read the body of a route that takes pictures and videos.

    Args:
        request: not read yet.
        settings: the limits.
        query: the parameters of the query.
        forms: the media types that a picture is answered in.
        most: see `read_upload`.

    Returns:
        The body, the parameters of query and form, and the time that is left for pictures.

    Raises:
        InvalidParameter: sampling of a picture.
        GatewayError: see `read_pictures` and `negotiate`.
    """
    negotiate(request, (*forms, NDJSON))
    deadline = deadline_of(request, settings)
    video_deadline = Deadline.after(timeout_of(request, settings.video_timeout_s))
    most, fields = most or {"file": settings.max_parts}, _fields_of(type(query))
    upload = await read_upload(request, settings, deadline, video_deadline, most, fields=fields)
    if upload.video is None:
        upload = await with_pictures(request, upload, most, fields)
    with upload.closed_on_error():
        query = with_fields(request, query, upload.fields)
    if upload.video is None:
        query.refuse_for_pictures()
        negotiate(request, forms)
    return upload, query, deadline


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
        raise InvalidParameter(f"this route takes one frame a request, not {len(upload.frames)}")
    return upload.frames[0]
