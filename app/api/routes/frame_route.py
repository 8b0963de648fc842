"""Handling of requests for families that take one frame: a picture, a batch of pictures, or a video."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from fastapi import Request, Response

from app.api.gateway import Gateway
from app.api.request.frame_bodies import only_frame, read_frames
from app.api.request.frame_query import FrameQuery
from app.api.request.sampling_query import SamplingQuery
from app.api.response.answers import JSON, binary_answer, describe, json_answer
from app.api.response.batches import BatchItem, answer_batch
from app.api.response.ndjson import Record, Streamed, stream
from app.deadline import Deadline
from app.pipelines.base import Framed, Served
from app.pipelines.frames import Frame


class FramesQuery(FrameQuery, SamplingQuery):
    """Parameters of every route that takes pictures and videos."""


class Found(Protocol):
    """A pipeline's result."""

    @property
    def served(self) -> Served: ...


Q = TypeVar("Q", bound=FramesQuery)
R = TypeVar("R", bound=Found)
# A result and the parameters -> the content of an answer and headers that go with it.
Encoder = Callable[[R, Q], tuple[bytes, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class AnswerForms(Generic[R, Q]):
    """THE table of a route's answer forms: JSON by `body`, and every other media type by its encoder."""

    body: Callable[[R, Q], dict[str, Any]]
    encoders: Mapping[str, Encoder[R, Q]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def media_types(self) -> tuple[str, ...]:
        """The forms on offer, the default first."""
        return (JSON, *self.encoders)

    def answer(self, found: R, query: Q, form: str) -> Response:
        """Write a result in one of the forms."""
        timings = found.served.timings
        if form == JSON:
            return json_answer({**self.body(found, query), **describe(found.served)}, timings)
        with timings.stage("encode"):
            content, headers = self.encoders[form](found, query)
        return binary_answer(content, form, found.served, headers)

    def item(self, found: R, query: Q) -> BatchItem:
        """Write a result as one of a batch."""
        return BatchItem(self.body(found, query), found.served)

    def record(self, found: R, query: Q) -> Record:
        """Write a result as a line of a video's answer."""
        return Record(self.body(found, query), found.served)


@dataclass(frozen=True, slots=True)
class FrameRoute(Generic[R, Q]):
    """A family that makes one result of one frame.

    `picture` runs an encoded picture, `frame` a decoded frame of a video. `answer_bytes`
    are those that the answer takes in memory per pixel of the picture, with what making it takes.
    """

    family: str
    picture: Callable[[Gateway, Q, bytes, Deadline], R]
    frame: Callable[[Gateway, Q, Frame, Framed], R]
    forms: AnswerForms[R, Q]
    answer_bytes: Callable[[Q], int] = lambda _: 0

    async def answer(self, request: Request, query: Q, gateway: Gateway) -> Response:
        """Read the request, run the family, write the answer."""
        offered = self.forms.media_types
        gateway.admission.check(self.family)
        read = await read_frames(request, gateway.settings, query, offered)
        upload, query, deadline = read.upload, read.query, read.deadline
        if upload.video is not None:
            streamed = functools.partial(self._streamed, gateway, query)
            return await stream(request, gateway, upload.video, query, streamed)
        nbytes = self.answer_bytes(query)
        if len(upload.parts["file"]) > 1:
            item = functools.partial(self._item, gateway, query)
            return await answer_batch(
                request, gateway, self.family, item, upload.parts["file"], deadline, read.form, nbytes
            )
        data = only_frame(upload)
        one = functools.partial(self._one, gateway, query, data, read.form)
        return await gateway.run(request, self.family, one, deadline, (data,), nbytes)

    def _one(self, gateway: Gateway, query: Q, data: bytes, form: str, deadline: Deadline) -> Response:
        return self.forms.answer(self.picture(gateway, query, data, deadline), query, form)

    def _item(self, gateway: Gateway, query: Q, data: bytes, deadline: Deadline) -> BatchItem:
        return self.forms.item(self.picture(gateway, query, data, deadline), query)

    def _streamed(self, gateway: Gateway, query: Q) -> Streamed:
        def run(frame: Frame, previous: Frame | None, framed: Framed) -> Record:
            del previous
            return self.forms.record(self.frame(gateway, query, frame, framed), query)

        return Streamed(self.family, run, query.wishes(), query.analysis())
