"""`POST /v1/flow`."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi.families import flow as openapi
from app.api.openapi.operations import frame_operation
from app.api.request.frame_bodies import read_frames
from app.api.response.answers import FLO, JPEG, NPY, PNG
from app.api.response.ndjson import Record, Streamed, stream
from app.api.routes.family_routes import FamilyRoutes
from app.api.routes.frame_route import AnswerForms, FramesQuery
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.pipelines.base import Framed
from app.pipelines.flow import FlowField, FlowPipeline
from app.pipelines.frames import Frame

router = APIRouter(tags=["flow"], route_class=DirectRoute)
ROUTES = FamilyRoutes(router, openapi.EXAMPLES)
_PARTS = {"frame0": 1, "frame1": 1, "file": 1}
_BYTES_PER_PIXEL = 16  # of a field in the picture's size, with what making the answer takes


class FlowQuery(FramesQuery):
    """Query parameters of `POST /v1/flow`."""

    render: Literal["color"] = Field(
        "color", description="Colours of image/png and image/jpeg: the Middlebury colour wheel."
    )
    size: Literal["source", "branch"] = Field(
        "source",
        description="Size of the field: the frame's or the branch's. The unit is always a source pixel.",
    )
    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of RAFT: small (default), large, which takes twice the time, or one of your own.",
        examples=["large"],
    )


def _body(found: FlowField, query: FlowQuery) -> dict[str, Any]:
    del query
    height, width = found.values.shape[1:]
    with found.served.timings.stage("finish"):
        return {
            "flow": found.statistics(),
            "map": {"width": width, "height": height},
            "image": {"width": found.width, "height": found.height},
        }


_FORMS: AnswerForms[FlowField, FlowQuery] = AnswerForms(
    _body,
    {
        NPY: lambda found, _: (found.npy(), {}),
        FLO: lambda found, _: (found.flo(), {}),
        PNG: lambda found, _: (found.picture(), {}),
        JPEG: lambda found, _: (found.picture(jpeg=True), {}),
    },
)


@router.post(
    "/v1/flow",
    summary="Optical flow between two frames",
    **frame_operation(
        "flow", openapi.FlowAnswer, _FORMS.encoders, openapi.SAMPLES, video=True, body=openapi.BODY
    ),
)
async def flow(
    request: Request,
    query: Annotated[FlowQuery, Query()],
    gateway: Annotated[Gateway, Depends(gateway_of)],
) -> Response:
    """RAFT on the multipart parts `frame0` and `frame1`: how far each pixel of `frame0` moves, in source pixels.

    JSON has statistics; `application/x-npy` the field as float32 `[2, H, W]` (x, y); `application/x-flo` Middlebury's
    format; `image/png` and `image/jpeg` its colour wheel.
    """
    offered = _FORMS.media_types
    gateway.admission.check(FlowPipeline.family)
    read = await read_frames(request, gateway.settings, query, offered, _PARTS)
    upload, query, deadline = read.upload, read.query, read.deadline
    if upload.video is not None:
        streamed = functools.partial(_streamed, gateway, query)
        return await stream(request, gateway, upload.video, query, streamed)
    form = read.form
    if not upload.form:
        raise InvalidParameter(
            "send multipart/form-data with the parts 'frame0' and 'frame1', JSON with both in base64, or a video"
        )
    parts = upload.parts
    if not (parts.get("frame0") and parts.get("frame1")):
        raise InvalidParameter("send one part 'frame0' and one part 'frame1', or one video")
    pair = parts["frame0"][0], parts["frame1"][0]
    pipeline = gateway.pipelines.of(FlowPipeline)

    def call(deadline: Deadline) -> Response:
        found = pipeline(*pair, query.wishes(), deadline, query.size, query.analysis())
        return _FORMS.answer(found, query, form)

    nbytes = _BYTES_PER_PIXEL if query.size == "source" else 0
    return await gateway.run(request, FlowPipeline.family, call, deadline, pair, nbytes)


def _streamed(gateway: Gateway, query: FlowQuery) -> Streamed:
    pipeline = gateway.pipelines.of(FlowPipeline)

    def run(frame: Frame, previous: Frame | None, framed: Framed) -> Record | None:
        if previous is None or previous.rgb.shape != frame.rgb.shape:
            return None
        squares = previous.squares, frame.squares
        found = pipeline.on_frames(previous.rgb, frame.rgb, framed, query.size, squares)
        before = {"index": previous.index, "time_s": previous.time_s}
        return Record({"previous": before, **_body(found, query)}, found.served)

    return Streamed(FlowPipeline.family, run, query.wishes(), query.analysis())
