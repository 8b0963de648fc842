"""`POST /v1/depth` and `POST /v1/flow`."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import operations
from app.api.request.frame_bodies import only_frame, read_frames_or_video
from app.api.request.frame_query import FrameQuery
from app.api.request.requests import negotiate
from app.api.response.answers import FLO, JPEG, JSON, NPY, PNG, binary_answer, describe, json_answer
from app.api.response.batches import ANSWER_BYTES, answer_batch
from app.api.response.ndjson import Line, SamplingQuery, Streamed, stream
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.pipelines.base import Framed
from app.pipelines.depth import DepthMap, DepthPipeline
from app.pipelines.flow import FlowField, FlowPipeline
from app.pipelines.frames import Frame

router = APIRouter(route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]


class DepthQuery(FrameQuery, SamplingQuery):
    """Query parameters of `POST /v1/depth`."""

    render: Literal["gray16", "color"] = Field(
        "gray16",
        description="What image/png shows: numbers, or a picture. image/jpeg always shows a picture.",
    )
    size: Literal["source", "branch"] = Field(
        "source", description="The map's size: the frame's or the branch's."
    )


class FlowQuery(FrameQuery, SamplingQuery):
    """Query parameters of `POST /v1/flow`."""

    render: Literal["color"] = Field(
        "color", description="What image/png and image/jpeg show: the Middlebury colour wheel."
    )
    size: Literal["source", "branch"] = Field(
        "source",
        description="The field's size: the frame's or the branch's; its unit is always a source pixel.",
    )
    variant: str | None = Field(
        None,
        max_length=200,
        description="RAFT's variant: small if none is named; large takes twice the time. Or one of your own.",
        examples=["large"],
    )


@router.post("/v1/depth", tags=["depth"], summary="Relative inverse depth of a frame", **operations.DEPTH)
async def depth(request: Request, query: Annotated[DepthQuery, Query()], gateway: Parts) -> Response:
    """MiDaS / DPT: greater is nearer, without unit.

    JSON has statistics; `application/x-npy` the map as float32 `[H, W]`; `image/png` 16-bit grey, where
    `value = X-Depth-Min + level / 65535 * (X-Depth-Max - X-Depth-Min)`, or with `render=color` a picture to look at;
    `image/jpeg` always a picture to look at.
    """
    forms = (JSON, NPY, PNG, JPEG)
    gateway.admission.check("depth")
    upload, query, deadline = await read_frames_or_video(request, gateway.settings, query, forms)
    if upload.video is not None:
        streamed = functools.partial(_depth_stream, gateway, query)
        return await stream(request, gateway, upload.video, query, streamed)
    form = negotiate(request, forms)

    def find(data: bytes, deadline: Deadline) -> DepthMap:
        return gateway.pipelines.of(DepthPipeline)(
            data, query.wishes(), deadline, query.size, query.analysis()
        )

    def line(data: bytes, deadline: Deadline) -> Line:
        found = find(data, deadline)
        return Line(_depth_body(found), found.served)

    if len(upload.frames) > 1:
        return await answer_batch(request, gateway, "depth", line, upload.frames, deadline, form)
    data = only_frame(upload)

    def call(deadline: Deadline) -> Response:
        return _depth_answer(find(data, deadline), form, query.render)

    answer = ANSWER_BYTES["depth"] if query.size == "source" else 0
    return await gateway.run(request, "depth", call, deadline, (data,), answer)


def _depth_stream(gateway: Gateway, query: DepthQuery) -> Streamed:
    def run(frame: Frame, previous: Frame | None, framed: Framed) -> Line:
        del previous
        found = gateway.pipelines.of(DepthPipeline).on_frame(frame.rgb, framed, query.size)
        return Line(_depth_body(found), found.served)

    return Streamed("depth", run, query.wishes(), query.analysis())


def _depth_body(found: DepthMap) -> dict[str, Any]:
    with found.served.timings.stage("finish"):
        return {"depth": found.statistics(), "map": _map(found.values.shape), **_image(found)}


def _depth_answer(found: DepthMap, form: str, render: str) -> Response:
    timings = found.served.timings
    if form == JSON:
        return json_answer({**_depth_body(found), **describe(found.served)}, timings)
    headers = {}
    with timings.stage("encode"):
        if form == NPY:
            content = found.npy()
        elif render == "color" or form == JPEG:
            content = found.picture(jpeg=form == JPEG)
        else:
            content, least, greatest = found.png16()
            headers = {"X-Depth-Min": repr(least), "X-Depth-Max": repr(greatest)}
    return binary_answer(content, form, found.served, headers)


@router.post("/v1/flow", tags=["flow"], summary="Optical flow between two frames", **operations.FLOW)
async def flow(request: Request, query: Annotated[FlowQuery, Query()], gateway: Parts) -> Response:
    """RAFT on the multipart parts `frame0` and `frame1`: how far each pixel of `frame0` moves, in source pixels.

    JSON has statistics; `application/x-npy` the field as float32 `[2, H, W]` (x, y); `application/x-flo` Middlebury's
    format; `image/png` and `image/jpeg` its colour wheel.
    """
    forms = (JSON, NPY, FLO, PNG, JPEG)
    most = {"frame0": 1, "frame1": 1, "file": 1}
    gateway.admission.check("flow")
    upload, query, deadline = await read_frames_or_video(request, gateway.settings, query, forms, most)
    if upload.video is not None:
        streamed = functools.partial(_flow_stream, gateway, query)
        return await stream(request, gateway, upload.video, query, streamed)
    form = negotiate(request, forms)
    if not upload.form:
        raise InvalidParameter(
            "send multipart/form-data with the parts 'frame0' and 'frame1', JSON with both in base64, or a video"
        )
    parts = upload.parts
    if not (parts.get("frame0") and parts.get("frame1")):
        raise InvalidParameter("send one part 'frame0' and one part 'frame1', or one video")
    first, second = parts["frame0"][0], parts["frame1"][0]

    def call(deadline: Deadline) -> Response:
        found = gateway.pipelines.of(FlowPipeline)(
            first, second, query.wishes(), deadline, query.size, query.analysis()
        )
        return _flow_answer(found, form)

    answer = ANSWER_BYTES["flow"] if query.size == "source" else 0
    return await gateway.run(request, "flow", call, deadline, (first, second), answer)


def _flow_stream(gateway: Gateway, query: FlowQuery) -> Streamed:
    def run(frame: Frame, previous: Frame | None, framed: Framed) -> Line | None:
        if previous is None or previous.rgb.shape != frame.rgb.shape:
            return None
        found = gateway.pipelines.of(FlowPipeline).on_frames(previous.rgb, frame.rgb, framed, query.size)
        before = {"index": previous.index, "time_s": previous.time_s}
        return Line({"previous": before, **_flow_body(found)}, found.served)

    return Streamed("flow", run, query.wishes(), query.analysis())


def _flow_body(found: FlowField) -> dict[str, Any]:
    with found.served.timings.stage("finish"):
        return {"flow": found.statistics(), "map": _map(found.values.shape[1:]), **_image(found)}


def _flow_answer(found: FlowField, form: str) -> Response:
    timings = found.served.timings
    if form == JSON:
        return json_answer({**_flow_body(found), **describe(found.served)}, timings)
    with timings.stage("encode"):
        if form in (PNG, JPEG):
            content = found.picture(jpeg=form == JPEG)
        else:
            content = found.npy() if form == NPY else found.flo()
    return binary_answer(content, form, found.served)


def _map(shape: tuple[int, ...]) -> dict[str, int]:
    return {"width": shape[1], "height": shape[0]}


def _image(found: DepthMap | FlowField) -> dict[str, Any]:
    return {"image": {"width": found.width, "height": found.height}}
