"""`POST /v1/clip/text`, `/v1/clip/image`, `/v1/clip/similarity`, and `/v1/places`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import operations
from app.api.request.frame_bodies import only_frame, read_frames_or_video, read_pictures
from app.api.request.frame_query import FrameQuery
from app.api.request.json_body import read_model
from app.api.request.prompts import Prompts, calls_of, embed_all, read_texts
from app.api.request.requests import deadline_of, negotiate
from app.api.response.answers import JSON, NPY, binary_answer, describe, json_answer, total
from app.api.response.batches import answer_batch
from app.api.response.ndjson import Line, SamplingQuery, Streamed, stream
from app.api.server.admission import Call
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.pipelines.base import Framed, Served, Timings, provenance
from app.pipelines.clip import (
    LOGIT_SCALE,
    Embedding,
    ImagePipeline,
    TextPipeline,
    embedding_bytes,
    encoded,
    normalized,
    similarity,
)
from app.pipelines.frames import Frame
from app.pipelines.places import PlacesPipeline, Scenes

router = APIRouter(tags=["clip"], route_class=DirectRoute)
Parts = Annotated[Gateway, Depends(gateway_of)]
Encoding = Literal["float", "base64"]


class TextQuery(BaseModel):
    """Query parameters of `POST /v1/clip/text`; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of the text model, see GET /v1/branches; none: the service's default.",
    )
    normalize: bool = Field(True, description="Embeddings at length 1.")
    tokens: Literal["truncate", "strict"] = Field(
        "truncate", description="Prompts of more than 75 tokens: cut and say so, or refuse."
    )
    encoding: Encoding = Field("float", description="Numbers in JSON, or base64 of float32 little-endian.")


class ImageQuery(FrameQuery, SamplingQuery):
    """Query parameters of `POST /v1/clip/image`."""

    fit: Literal["crop", "stretch"] | None = Field(None, description="Its middle, or all of it squeezed.")
    normalize: bool = Field(True, description="The embedding at length 1.")
    encoding: Encoding = Field("float", description="Numbers in JSON, or base64 of float32 little-endian.")


class SimilarityQuery(FrameQuery):
    """Query parameters of `POST /v1/clip/similarity`."""

    fit: Literal["crop", "stretch"] | None = Field(None, description="Its middle, or all of it squeezed.")
    tokens: Literal["truncate", "strict"] = Field("truncate", description="See /v1/clip/text.")


class PlacesQuery(FrameQuery, SamplingQuery):
    """Query parameters of `POST /v1/places`."""

    fit: Literal["crop", "stretch"] | None = Field(None, description="Its middle, or all of it squeezed.")
    k: int = Field(5, ge=1, le=365, description="How many categories.")


@router.post("/v1/clip/text", summary="Embeddings of prompts", **operations.CLIP_TEXT)
async def clip_text(request: Request, query: Annotated[TextQuery, Query()], gateway: Parts) -> Response:
    """One `[1, 77]` call a prompt, as many in flight as there are leases; the row at the end of text is taken here.

    Prompts that differ in no token are one. What the same weights have embedded before comes from a cache:
    `model_calls` says how many calls were made.
    """
    form = negotiate(request, (JSON, NPY))
    deadline = deadline_of(request, gateway.settings)
    gateway.admission.check("clip_text")
    prompts = (await read_model(request, gateway, Prompts, deadline, '{"prompts": ["…"]}')).prompts
    strict = query.tokens == "strict"
    found = await embed_all(request, gateway, prompts, deadline, strict=strict, variant=query.variant)
    vectors = normalized([one.vector for one in found], normalize=query.normalize)
    served = [one.served for one in found]
    if form == NPY:
        return binary_answer(embedding_bytes(vectors), NPY, served[0], timings=_timings(served))
    body = {
        "embeddings": encoded(vectors, base64=query.encoding == "base64"),
        "dimension": vectors.shape[1],
        "normalized": query.normalize,
        "truncated": [one.truncated for one in found],
        "model_calls": calls_of(found),
    }
    return json_answer({**body, **describe(served[0])}, _timings(served))


@router.post("/v1/clip/image", summary="Embedding of a frame", **operations.CLIP_IMAGE)
async def clip_image(request: Request, query: Annotated[ImageQuery, Query()], gateway: Parts) -> Response:
    """CLIP's projected image feature, 512 numbers unless a variant has others; of a video, of each sampled frame."""
    forms = (JSON, NPY)
    gateway.admission.check("clip_image")
    upload, query, deadline = await read_frames_or_video(request, gateway.settings, query, forms)
    if upload.video is not None:

        def run(frame: Frame, previous: Frame | None, framed: Framed) -> Line:
            del previous
            found = gateway.pipelines.of(ImagePipeline).on_frame(frame.rgb, framed, query.fit)
            return Line(_image_body(found, query), found.served)

        return await stream(
            request, gateway, upload.video, query,
            lambda: Streamed("clip_image", run, query.wishes(), query.analysis()),
        )  # fmt: skip
    form = negotiate(request, forms)

    def line(data: bytes, deadline: Deadline) -> Line:
        found = _image_call(gateway, data, query)(deadline)
        return Line(_image_body(found, query), found.served)

    if len(upload.frames) > 1:
        return await answer_batch(request, gateway, "clip_image", line, upload.frames, deadline, form)
    data = only_frame(upload)
    call = _image_call(gateway, data, query)
    found = await gateway.run(request, "clip_image", call, deadline, (data,))
    if form == NPY:
        vectors = normalized([found.vector], normalize=query.normalize)
        return binary_answer(embedding_bytes(vectors[0]), NPY, found.served)
    return json_answer({**_image_body(found, query), **describe(found.served)}, found.served.timings)


