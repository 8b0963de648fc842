"""The package `openai`, pointed at a real service."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
from support.servers.gateway import png, scene, server

URI = f"data:image/png;base64,{base64.b64encode(png(scene(64, 64, (0, 8, 8, 32)))).decode()}"


@pytest.fixture(scope="module")
def service(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL that OpenAI's clients take."""
    log = tmp_path_factory.mktemp("log") / "gateway.log"
    with server(all_families, log) as (http, _):
        yield f"{http.base_url}/v1".replace("//v1", "/v1")


def test_the_client_gets_embeddings(service: str) -> None:
    """By default it asks for base64 and decodes it; asked for numbers, they are the same."""
    with openai.OpenAI(base_url=service, api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="clip", input=["a cat", URI])
        plain = client.embeddings.create(model="clip", input=["a cat", URI], encoding_format="float")
    vectors = np.array([one.embedding for one in found.data])
    assert vectors.shape == (2, 512)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, [one.embedding for one in plain.data], atol=1e-7)
    assert found.usage.prompt_tokens == 4


def test_the_client_understands_errors(service: str) -> None:
    """Each is an exception of its kind, with message, parameter and code."""
    with openai.OpenAI(base_url=service, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="text-embedding-3-small", input="a")
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="clip", input=[[320]])
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (refused.value.code, refused.value.param) == ("invalid_parameter", "input")
    assert "send text" in refused.value.message


@pytest.mark.parametrize("model", ["clip", "clip_text"])
def test_the_async_client_too(service: str, model: str) -> None:
    """Both names of the text model."""
    import asyncio  # noqa: PLC0415  # for this one

    async def ask() -> int:
        async with openai.AsyncOpenAI(base_url=service, api_key="none", max_retries=0) as client:
            return len((await client.embeddings.create(model=model, input="a cat")).data[0].embedding)

    with ThreadPoolExecutor(1) as thread:  # this one may have the loop of another test's fixture
        assert thread.submit(lambda: asyncio.run(ask())).result() == 512
