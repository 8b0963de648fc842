"""Calls that take texts: embeddings of prompts, similarity, and embeddings in OpenAI's form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.answers.families import MixedEmbeddings, Similarity, TextEmbeddings
from triton_vision_gateway_client.answers.provenance import described
from triton_vision_gateway_client.calls.base import (
    JSON,
    Call,
    Form,
    Raw,
    Received,
    posted,
)
from triton_vision_gateway_client.calls.frames import Options, files_of, made_by, vector_of
from triton_vision_gateway_client.media import PictureLike, data_uri, picture_bytes


def embed_text(prompts: Sequence[str], options: Options) -> Call[TextEmbeddings]:
    """Build the call for embeddings of prompts."""
    body = _json_body({"prompts": _checked(prompts)})
    request = posted("/v1/clip/text", body, options, encoding="base64")
    return Call(request=request, parse=_text_embeddings)


def _text_embeddings(received: Received) -> TextEmbeddings:
    document = received.object()
    vectors = np.stack([vector_of(text) for text in document["embeddings"]])
    return decode(TextEmbeddings, described(document, received.headers), vectors=vectors)


def similarity(pictures: Sequence[PictureLike], prompts: Sequence[str], options: Options) -> Call[Similarity]:
    """Build the call for pictures against prompts."""
    body = Form(files_of(pictures), {"prompt": _checked(prompts)})
    request = posted("/v1/clip/similarity", body, options)
    return Call(request=request, parse=_similarity)


def _similarity(received: Received) -> Similarity:
    document = received.object()
    tables = {name: np.array(document[name], np.float32) for name in ("cosine", "softmax")}
    return decode(Similarity, described(document, received.headers), **tables)


def embeddings(inputs: Sequence[str | PictureLike], model: str, options: Options) -> Call[MixedEmbeddings]:
    """Build the call of `POST /v1/embeddings`: a `str` is a text, everything else a picture."""
    if isinstance(inputs, str | bytes | os.PathLike):
        raise TypeError("give a list of texts and pictures")
    texts = [one if isinstance(one, str) else data_uri(picture_bytes(one)) for one in inputs]
    body = _json_body({"model": model, "input": texts, "encoding_format": "base64"})
    request = posted("/v1/embeddings", body, options)
    return Call(request=request, parse=_mixed)


def _mixed(received: Received) -> MixedEmbeddings:
    document = received.object()
    rows = sorted(document["data"], key=lambda row: int(row["index"]))
    return decode(
        MixedEmbeddings,
        {**made_by(received), "model": document.get("model")},
        vectors=np.stack([vector_of(row["embedding"]) for row in rows]),
        prompt_tokens=document["usage"]["prompt_tokens"],
    )


def _checked(prompts: Sequence[str]) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError("give a list of prompts, not one string")
    if not prompts:
        raise ValueError("give at least one prompt")
    return list(prompts)


def _json_body(document: Mapping[str, object]) -> Raw:
    return Raw(json.dumps(document).encode(), JSON)
