"""The route: pictures, batches, videos and frames of sessions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app import context
from app.api.gateway import Gateway, gateway_of
from app.api.openapi.families import detect as openapi
from app.api.openapi.operations import SESSION_PROBLEMS, frame_operation
from app.api.request.frame_bodies import FrameRequest, begin, read_frames
from app.api.request.frame_query import words_of
from app.api.request.requests import negotiate
from app.api.response.answers import JPEG, JSON, PNG, binary_answer, describe, json_answer
from app.api.response.detection_files import WRITERS, detection_file
from app.api.response.detections import all_answers, names_of
from app.api.response.ndjson import Streamed, stream
from app.api.response.problems import request_id_of
from app.api.routes.detect import variants
from app.api.routes.detect.query import DetectQuery
from app.api.routes.detect.video import streamed
from app.api.routes.family_routes import FamilyRoutes
from app.api.server.access import caller_of
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter
from app.pipelines.base import wishes_of
from app.pipelines.detect import Detections, DetectParameters, DetectPipeline, without_pixels
from app.pipelines.tracking import Tracked
from app.sessions.session import SessionCall
from app.sessions.session_order import Turn
from app.sessions.track_frames import track_frames
from app.videos.components.detect import class_ids
from routing.policy import Wishes

router = APIRouter(tags=["detection"], route_class=DirectRoute)
ROUTES = FamilyRoutes(router, openapi.EXAMPLES)
# Media type -> the picture with its boxes drawn.
_PICTURES: Mapping[str, Callable[[Detections | Tracked], bytes]] = {
    PNG: lambda frame: frame.picture(),
    JPEG: lambda frame: frame.picture(jpeg=True),
}
_FORMS = (JSON, *_PICTURES, *WRITERS)
_ONLY_PICTURES = "a session takes pictures"


@router.post(
    "/v1/detect",
    summary="Objects in a frame, or in each of a batch",
    **frame_operation(
        "detect",
        openapi.DetectAnswer | openapi.DetectBatch,
        _PICTURES,
        openapi.SAMPLES,
        video=True,
        description=openapi.DESCRIPTION,
        problems=SESSION_PROBLEMS,
        texts=openapi.FILES,
    ),
)
async def detect(
    request: Request,
    query: Annotated[DetectQuery, Query()],
    gateway: Annotated[Gateway, Depends(gateway_of)],
) -> Response:
    """Letterbox without upscale, YOLO11, decode, NMS. Boxes are xyxy in source pixels.

    A raw body is one frame; `file` parts of a multipart body are a batch, answered in order under `results`, where a
    frame that can't be used has an `error` in its place.

    With `session` the frames continue a tracker (ByteTrack), and each detection has its `track_id`. The detector then
    runs down to `track_low` for the tracker; the answer still holds only boxes above `conf`. A session keeps its
    parameters and its frame's size, and its frames come in order, or it is a 409 that says what changed. Frames of one
    session may be in flight at once: they reach its tracker by timestamp, or as they arrived. Which branch routing
    takes may change in a session's life (a model comes or goes); `branch` says it, as always. A session ends when it
    is idle for too long; `session.frame` 1 says that one has begun.

    With several variants (`variant=n,helmet`) a picture is decoded once, and `results` has the answer of each, in the
    order in which they are named; one that can't serve has an `error` in its place. Class names of `classes` need to
    be known to one of them.

    As `application/vnd.coco+json` and `text/csv`, a batch is one file: `image_id` is the place of the part, from 1, and
    `file_name` its file name. docs/outputs.md describes both.

    A video is answered line by line (NDJSON) as its frames are done, with ids of a tracker of its own.
    """
    several = query.variant is not None and len(query.variants()) > 1
    if several:
        query.refuse_several(negotiate(request, _FORMS))
    # Faults are told before the body is read.
    wished = _each(gateway, query) if several else [_wished(gateway, query)]
    if query.session is not None:
        return await _in_session(request, gateway, query)
    gateway.admission.check(DetectPipeline.family)
    read = await read_frames(request, gateway.settings, query, _FORMS)
    upload, query = read.upload, read.query
    several = _check_parameters(read)
    if upload.video is not None:
        return await stream(request, gateway, upload.video, query, functools.partial(_stream, gateway, query))
    if query.session is not None:  # the form names it
        return await _in_turn(request, gateway, read)
    if query.model_fields_set:
        query.refuse_without_session()
    if upload.fields:
        wished = _each(gateway, query) if several else [_wished(gateway, query)]
    if several:
        return await variants.answer(request, gateway, upload.parts["file"], wished, read.deadline)
    names = names_of(upload) if read.form in WRITERS else []
    asked = _Asked(*wished[0], read.form, read.deadline, names)
    frames, batch = _batched(upload.parts["file"], asked)
    if not batch:
        one = functools.partial(_one, gateway, frames[0], asked)
        return await gateway.run(
            request, DetectPipeline.family, one, asked.deadline, frames, asked.answer_bytes
        )
    found = await _found(request, gateway, asked, frames)
    return all_answers(found, asked.form, asked.names, request_id_of(request))


def _check_parameters(read: FrameRequest[DetectQuery]) -> bool:
    """Check what the body's kind and the form's fields decide; return True for several variants.

    Raises:
        InvalidParameter: a timestamp without a session, or several variants of something that has one.
    """
    query, upload = read.query, read.upload
    try:
        if query.timestamp:
            query.refuse_times_without_session()
        several = query.variant is not None and len(query.variants()) > 1
        if several:
            query.refuse_several(read.form, video=upload.video is not None)
    except BaseException:
        upload.close()
        raise
    return several


def _stream(gateway: Gateway, query: DetectQuery) -> Streamed:
    """Boxes of each sampled frame of a video.

    Raises:
        InvalidParameter: the form names a session, which a video can't have.
    """
    if query.session is not None:
        raise InvalidParameter("only for pictures: session; a video has a tracker of its own")
    return streamed(gateway.pipelines.of(DetectPipeline), query, *_wished(gateway, query))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Parameters of one request that apply to each of its frames."""

    parameters: DetectParameters
    wishes: Wishes
    form: str
    deadline: Deadline
    names: Sequence[str] = ()  # of the frames, where the form has them

    @property
    def answer_bytes(self) -> int:
        """Bytes per pixel of a picture with boxes: the copy that is drawn on, and its file."""
        return 6 if self.form in _PICTURES else 0


