"""`POST /v1/clip/text`, `/v1/clip/image` and `/v1/clip/similarity`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.gateway import Gateway, gateway_of
from app.api.openapi.families import clip as openapi
from app.api.openapi.operations import frame_operation
from app.api.request.frame_bodies import begin, read_frames
from app.api.request.frame_query import VERSION, FrameQuery
from app.api.request.json_body import read_model
from app.api.request.prompts import Prompts, embed_all, read_texts
from app.api.request.requests import deadline_of, negotiate
from app.api.response.answers import JSON, NPY, binary_answer, describe, json_answer, total
from app.api.routes.family_routes import FamilyRoutes
from app.api.routes.frame_route import AnswerForms, FrameRoute, FramesQuery
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter
from app.pipelines.base import Served, Timings, provenance
from app.pipelines.clip import (
    LOGIT_SCALE,
    Embedding,
    ImagePipeline,
    TextPipeline,
    calls_of,
    embedding_bytes,
    encoded,
    normalized,
    similarity,
)
from routing.policy import Wishes

text_router = APIRouter(tags=["clip"], route_class=DirectRoute)
image_router = APIRouter(tags=["clip"], route_class=DirectRoute)
TEXT_ROUTES = FamilyRoutes(text_router, openapi.TEXT_EXAMPLES)
IMAGE_ROUTES = FamilyRoutes(image_router, openapi.IMAGE_EXAMPLES)
Parts = Annotated[Gateway, Depends(gateway_of)]
Encoding = Literal["float", "base64"]


class TextQuery(BaseModel):
    """Query parameters of `POST /v1/clip/text`; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    variant: str | None = Field(
        None,
        max_length=200,
        description="Variant of the text model, see GET /v1/branches; unset: the service's default.",
    )
    version: str | None = Field(None, max_length=20, description=VERSION, examples=["2"])
    normalize: bool = Field(True, description="Scale embeddings to length 1.")
    tokens: Literal["truncate", "strict"] = Field(
        "truncate", description="Prompts of more than 75 tokens: cut them with a warning, or refuse them."
    )
    encoding: Encoding = Field(
        "float", description="Format of embeddings: JSON numbers, or base64 of little-endian float32."
    )


class ImageQuery(FramesQuery):
    """Query parameters of `POST /v1/clip/image`."""

    fit: Literal["crop", "stretch"] | None = Field(
        None, description="Crop the middle of the picture, or stretch all of it."
    )
    normalize: bool = Field(True, description="Scale the embedding to length 1.")
    encoding: Encoding = Field(
        "float", description="Format of embeddings: JSON numbers, or base64 of little-endian float32."
    )


class SimilarityQuery(FrameQuery):
    """Query parameters of `POST /v1/clip/similarity`."""

    fit: Literal["crop", "stretch"] | None = Field(
        None, description="Crop the middle of the picture, or stretch all of it."
    )
    tokens: Literal["truncate", "strict"] = Field("truncate", description="See /v1/clip/text.")


@text_router.post(
    "/v1/clip/text",
    summary="Embeddings of prompts",
    **frame_operation("clip_text", openapi.TextAnswer, (NPY,), openapi.TEXT_SAMPLES, body=openapi.TEXT_BODY),
)
async def clip_text(request: Request, query: Annotated[TextQuery, Query()], gateway: Parts) -> Response:
    """One `[1, 77]` call a prompt, as many in flight as there are leases; the row at the end of text is taken here.

    Prompts that differ in no token are one. What the same weights have embedded before comes from a cache:
    `model_calls` says how many calls were made.
    """
    form = negotiate(request, (JSON, NPY))
    deadline = deadline_of(request, gateway.settings)
    gateway.admission.check(TextPipeline.family)
    prompts = (await read_model(request, gateway, Prompts, deadline, '{"prompts": ["…"]}')).prompts
    strict = query.tokens == "strict"
    wishes = Wishes(variant=query.variant, version=query.version)
    found = await embed_all(request, gateway, prompts, deadline, strict=strict, wishes=wishes)
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


