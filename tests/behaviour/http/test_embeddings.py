"""`POST /v1/embeddings`: CLIP in the form that OpenAI's clients speak, with errors in that form."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

PICTURE = png(scene(224, 224, (0, 32, 32, 64)))
URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
KEY = "gw_" + "A" * 43
ENTRY = f"tester sha256:{hashlib.sha256(KEY.encode()).hexdigest()} scopes=infer rate=1 burst=1"


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """Every family, in this process; at most three prompts."""
    with client(all_families, max_prompts=3) as test_client:
        yield test_client


def post(gateway: TestClient, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return gateway.post("/v1/embeddings", json={"model": "clip", **body}, headers=headers)


def answer(gateway: TestClient, **body: Any) -> dict[str, Any]:
    response = post(gateway, **body)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def refused(response: Any, status: int) -> dict[str, Any]:
    """The error object, which has the four members of OpenAI's and no other."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    document = response.json()
    assert list(document) == ["error"]
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    error: dict[str, Any] = document["error"]
    return error


def test_texts_are_embedded_as_clip_text_does(gateway: TestClient) -> None:
    """The same numbers, at length 1, in order; the tokens are counted, and the header says what made them."""
    texts = ["a photo of a cat", "a dog"]
    response = post(gateway, input=texts)
    document = response.json()
    expected = gateway.post("/v1/clip/text", json={"prompts": texts}).json()
    assert document["object"] == "list"
    assert [one["index"] for one in document["data"]] == [0, 1]
    assert [one["embedding"] for one in document["data"]] == expected["embeddings"]
    assert document["usage"] == {"prompt_tokens": 7 + 4, "total_tokens": 7 + 4}
    assert document["model"] == "clip_text"
    made_by = json.loads(response.headers["x-provenance"])
    assert made_by["model_signature"] == expected["model_signature"]
    assert "infer;dur=" in response.headers["server-timing"]


def test_pictures_are_embedded_as_clip_image_does(gateway: TestClient) -> None:
    """As data URIs, beside texts: both lie in one space."""
    document = answer(gateway, input=[URI, "a cat", URI])
    expected = gateway.post("/v1/clip/image", content=PICTURE).json()
    first, text, second = (one["embedding"] for one in document["data"])
    assert first == second == expected["embedding"]
    assert text != first
    assert document["model"] == f"{expected['branch']['name']}+clip_text"


def test_base64_is_the_same_numbers(gateway: TestClient) -> None:
    """float32, little-endian, as OpenAI's clients decode it."""
    numbers = answer(gateway, input="a cat")["data"][0]["embedding"]
    text = answer(gateway, input="a cat", encoding_format="base64")["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(text), "<f4"), np.array(numbers, np.float32))


def test_a_model_is_a_variant_or_a_branch(gateway: TestClient) -> None:
    """A branch takes what it was made for."""
    by_default = answer(gateway, input=URI, dimensions=512)
    assert answer(gateway, input=URI, model="standard")["data"] == by_default["data"]
    assert answer(gateway, input=URI, model="clip_image_224")["model"] == "clip_image_224"
    assert answer(gateway, input="a cat", model="clip_text")["model"] == "clip_text"
    for model, value in (("clip_text", URI), ("clip_image_224", "a cat")):
        error = refused(post(gateway, input=value, model=model), 400)
        assert (error["param"], error["type"]) == ("model", "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model", "model_not_found"),
        ({"input": [320, 2368]}, 400, "input", "invalid_parameter"),
        ({"input": [[320], [2368]]}, 400, "input", "invalid_parameter"),
        ({"input": ""}, 400, "input", "invalid_parameter"),
        ({"input": []}, 400, "input", "invalid_parameter"),
        ({"input": None}, 400, "input", "invalid_parameter"),
        ({"input": {"text": "a"}}, 400, "input", "invalid_parameter"),
        ({"input": ["a", 1.5]}, 400, "input", "invalid_parameter"),
        ({"input": "a", "model": None}, 400, "model", "invalid_parameter"),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "invalid_parameter"),
        ({"input": "a", "dimensions": 256}, 400, "dimensions", "invalid_parameter"),
        ({"input": "a", "dimensions": True}, 400, "dimensions", "invalid_parameter"),
        ({"input": "a", "user": 1}, 400, "user", "invalid_parameter"),
        ({"input": "a", "inputs": "a"}, 400, None, "invalid_parameter"),
        ({"input": "word " * 80}, 400, None, "prompt_too_long"),
        ({"input": ["a", "b", "c", "d"]}, 413, "input", "payload_too_large"),
        ({"input": "data:image/png;base64,!!!!"}, 400, "input", "invalid_image"),
        ({"input": "data:text/plain;base64,aGVsbG8="}, 415, None, "unsupported_media_type"),
    ],
)
def test_faults_have_openai_s_form(
    gateway: TestClient, body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    """With the field at fault and the gateway's code."""
    error = refused(post(gateway, **body), status)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


def test_what_is_refused_before_the_route_has_it_too(gateway: TestClient) -> None:
    """No JSON, another method, a form of the answer that there isn't; other routes answer problems as before."""
    assert refused(gateway.post("/v1/embeddings", content=b"{"), 400)["code"] == "invalid_parameter"
    assert refused(gateway.get("/v1/embeddings"), 405)["code"] == "method_not_allowed"
    assert refused(post(gateway, {"Accept": "image/png"}, input="a"), 406)["code"] == "not_acceptable"
    other = gateway.post("/v1/clip/text", content=b"{")
    assert other.headers["content-type"] == "application/problem+json"


def test_keys_are_bearer_tokens(all_families: Path) -> None:
    """401 and 429 in OpenAI's form; a key needs the scope infer."""
    with client(all_families, api_keys=ENTRY) as gateway:
        error = refused(post(gateway, input="a"), 401)
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        bearer = {"Authorization": f"Bearer {KEY}"}
        assert post(gateway, bearer, input="a").status_code == 200
        limited = post(gateway, bearer, input="a")
        assert limited.headers["retry-after"] == "1"
        error = refused(limited, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