def _image_call(gateway: Gateway, data: bytes, query: ImageQuery | SimilarityQuery) -> Call[Embedding]:
    return lambda deadline: gateway.pipelines.of(ImagePipeline)(
        data, query.wishes(), deadline, query.fit, query.analysis()
    )


def _image_body(found: Embedding, query: ImageQuery) -> dict[str, Any]:
    vectors = normalized([found.vector], normalize=query.normalize)
    return {
        "embedding": encoded(vectors, base64=query.encoding == "base64")[0],
        "dimension": vectors.shape[1],
        "normalized": query.normalize,
    }


@router.post("/v1/clip/similarity", summary="Frames against prompts (zero-shot)", **operations.SIMILARITY)
async def clip_similarity(
    request: Request, query: Annotated[SimilarityQuery, Query()], gateway: Parts
) -> Response:
    """Multipart `file` and `prompt` parts: cosine of every frame with every prompt, and softmax over the prompts.

    JSON does it too: `{"image": "<base64>", "prompts": ["…"]}`. Prompts are embedded by the text model of the same
    variant: numbers of two variants say nothing of each other.
    """
    negotiate(request, (JSON,))
    deadline = deadline_of(request, gateway.settings)
    gateway.admission.check("clip_image")
    limits = {"file": gateway.settings.max_parts, "prompt": gateway.settings.max_prompts}
    upload, query = await read_pictures(request, gateway.settings, query, deadline, limits)
    if not upload.form:
        raise InvalidParameter(f"send multipart/form-data with the parts {', '.join(limits)}, or JSON")
    parts = upload.parts
    prompts = read_texts(parts["prompt"], gateway.settings.max_json_bytes)
    if not parts["file"] or not prompts:
        raise InvalidParameter("send at least one part 'file' and one part 'prompt'")
    calls = [_image_call(gateway, data, query) for data in parts["file"]]
    variant = gateway.pipelines.of(TextPipeline).variant_beside(
        gateway.router.variant_of("clip_image", query.wishes())
    )
    strict = query.tokens == "strict"
    texts = await embed_all(request, gateway, prompts, deadline, strict=strict, variant=variant)
    frames = await gateway.run_whole(request, "clip_image", calls, deadline, parts["file"])
    cosine, probabilities = similarity([f.vector for f in frames], [t.vector for t in texts])
    served = [one.served for one in (*frames, *texts)]
    body = {
        "prompts": prompts,
        "cosine": cosine,
        "softmax": probabilities,
        "logit_scale": LOGIT_SCALE,
        "truncated": [one.truncated for one in texts],
        **provenance(served),
        "degraded": any(one.decision.degraded for one in served),
        "warnings": sorted({warning for one in served for warning in one.warnings}),
        "branches": list({one.decision.branch.name: one.branch() for one in served}.values()),
    }
    return json_answer(body, _timings(served))


@router.post("/v1/places", tags=["places"], summary="Scene categories of a frame", **operations.PLACES)
async def places(request: Request, query: Annotated[PlacesQuery, Query()], gateway: Parts) -> Response:
    """Places365: the `k` most probable of 365 categories; of a video, of each sampled frame."""
    gateway.admission.check("places")
    upload, query, deadline = await read_frames_or_video(request, gateway.settings, query, (JSON,))
    if upload.video is not None:

        def run(frame: Frame, previous: Frame | None, framed: Framed) -> Line:
            del previous
            found = gateway.pipelines.of(PlacesPipeline).on_frame(frame.rgb, framed, query.fit)
            return Line(_places_body(found, query.k), found.served)

        return await stream(
            request, gateway, upload.video, query,
            lambda: Streamed("places", run, query.wishes(), query.analysis()),
        )  # fmt: skip

    def line(data: bytes, deadline: Deadline) -> Line:
        found = gateway.pipelines.of(PlacesPipeline)(
            data, query.wishes(), deadline, query.fit, query.analysis()
        )
        return Line(_places_body(found, query.k), found.served)

    if len(upload.frames) > 1:
        return await answer_batch(request, gateway, "places", line, upload.frames, deadline, JSON)
    data = only_frame(upload)
    found = await gateway.run(request, "places", functools.partial(line, data), deadline, (data,))
    return json_answer({**found.body, **describe(found.served)}, found.served.timings)


def _places_body(found: Scenes, k: int) -> dict[str, Any]:
    return {
        "places": [
            {"category_id": index, "category": name, "probability": probability}
            for index, name, probability in found.best(k)
        ],
        "image": {"width": found.width, "height": found.height},
    }


def _timings(served: Sequence[Served]) -> Timings:
    return total(list({id(one.timings): one.timings for one in served}.values()))