def _image(
    gateway: Gateway, query: ImageQuery | SimilarityQuery, data: bytes, deadline: Deadline
) -> Embedding:
    pipeline = gateway.pipelines.of(ImagePipeline)
    return pipeline(data, query.wishes(), deadline, query.fit, query.analysis())


def _image_body(found: Embedding, query: ImageQuery) -> dict[str, Any]:
    vectors = normalized([found.vector], normalize=query.normalize)
    return {
        "embedding": encoded(vectors, base64=query.encoding == "base64")[0],
        "dimension": vectors.shape[1],
        "normalized": query.normalize,
    }


_IMAGE_FORMS: AnswerForms[Embedding, ImageQuery] = AnswerForms(
    _image_body,
    {
        NPY: lambda found, query: (
            embedding_bytes(normalized([found.vector], normalize=query.normalize)[0]),
            {},
        )
    },
)
_IMAGE_ROUTE: FrameRoute[Embedding, ImageQuery] = FrameRoute(
    ImagePipeline.family,
    _image,
    lambda gateway, query, frame, framed: gateway.pipelines.of(ImagePipeline).on_frame(
        frame.rgb, framed, query.fit
    ),
    _IMAGE_FORMS,
)


@image_router.post(
    "/v1/clip/image",
    summary="Embedding of a frame",
    **frame_operation(
        "clip_image",
        openapi.EmbeddingAnswer | openapi.EmbeddingBatch,
        _IMAGE_FORMS.encoders,
        openapi.IMAGE_SAMPLES,
        video=True,
    ),
)
async def clip_image(request: Request, query: Annotated[ImageQuery, Query()], gateway: Parts) -> Response:
    """CLIP's projected image feature, 512 numbers unless a variant has others; of a video, of each sampled frame."""
    return await _IMAGE_ROUTE.answer(request, query, gateway)


@image_router.post(
    "/v1/clip/similarity",
    summary="Frames against prompts (zero-shot)",
    **frame_operation(
        "similarity",
        openapi.SimilarityAnswer,
        (),
        openapi.SIMILARITY_SAMPLES,
        body=openapi.SIMILARITY_BODY,
    ),
)
async def clip_similarity(
    request: Request, query: Annotated[SimilarityQuery, Query()], gateway: Parts
) -> Response:
    """Multipart `file` and `prompt` parts: cosine of every frame with every prompt, and softmax over the prompts.

    JSON does it too: `{"image": "<base64>", "prompts": ["…"]}`. Prompts are embedded by the text model of the same
    variant: numbers of two variants say nothing of each other.
    """
    begun = begin(request, gateway.settings, (JSON,), videos=False)
    gateway.admission.check(ImagePipeline.family)
    limits = {"file": gateway.settings.max_parts, "prompt": gateway.settings.max_prompts}
    read = await read_frames(request, gateway.settings, query, (JSON,), limits, videos=False, begun=begun)
    upload, query, deadline = read.upload, read.query, read.deadline
    if not upload.form:
        raise InvalidParameter(f"send multipart/form-data with the parts {', '.join(limits)}, or JSON")
    parts = upload.parts
    prompts = read_texts(parts["prompt"], gateway.settings.max_json_bytes)
    if not parts["file"] or not prompts:
        raise InvalidParameter("send at least one part 'file' and one part 'prompt'")
    calls = [functools.partial(_image, gateway, query, data) for data in parts["file"]]
    wishes = gateway.pipelines.of(TextPipeline).wishes_beside(query.wishes())
    strict = query.tokens == "strict"
    texts = await embed_all(request, gateway, prompts, deadline, strict=strict, wishes=wishes)
    frames = await gateway.run_whole(request, ImagePipeline.family, calls, deadline, parts["file"])
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


def _timings(served: Sequence[Served]) -> Timings:
    return total(list({id(one.timings): one.timings for one in served}.values()))
