"""`POST /v1/detect`."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app.api import openapi
from app.api.answers import JSON, PNG, binary_answer, describe, json_answer, total
from app.api.gateway import Gateway, gateway_of
from app.api.problems import problem, request_id_of
from app.api.requests import deadline_of, negotiate, read_frames
from app.api.steering import FrameQuery
from app.errors import GatewayError, InvalidParameter
from app.pipelines.base import Deadline, Wishes, provenance, wishes_of
from app.pipelines.detect import Detections, DetectParameters

router = APIRouter(tags=["detection"])


class DetectQuery(FrameQuery):
    """Query parameters of `POST /v1/detect`; an unknown one is refused."""

    conf: float = Field(0.25, ge=0, le=1, description="A box's score must be greater.")
    iou: float = Field(
        0.7, ge=0, le=1, description="Boxes of one class that overlap more than this are one object."
    )
    max_det: int = Field(300, ge=1, le=3000, description="Most boxes a frame.")
    classes: str | None = Field(
        None,
        description="Classes to keep: names or ids, separated by commas.",
        examples=["person,bus", "0,5"],
    )
    agnostic: bool = Field(False, description="Boxes suppress each other whatever their class.")
    variant: Literal["n", "s", "m", "l", "x"] | None = Field(None, description="YOLO11 variant.")


@router.post("/v1/detect", summary="Objects in a frame, or in each of a batch", **openapi.DETECT)
async def detect(
    request: Request,
    query: Annotated[DetectQuery, Query()],
    gateway: Annotated[Gateway, Depends(gateway_of)],
) -> Response:
    """Letterbox without upscale, YOLO11, decode, NMS. Boxes are xyxy in source pixels.

    A raw body is one frame; `file` parts of a multipart body are a batch, answered in order under `results`, where a
    frame that can't be used has an `error` in its place.
    """
    form = negotiate(request, (JSON, PNG))
    deadline = deadline_of(request, gateway.settings)
    parameters = _parameters(query, gateway.detect.labels())
    wishes = wishes_of(query.branch, query.variant, fallback=query.fallback)
    frames, batch = await read_frames(request, gateway.settings, deadline)
    if form == PNG:
        if len(frames) > 1:
            raise InvalidParameter("image/png answers one frame; send one part, or ask for application/json")
        return await gateway.work(
            functools.partial(_picture, gateway, frames[0], parameters, wishes, deadline)
        )
    if not batch or len(frames) == 1:
        return await gateway.work(functools.partial(_one, gateway, frames[0], parameters, wishes, deadline))
    return await _batch(request, gateway, frames, parameters, wishes, deadline)


def _parameters(query: DetectQuery, labels: Any) -> DetectParameters:
    return DetectParameters(
        conf=query.conf,
        iou=query.iou,
        max_det=query.max_det,
        classes=None if query.classes is None else _class_ids(query.classes, labels),
        agnostic=query.agnostic,
        analysis_width=query.analysis_width,
        analysis_height=query.analysis_height,
    )


def _class_ids(text: str, labels: Any) -> list[int]:
    ids = []
    for word in (part.strip() for part in text.split(",")):
        if word.isdecimal() and len(word) < 6 and int(word) < len(labels):
            ids.append(int(word))
        elif word in labels:
            ids.append(labels.index(word))
        else:
            raise InvalidParameter(f"classes: {word!r} is neither a class name nor an id below {len(labels)}")
    return ids


def _one(
    gateway: Gateway, data: bytes, parameters: DetectParameters, wishes: Wishes, deadline: Deadline
) -> Response:
    found = gateway.detect(data, parameters, wishes, deadline)
    return json_answer({**_body(found), **describe(found.served)}, found.served.timings)


def _picture(
    gateway: Gateway, data: bytes, parameters: DetectParameters, wishes: Wishes, deadline: Deadline
) -> Response:
    found = gateway.detect(data, parameters, wishes, deadline)
    with found.served.timings.stage("encode"):
        content = found.picture()
    return binary_answer(content, PNG, found.served)


async def _batch(
    request: Request,
    gateway: Gateway,
    frames: list[bytes],
    parameters: DetectParameters,
    wishes: Wishes,
    deadline: Deadline,
) -> Response:
    """Frames side by side, as many as there are leases; each has its own answer or its own error."""
    calls = [
        gateway.work(functools.partial(gateway.detect, data, parameters, wishes, deadline)) for data in frames
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results: list[dict[str, Any]] = []
    found: list[Detections] = []
    for outcome in outcomes:
        if isinstance(outcome, Detections):
            found.append(outcome)
            results.append({**_body(outcome), **describe(outcome.served)})
        elif isinstance(outcome, GatewayError):
            results.append({"error": problem(outcome, request_id_of(request))})
        else:
            raise outcome
    if not found:
        raise next(outcome for outcome in outcomes if isinstance(outcome, GatewayError))
    served = [frame.served for frame in found]
    body = {
        "results": results,
        "errors": len(results) - len(found),
        **provenance(served),
        "degraded": any(frame.decision.degraded for frame in served),
    }
    timings = total([frame.timings for frame in served])
    return json_answer(body, timings)


def _body(found: Detections) -> dict[str, Any]:
    height, width = found.rgb.shape[:2]
    return {
        "detections": [
            {
                "box": box,
                "score": score,
                "class_id": class_id,
                "class_name": found.class_name(int(class_id)),
                "track_id": None,
            }
            for box, score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True)
        ],
        "image": {"width": width, "height": height},
    }