def _each(gateway: Gateway, query: DetectQuery) -> list[tuple[DetectParameters, Wishes]]:
    """Return the request to each variant, with the class names that it knows."""
    wished = []
    for one in variants.queries(gateway, query):
        parameters, wishes = _wished(gateway, one)
        knows_none = query.classes and not one.classes
        wished.append((replace(parameters, classes=()) if knows_none else parameters, wishes))
    return wished


def _wished(gateway: Gateway, query: DetectQuery) -> tuple[DetectParameters, Wishes]:
    # Not `query.wishes()`: each request would run one more file.
    wishes = wishes_of(query.branch, query.variant, fallback=query.fallback, version=query.version)
    named = query.classes or query.variant is not None or query.branch is not None
    # Looked up only where they are needed, or where the wish may be one that nothing can serve.
    labels = gateway.pipelines.of(DetectPipeline).labels(wishes) if named else ()
    parameters = DetectParameters(
        conf=query.conf,
        iou=query.iou,
        max_det=query.max_det,
        classes=class_ids(words_of(query.classes), labels) if query.classes else None,
        agnostic=query.agnostic,
        analysis_width=query.analysis_width,
        analysis_height=query.analysis_height,
    )
    return parameters, wishes


def _batched(frames: list[bytes], asked: _Asked) -> tuple[list[bytes], bool]:
    """The frames in order, and whether they are to be answered as a batch."""
    if not frames:
        raise InvalidParameter("the form has no part named 'file'")
    batch = len(frames) > 1
    if batch and asked.form in _PICTURES:
        raise InvalidParameter(f"{asked.form} answers one frame; send one part, or ask for {JSON}")
    return frames, batch


async def _found(
    request: Request, gateway: Gateway, asked: _Asked, frames: Sequence[bytes]
) -> list[Detections | GatewayError]:
    """Frames side by side, as many as there are places; each has its own boxes or its own error."""
    calls = [functools.partial(_detect, gateway, data, asked) for data in frames]
    return await gateway.run_all(
        request, DetectPipeline.family, calls, asked.deadline, frames, asked.answer_bytes
    )


