"""Bodies of JSON: bounded in bytes, read strictly, and away from the event loop when they are not small."""

from __future__ import annotations

import asyncio
import functools
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.api.gateway import Gateway
from app.api.request.content_encoding import chunks_of
from app.api.request.requests import check_announced, receiving
from app.api.request.text_bodies import json_text
from app.deadline import Deadline
from app.documents import clipped, read_json
from app.errors import InvalidParameter, PayloadTooLarge
from app.hints import did_you_mean
from app.settings import Settings

M = TypeVar("M", bound=BaseModel)
MOST_VALUES = 30_000  # of one body; more where the settings allow more prompts
_MOST_FAULTS = 10
_SMALL = 4096  # bytes that take a fraction of a millisecond to parse


async def read_model(request: Request, gateway: Gateway, model: type[M], deadline: Deadline, like: str) -> M:
    """The JSON body of a request as `model` describes it; `like` shows one in the message of an error.

    Raises:
        PayloadTooLarge: more than `max_json_bytes`.
        DeadlineExceeded: the sender was too slow (stage `receive`).
        InvalidParameter: no JSON, or not as the model describes it.
    """
    body = await _received(request, gateway.settings, deadline)
    if len(body) <= _SMALL:
        return parsed(body, model, like)
    most = max(MOST_VALUES, 2 * gateway.settings.max_prompts)
    return await gateway.work(functools.partial(parsed, body, model, like, most))


def parsed(body: bytes, model: type[M], like: str, most_values: int = MOST_VALUES) -> M:
    """A JSON object as `model`, all of whose fields forbid what they don't know.

    Raises:
        InvalidParameter: no JSON, or not as the model describes it; at most ten faults are told.
    """
    try:
        document = read_json(json_text(body), most_values)
        if isinstance(document, dict):
            _refuse_unknown(document.keys() - model.model_fields.keys(), model)
        return model.model_validate(document)
    except InvalidParameter as error:
        raise InvalidParameter(f"the body must be {like}: {error.detail}") from error
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        words = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {clipped(fault['msg'], 200)}"
            for fault in faults[:_MOST_FAULTS]
        ]
        raise InvalidParameter(f"the body must be {like}: {'; '.join(words)}") from error


def _refuse_unknown(unknown: set[str], model: type[BaseModel]) -> None:
    """Name unknown keys here, since pydantic would make a report of each one first."""
    if unknown:
        shown = sorted(unknown)[:_MOST_FAULTS]
        words = [f"{clipped(key)!r}{did_you_mean(key, model.model_fields)}" for key in shown]
        more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
        raise InvalidParameter(f"unknown key {', '.join(words)}{more}")


async def _received(request: Request, settings: Settings, deadline: Deadline) -> bytes:
    """Return the body. If it is too long, read and drop the rest, so that the sender can read the refusal."""
    check_announced(request, settings.max_body_bytes)
    limit, size, kept = settings.max_json_bytes, 0, bytearray()
    with receiving():
        async with asyncio.timeout(deadline.remaining()):
            async for chunk in chunks_of(request, settings.max_body_bytes):
                size += len(chunk)
                if size > settings.max_body_bytes:
                    raise PayloadTooLarge(f"the body has more than {settings.max_body_bytes} bytes")
                if size <= limit:
                    kept += chunk
    if size > limit:
        raise PayloadTooLarge(f"the body has {size} bytes; the limit for JSON is {limit}")
    return bytes(kept)
