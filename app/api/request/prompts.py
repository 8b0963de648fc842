"""Prompts of a request: read within limits, each distinct one embedded once, side by side."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import Request
from pydantic import BaseModel, ConfigDict, FailFast, Field

from app.api.gateway import Gateway
from app.deadline import Deadline
from app.errors import InvalidParameter, ModelNotReady, PayloadTooLarge
from app.pipelines.clip import Embedding, TextPipeline
from app.vision.prompts import Tokens

_TRIES = 3  # to get all embeddings of a request from the same weights


class Prompts(BaseModel):
    """Body of `POST /v1/clip/text`."""

    model_config = ConfigDict(extra="forbid")

    # FailFast: a body of a million numbers has one fault to tell, not a million.
    prompts: Annotated[list[str], FailFast()] = Field(
        min_length=1, examples=[["a photo of a cat", "a photo of a dog"]]
    )


def read_texts(parts: Sequence[bytes], most_bytes: int) -> list[str]:
    """The prompts of multipart parts.

    Raises:
        PayloadTooLarge: together they have more than `most_bytes`.
        InvalidParameter: one is not UTF-8.
    """
    nbytes = sum(map(len, parts))
    if nbytes > most_bytes:
        raise PayloadTooLarge(f"the prompts have {nbytes} bytes; the limit is {most_bytes}")
    try:
        return [part.decode("utf-8") for part in parts]
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"a prompt is not UTF-8 at byte {error.start}") from error


async def embed_all(
    request: Request,
    gateway: Gateway,
    prompts: Sequence[str],
    deadline: Deadline,
    *,
    strict: bool,
    variant: str | None = None,
) -> list[Embedding]:
    """The embedding of each prompt, in order, all from the same weights; what differs in no token is embedded once.

    `variant` is that of the text model; None: the service's default.

    Raises:
        PayloadTooLarge: too many prompts.
        PromptTooLong: `strict`, and one has too many tokens; no model was called then.
        ModelNotReady: the weights changed again and again meanwhile.
        GatewayError: see `TextPipeline`.
    """
    if len(prompts) > gateway.settings.max_prompts:
        raise PayloadTooLarge(f"{len(prompts)} prompts; the limit is {gateway.settings.max_prompts}")
    tokens = await gateway.work(lambda: _tokens(gateway, prompts, deadline, strict=strict))
    distinct = {one.ids.tobytes(): one for one in tokens}
    for _ in range(_TRIES):
        found = await _embed(request, gateway, distinct, deadline, variant)
        if len({embedding.served.model.used for embedding in found.values()}) == 1:
            return [replace(found[one.ids.tobytes()], truncated=one.truncated) for one in tokens]
    raise ModelNotReady("the weights changed while the prompts were embedded", retry_after=1)


def _tokens(gateway: Gateway, prompts: Sequence[str], deadline: Deadline, *, strict: bool) -> list[Tokens]:
    tokens = []
    for prompt in prompts:
        deadline.check("prepare")
        tokens.append(gateway.pipelines.of(TextPipeline).tokens(prompt, strict=strict))
    return tokens


async def _embed(
    request: Request,
    gateway: Gateway,
    distinct: dict[bytes, Tokens],
    deadline: Deadline,
    variant: str | None,
) -> dict[bytes, Embedding]:
    """Look the prompts up in one hop to a worker thread, and make one call for each that is not cached."""
    recall = gateway.pipelines.of(TextPipeline).recall
    known = await gateway.work(lambda: {key: recall(tokens, variant) for key, tokens in distinct.items()})
    found = {key: embedding for key, embedding in known.items() if embedding is not None}
    missing = [key for key in distinct if key not in found]
    if not missing:
        return found
    calls = [
        functools.partial(gateway.pipelines.of(TextPipeline), distinct[key], variant=variant)
        for key in missing
    ]
    made = await gateway.run_whole(request, "clip_text", calls, deadline)
    return {**found, **dict(zip(missing, made, strict=True))}


def calls_of(found: Sequence[Embedding]) -> int:
    """Return the number of model calls that these embeddings took."""
    return len({id(one.served) for one in found if not one.cached})
