"""Prompts of a request, read within limits, and the way to embed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, FailFast, Field

from app.api.gateway import Gateway
from app.deadline import Deadline
from app.errors import InvalidParameter, PayloadTooLarge
from app.pipelines import clip
from app.pipelines.clip import Embedding, TextPipeline
from routing.policy import Wishes

T = TypeVar("T")


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
    wishes: Wishes,
) -> list[Embedding]:
    """See `app.pipelines.clip.embed_all`; the calls are admitted like those of other requests.

    Raises:
        PayloadTooLarge: too many prompts.
        GatewayError: see there.
    """
    if len(prompts) > gateway.settings.max_prompts:
        raise PayloadTooLarge(f"{len(prompts)} prompts; the limit is {gateway.settings.max_prompts}")

    async def run(calls: Sequence[Callable[[Deadline], T]]) -> list[T]:
        return await gateway.run_whole(request, TextPipeline.family, calls, deadline)

    pipeline = gateway.pipelines.of(TextPipeline)
    return await clip.embed_all(pipeline, prompts, deadline, gateway.work, run, strict=strict, wishes=wishes)