def _detect(gateway: Gateway, data: bytes, asked: _Asked, deadline: Deadline) -> Detections:
    found = gateway.pipelines.of(DetectPipeline)(data, asked.parameters, asked.wishes, deadline)
    return found if asked.form in _PICTURES else without_pixels(found)


def _one(gateway: Gateway, data: bytes, asked: _Asked, deadline: Deadline) -> Response:
    return _answer(
        gateway.pipelines.of(DetectPipeline)(data, asked.parameters, asked.wishes, deadline), asked
    )


def _answer(frame: Detections | Tracked, asked: _Asked, session_id: str | None = None) -> Response:
    if asked.form == JSON:
        body = frame.body(session_id) if isinstance(frame, Tracked) else frame.body()
        return json_answer({**body, **describe(frame.served)}, frame.served.timings)
    if asked.form in WRITERS:
        return detection_file([frame], asked.form, asked.names, session_id)
    with frame.served.timings.stage("encode"):
        content = _PICTURES[asked.form](frame)
    return binary_answer(content, asked.form, frame.served)


async def _in_session(request: Request, gateway: Gateway, query: DetectQuery) -> Response:
    """Take a place in the order of the session, then read the frames."""
    query.refuse_for_pictures(_ONLY_PICTURES)
    begun = begin(request, gateway.settings, _FORMS, videos=False)
    gateway.sessions.store()  # a service without one says so before it reads the body
    gateway.admission.check(DetectPipeline.family)
    call = _session_call(request, gateway, query)
    async with gateway.session_order.join(call.key, call.first_timestamp) as turn:
        read = await read_frames(request, gateway.settings, query, _FORMS, videos=False, begun=begun)
        if not read.upload.fields:
            return await _tracked(request, gateway, call, turn, read)
    return await _in_turn(request, gateway, read)


async def _in_turn(request: Request, gateway: Gateway, read: FrameRequest[DetectQuery]) -> Response:
    """Answer frames whose form has parameters; its timestamp may decide their place in the session's order."""
    read.query.refuse_for_pictures(_ONLY_PICTURES)
    call = _session_call(request, gateway, read.query)
    async with gateway.session_order.join(call.key, call.first_timestamp) as turn:
        return await _tracked(request, gateway, call, turn, read)


def _session_call(request: Request, gateway: Gateway, query: DetectQuery) -> SessionCall:
    parameters, wishes = _wished(gateway, query)
    family = gateway.router.catalogue[DetectPipeline.family]
    variant = family.variant_or_default(gateway.router.variant)
    call = query.session_call(parameters, wishes, variant, caller_of(request).name)
    context.note_session(call.session_id)
    return call


async def _keeping(gateway: Gateway, call: SessionCall, wishes: Wishes) -> Wishes:
    """The wishes with the versions that the session has had; none is looked up where no branch has several."""
    if wishes.version is not None or not gateway.router.has_versions(DetectPipeline.family):
        return wishes
    return replace(wishes, kept=await gateway.work(lambda: gateway.sessions.versions(call)))


async def _tracked(
    request: Request, gateway: Gateway, call: SessionCall, turn: Turn, read: FrameRequest[DetectQuery]
) -> Response:
    parameters, wishes = _wished(gateway, read.query)
    wishes = await _keeping(gateway, call, wishes)
    names = names_of(read.upload) if read.form in WRITERS else []
    asked = _Asked(call.detector(parameters), wishes, read.form, read.deadline, names)
    frames, batch = _batched(read.upload.parts["file"], asked)

    def finish(tracked: list[Tracked | GatewayError]) -> Response:
        if batch:
            return all_answers(tracked, asked.form, asked.names, request_id_of(request), call.session_id)
        (frame,) = tracked
        if isinstance(frame, GatewayError):
            raise frame
        return _answer(frame, asked, call.session_id)

    find = functools.partial(_found, request, gateway, asked)
    several = gateway.router.engine.endpoints()
    return await track_frames(
        gateway.sessions, call, turn, frames, find, finish, gateway.work, asked.deadline,
        gateway.router.weights_now if several else None,
    )  # fmt: skip
