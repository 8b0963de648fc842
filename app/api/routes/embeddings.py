"""`POST /v1/embeddings`, as OpenAI's clients speak it, over CLIP's text and image models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app.api.gateway import Gateway, gateway_of
from app.api.openapi import embeddings as openapi
from app.api.request.embeddings_body import EmbeddingsRequest, read_embeddings
from app.api.request.frame_query import VERSION
from app.api.request.prompts import embed_all
from app.api.request.requests import deadline_of, negotiate
from app.api.response.answers import JSON, described_json, total
from app.api.response.openai_errors import PATH
from app.api.server.direct_route import DirectRoute
from app.deadline import Deadline
from app.errors import InvalidParameter, ModelNotFound
from app.pipelines.base import provenance, wishes_of
from app.pipelines.clip import Embedding, ImagePipeline, TextPipeline, encoded, normalized
from routing.policy import Wishes

router = APIRouter(tags=["clip"], route_class=DirectRoute)
_DEFAULT = "clip"  # the name of the service's default variants


@dataclass(frozen=True, slots=True)
class _Model:
    """Models behind a name; None: the name is that of a branch of the other kind."""

    text: Wishes | None
    image: Wishes | None


@router.post(PATH, summary="Embeddings in OpenAI's form", **openapi.OPERATION)
async def embeddings(
    request: Request,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    version: Annotated[str | None, Query(max_length=20, description=VERSION)] = None,
) -> Response:
    """Embed texts, and pictures as data URIs, into the space that CLIP's two models share; every vector has length 1.

    `model` is `clip` (the service's default), the name of a variant, or the name of a branch, which embeds either texts
    or pictures. A text of more than 75 tokens is refused. Errors have OpenAI's form.
    """
    negotiate(request, (JSON,))
    deadline = deadline_of(request, gateway.settings)
    asked = await read_embeddings(request, gateway, deadline)
    model = _in_version(_model_of(gateway, asked), version)
    _check_dimensions(gateway, asked, model)
    found = await _embedded(request, gateway, asked, model, deadline)
    vectors = normalized([one.vector for one in found], normalize=True)
    served = [one.served for one in found]
    made_by = {
        **provenance(served),
        "degraded": any(one.decision.degraded for one in served),
        "warnings": sorted({warning for one in served for warning in one.warnings}),
    }
    tokens = sum(one.tokens for one in found)
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(encoded(vectors, base64=asked.encoding == "base64"))
        ],
        "model": "+".join(sorted({one.decision.branch.name for one in served})),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    timings = total(list({id(one.timings): one.timings for one in served}.values()))
    return described_json(body, made_by, timings)


def _in_version(model: _Model, version: str | None) -> _Model:
    text, image = (
        wishes if wishes is None or version is None else replace(wishes, version=version)
        for wishes in (model.text, model.image)
    )
    return _Model(text, image)


def _model_of(gateway: Gateway, asked: EmbeddingsRequest) -> _Model:
    """Return the models behind the name.

    Raises:
        ModelNotFound: there is none of this name.
        InvalidParameter: it is a branch that doesn't take what `input` has.
    """
    name, catalogue = asked.model, gateway.router.catalogue
    texts, images = catalogue[TextPipeline.family], catalogue[ImagePipeline.family]
    if name == _DEFAULT or images.named(name):
        wishes = Wishes() if name == _DEFAULT else Wishes(variant=name)
        return _Model(gateway.pipelines.of(TextPipeline).wishes_beside(wishes), wishes)
    branch = next((one for one in texts.every_branch if one.name == name), None)
    if branch is not None and branch.alternate_of is not None:
        raise InvalidParameter(
            f"model: GATEWAY_PRECISION has {branch.alternate_of} embed texts here; use that name, or {_DEFAULT}"
        )
    if branch is not None:
        model = _Model(Wishes(variant=branch.variant or "standard", version=branch.version), None)
    elif any(one.name == name for one in images.every_branch):
        model = _Model(None, wishes_of(name))
    else:
        raise ModelNotFound(
            f"model: there is no {name[:100]!r}; use {_DEFAULT}, a variant or a branch of CLIP"
        )
    if any(isinstance(one, str) for one in asked.inputs) and model.text is None:
        raise InvalidParameter(f"model: {name} embeds pictures; use {_DEFAULT} for texts")
    if any(isinstance(one, bytes) for one in asked.inputs) and model.image is None:
        raise InvalidParameter(f"model: {name} embeds texts; use {_DEFAULT} for pictures")
    return model


def _check_dimensions(gateway: Gateway, asked: EmbeddingsRequest, model: _Model) -> None:
    """Refuse another length than the model's: CLIP's numbers can't be cut.

    Raises:
        InvalidParameter: `dimensions` is another number.
    """
    if asked.dimensions is None:
        return
    family = ImagePipeline.family if model.text is None else TextPipeline.family
    wishes = model.text or model.image or Wishes()
    variant = gateway.router.variant_of(family, wishes)
    branches = gateway.router.catalogue[family].of_variant(variant)
    if wishes.branch is not None:
        branches = tuple(
            one for one in gateway.router.catalogue[family].every_branch if one.name == wishes.branch
        )
    have = {branch.outputs[0].shape[-1] for branch in branches}
    if have and asked.dimensions not in have:
        raise InvalidParameter(
            f"dimensions: the model's embeddings have {', '.join(map(str, sorted(have)))} numbers"
        )


async def _embedded(
    request: Request, gateway: Gateway, asked: EmbeddingsRequest, model: _Model, deadline: Deadline
) -> list[Embedding]:
    """Return the embedding of each input, in order."""
    texts = [one for one in asked.inputs if isinstance(one, str)]
    pictures = [one for one in asked.inputs if isinstance(one, bytes)]
    embedded_texts: Sequence[Embedding] = []
    embedded_pictures: Sequence[Embedding] = []
    if texts:
        gateway.admission.check(TextPipeline.family)
        embedded_texts = await embed_all(
            request, gateway, texts, deadline, strict=True, wishes=model.text or Wishes()
        )
    if pictures:
        gateway.admission.check(ImagePipeline.family)
        calls = [functools.partial(_picture, gateway, data, model.image or Wishes()) for data in pictures]
        embedded_pictures = await gateway.run_whole(request, ImagePipeline.family, calls, deadline, pictures)
    of_texts, of_pictures = iter(embedded_texts), iter(embedded_pictures)
    return [next(of_texts if isinstance(one, str) else of_pictures) for one in asked.inputs]


def _picture(gateway: Gateway, data: bytes, wishes: Wishes, deadline: Deadline) -> Embedding:
    return gateway.pipelines.of(ImagePipeline)(data, wishes, deadline)
