"""The body of `POST /v1/embeddings`, as OpenAI's clients send it; each fault names its field."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request

from app.api.gateway import Gateway
from app.api.request.requests import read_body
from app.api.request.text_bodies import json_text, picture_of
from app.deadline import Deadline
from app.documents import clipped, read_json
from app.errors import InvalidImage, InvalidParameter, PayloadTooLarge
from app.hints import did_you_mean
from app.settings import Settings

FIELDS = ("input", "model", "encoding_format", "dimensions", "user")
_MOST_VALUES = 30_000
_DATA_URI = "data:"


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A checked body: texts and encoded pictures in the order of `input`; `dimensions` None: not given."""

    inputs: tuple[str | bytes, ...]
    model: str
    encoding: Literal["float", "base64"]
    dimensions: int | None


async def read_embeddings(request: Request, gateway: Gateway, deadline: Deadline) -> EmbeddingsRequest:
    """Read the body.

    Raises:
        PayloadTooLarge: too many bytes, texts or inputs.
        InvalidParameter: a field that is unknown, missing or has a wrong value; the detail begins with its name.
        InvalidImage: a data URI holds no base64.
    """
    body = await read_body(request, gateway.settings.max_body_bytes, deadline)
    return await gateway.work(functools.partial(_checked, body, gateway.settings))


def _checked(body: bytes, settings: Settings) -> EmbeddingsRequest:
    most = max(_MOST_VALUES, 2 * settings.max_prompts)
    try:
        document = read_json(json_text(body), most)
    except InvalidParameter as error:
        raise InvalidParameter(f"the body: {error.detail}") from error
    if not isinstance(document, dict):
        raise InvalidParameter("the body must be a JSON object with input and model")
    unknown = sorted(document.keys() - set(FIELDS))
    if unknown:
        name = clipped(unknown[0])
        raise InvalidParameter(f"unknown field {name!r}{did_you_mean(unknown[0], FIELDS)}")
    encoding, dimensions = document.get("encoding_format"), document.get("dimensions")
    if encoding not in (None, "float", "base64"):
        raise InvalidParameter("encoding_format: must be float or base64")
    if dimensions is not None and (not isinstance(dimensions, int) or isinstance(dimensions, bool)):
        raise InvalidParameter("dimensions: must be a whole number")
    if not isinstance(document.get("user", ""), str | None):
        raise InvalidParameter("user: must be a text")
    return EmbeddingsRequest(
        _inputs(document.get("input"), settings),
        _model(document.get("model")),
        encoding or "float",
        dimensions,
    )


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidParameter("model: name one, for example clip")
    return value


def _inputs(value: Any, settings: Settings) -> tuple[str | bytes, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise InvalidParameter("input: must be a text, or a list of texts that is not empty")
    if any(isinstance(one, int | list) for one in texts):
        raise InvalidParameter(
            "input: token arrays are not supported, because they belong to another tokenizer; send text"
        )
    if not all(isinstance(one, str) for one in texts):
        raise InvalidParameter("input: must be a text, or a list of texts")
    if not all(texts):
        raise InvalidParameter("input: a text must not be empty")
    if len(texts) > settings.max_prompts:
        raise PayloadTooLarge(f"input: {len(texts)} texts and pictures; the limit is {settings.max_prompts}")
    nbytes = sum(len(one) for one in texts if not _is_picture(one))
    if nbytes > settings.max_json_bytes:
        raise PayloadTooLarge(
            f"input: the texts have {nbytes} characters; the limit is {settings.max_json_bytes}"
        )
    pictures = sum(map(_is_picture, texts))
    if pictures > settings.max_parts:
        raise PayloadTooLarge(f"input: {pictures} pictures; the limit is {settings.max_parts}")
    return tuple(_picture(number, one) if _is_picture(one) else one for number, one in enumerate(texts))


def _is_picture(text: str) -> bool:
    return text[: len(_DATA_URI)].lower() == _DATA_URI


def _picture(number: int, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    picture = picture_of(data)
    if picture is data:
        raise InvalidImage(f"input: the data URI at place {number} holds no picture in base64")
    return picture
