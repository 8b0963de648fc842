"""Depth, flow, CLIP and Places365 over HTTP, with models whose answers are known."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.clip_tokens import tokenizer
from support.models.repository import CATALOGUE, mixing
from support.servers.gateway import client, png

from app.api.openapi import schemas
from app.api.openapi.families.clip import EmbeddingAnswer, SimilarityAnswer, TextAnswer
from app.api.openapi.families.depth import DepthAnswer
from app.api.openapi.families.flow import FlowAnswer
from app.api.openapi.families.places import PlacesAnswer
from app.media.resizers.choice import resizer_named

RESIZER = resizer_named("auto")
RNG = np.random.default_rng(3)
FRAME = cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC)
BRIGHTER = np.clip(FRAME.astype(int) + 20, 0, 255).astype(np.uint8)
BODY = png(FRAME)


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """The embedded engine over the small models of every family."""
    with client(all_families) as test_client:
        yield test_client


def answer(response: Any, model: type[schemas.Schema]) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    model.model_validate(document)
    return document


def array(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-npy"
    assert json.loads(response.headers["x-provenance"])["model_signature"].startswith("sha256:")
    loaded: np.ndarray = np.load(io.BytesIO(response.content), allow_pickle=False)
    return loaded


def normalized(rgb: np.ndarray, family: str) -> np.ndarray:
    prepare = CATALOGUE[family].prepare
    assert prepare is not None
    return (rgb.astype(np.float32) / 255 - np.float32(prepare.mean)) / np.float32(prepare.std)


def expected_depth() -> np.ndarray:
    square = np.asarray(Image.fromarray(FRAME).resize((256, 256), Image.Resampling.BICUBIC))
    return normalized(square, "depth").mean(axis=2)


# The resizer of this machine may round to the next level on either axis (`tests/app/media/test_resize.py`).
LEVEL = 1 / 255 / 0.5
NPY = {"accept": "application/x-npy"}
PNG = {"accept": "image/png"}


def test_depth_at_the_branch_s_size_is_the_model_s_answer(gateway: TestClient) -> None:
    """The whole frame squeezed into the square, bicubic with antialiasing, normalised in the repository."""
    depth = array(gateway.post("/v1/depth?size=branch", content=BODY, headers=NPY))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, expected_depth(), atol=LEVEL)
    assert np.abs(depth - expected_depth()).mean() < LEVEL / 100
    (used,) = gateway.post("/v1/depth", content=BODY).json()["models_used"]
    assert used["prepare"] == {
        "library": RESIZER.library,
        "version": RESIZER.version,
        "filter": "bicubic, antialiased",
    }


def test_depth_comes_at_the_source_s_size(gateway: TestClient) -> None:
    """float32 `[H, W]`, and statistics of the same map in JSON."""
    depth = array(gateway.post("/v1/depth", content=BODY, headers=NPY))
    assert depth.shape == (200, 300)
    np.testing.assert_allclose(
        depth, cv2.resize(expected_depth(), (300, 200), interpolation=cv2.INTER_CUBIC), atol=LEVEL
    )
    document = answer(gateway.post("/v1/depth", content=BODY), DepthAnswer)
    assert document["depth"]["mean"] == pytest.approx(float(depth.mean()), abs=1e-6)
    assert document["depth"]["p95"] == pytest.approx(float(np.percentile(depth, 95)), abs=1e-6)
    assert document["map"] == document["image"] == {"width": 300, "height": 200}
    assert document["branch"]["name"] == "midas_256"
    assert document["models_used"][0]["preprocess_digest"].startswith("sha256:")


def test_a_16_bit_png_holds_depth_within_half_a_level(gateway: TestClient) -> None:
    """Levels and the two headers give the values back."""
    response = gateway.post("/v1/depth", content=BODY, headers=PNG)
    levels = np.asarray(Image.open(io.BytesIO(response.content))).astype(np.float64)
    least, greatest = (float(response.headers[f"x-depth-{name}"]) for name in ("min", "max"))
    depth = array(gateway.post("/v1/depth", content=BODY, headers=NPY))
    step = (greatest - least) / 65535
    np.testing.assert_allclose(least + levels * step, depth, atol=step * 0.51)


def test_depth_has_a_picture_to_look_at(gateway: TestClient) -> None:
    """`render=color`: RGB, of the source's size, bright where the map is greatest."""
    response = gateway.post("/v1/depth?render=color", content=BODY, headers=PNG)
    picture = np.asarray(Image.open(io.BytesIO(response.content)))
    depth = array(gateway.post("/v1/depth", content=BODY, headers=NPY))
    assert picture.shape == (200, 300, 3)
    brightness = picture.astype(int).sum(axis=2)
    assert brightness.flat[depth.argmax()] > 500
    assert brightness.flat[depth.argmin()] < 100


def _pair(first: np.ndarray, second: np.ndarray) -> dict[str, tuple[str, bytes]]:
    return {"frame0": ("0", png(first)), "frame1": ("1", png(second))}


def expected_flow() -> np.ndarray:
    squares = [
        normalized(np.asarray(Image.fromarray(f).resize((256, 256), Image.Resampling.BILINEAR)), "flow")
        for f in (FRAME, BRIGHTER)
    ]
    x = (squares[1] - squares[0]).mean(axis=2)
    return np.stack([x * 300 / 256, x / 2 * 200 / 256])


def test_flow_is_in_source_pixels_on_each_axis(gateway: TestClient) -> None:
    """The branch's field is scaled by W/S and H/S."""
    flow = array(gateway.post("/v1/flow?size=branch", files=_pair(FRAME, BRIGHTER), headers=NPY))
    np.testing.assert_allclose(flow, expected_flow(), atol=2 * LEVEL)
    assert np.abs(flow - expected_flow()).mean() < LEVEL / 100
    source = array(gateway.post("/v1/flow", files=_pair(FRAME, BRIGHTER), headers=NPY))
    assert source.shape == (2, 200, 300)
    document = answer(gateway.post("/v1/flow", files=_pair(FRAME, BRIGHTER)), FlowAnswer)
    assert document["flow"]["dx_mean"] == pytest.approx(float(source[0].mean()), abs=1e-6)
    assert document["flow"]["dy_mean"] == pytest.approx(float(source[1].mean()), abs=1e-6)
    assert document["flow"]["magnitude_max"] == pytest.approx(float(np.hypot(*source).max()), abs=1e-6)


def test_flo_is_middlebury_s_format(gateway: TestClient) -> None:
    """OpenCV's own reader gets the same field back."""
    flow = array(gateway.post("/v1/flow", files=_pair(FRAME, BRIGHTER), headers=NPY))
    headers = {"accept": "application/x-flo"}
    content = gateway.post("/v1/flow", files=_pair(FRAME, BRIGHTER), headers=headers).content
    assert content[:4] == b"PIEH"
    width, height = np.frombuffer(content[4:12], "<i4")
    field = np.frombuffer(content[12:], "<f4").reshape(height, width, 2)
    np.testing.assert_array_equal(field.transpose(2, 0, 1), flow)


def test_flow_has_a_picture_to_look_at(gateway: TestClient) -> None:
    """The colour wheel: white where nothing moves."""
    still = gateway.post("/v1/flow", files=_pair(FRAME, FRAME), headers=PNG)
    assert np.asarray(Image.open(io.BytesIO(still.content))).min() == 255
    moving = gateway.post("/v1/flow", files=_pair(FRAME, BRIGHTER), headers=PNG)
    assert np.asarray(Image.open(io.BytesIO(moving.content))).min() < 128


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"frame0": ("0", BODY)}, "frame1"),
        ({**_pair(FRAME, FRAME), "frame2": ("2", BODY)}, "frame2"),
        (_pair(FRAME, FRAME[:100]), "300x200 and 300x100"),
        ({}, "multipart"),
    ],
)
def test_flow_needs_two_frames_of_one_size(gateway: TestClient, files: Any, words: str) -> None:
    """The error names the frame that is missing or superfluous."""
    response = gateway.post("/v1/flow", files=files)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert words in response.json()["detail"]


def row_at_end(prompt: str) -> np.ndarray:
    """Return the small text model's answer at the end of the prompt."""
    tokens = tokenizer()(prompt)
    wave = np.sin(np.float32(49407) * np.arange(1, 513, dtype=np.float32) / 1000)
    row: np.ndarray = wave + tokens.end
    return row


def test_the_row_at_the_end_of_text_is_taken(gateway: TestClient) -> None:
    """One embedding a prompt, in order, not normalised when so asked."""
    prompts = ["a photo of a cat", "dog", "<|endoftext|> a dog", "a photo of a cat"]
    response = gateway.post("/v1/clip/text?normalize=false", json={"prompts": prompts})
    document = answer(response, TextAnswer)
    for vector, prompt in zip(document["embeddings"], prompts, strict=True):
        np.testing.assert_allclose(vector, row_at_end(prompt), atol=0.01)
    assert document["truncated"] == [False] * 4
    assert document["resolved_model_mapping"] == {"core_clip": "clip_text"}


def test_forms_of_embeddings_agree(gateway: TestClient) -> None:
    """float, base64 and npy hold the same numbers; normalised ones have length 1."""
    body = {"prompts": ["one", "two words"]}
    numbers = np.array(gateway.post("/v1/clip/text", json=body).json()["embeddings"], np.float32)
    np.testing.assert_allclose(np.linalg.norm(numbers, axis=1), 1, atol=1e-6)
    encoded = gateway.post("/v1/clip/text?encoding=base64", json=body).json()["embeddings"]
    decoded = np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in encoded])
    np.testing.assert_array_equal(decoded, numbers)
    np.testing.assert_array_equal(array(gateway.post("/v1/clip/text", json=body, headers=NPY)), numbers)


def test_a_second_run_of_prompts_makes_no_call(all_families: Path, tmp_path: Path) -> None:
    """29 prompts cold and warm, in memory and, for the next process, on disk; hits and misses are counted."""
    body = {"prompts": [f"a photo of thing {number}" for number in range(29)]}
    with client(all_families, text_cache_folder=tmp_path) as gateway:
        cold, warm = (gateway.post("/v1/clip/text", json=body).json() for _ in range(2))
        metrics = gateway.get("/metrics").text
    assert (cold["model_calls"], warm["model_calls"]) == (29, 0)
    assert warm["embeddings"] == cold["embeddings"]
    assert warm["models_used"] == cold["models_used"]
    assert 'gateway_text_cache_lookups_total{result="hit"} 29.0' in metrics
    assert 'gateway_text_cache_lookups_total{result="miss"} 29.0' in metrics
    with client(all_families, text_cache_folder=tmp_path) as gateway:
        again = gateway.post("/v1/clip/text", json=body).json()
    assert again["model_calls"] == 0
    assert again["embeddings"] == cold["embeddings"]


def test_long_prompts_are_cut_and_said_or_refused(gateway: TestClient) -> None:
    """`truncated` for each prompt; `tokens=strict` makes it an error."""
    prompts = ["short", "word " * 100, "x" * 100_000]
    document = answer(gateway.post("/v1/clip/text", json={"prompts": prompts}), TextAnswer)
    assert document["truncated"] == [False, True, True]
    refused = gateway.post("/v1/clip/text?tokens=strict", json={"prompts": prompts})
    assert (refused.status_code, refused.json()["code"]) == (400, "prompt_too_long")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"prompts": []}', b'{"prompts": "x"}', b'{"prompts": [1]}', b'{"prompts": [null]}',
     b'{"prompt": ["x"]}', b'{"prompts": ["x"], "more": 1}', b'{"prompts": ["\xff"]}', b"\x00" * 100],
)  # fmt: skip
def test_a_body_that_holds_no_prompts_is_refused(gateway: TestClient, body: bytes) -> None:
    """Whatever it is, the answer says what the body must be."""
    response = gateway.post("/v1/clip/text", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert "prompts" in response.json()["detail"]


def test_empty_and_odd_prompts_are_embedded(gateway: TestClient) -> None:
    """Nothing, white space, emoji and right-to-left text have embeddings too."""
    prompts = ["", "  \n", "👍🏽 ok", "שלום", "\x00", "🇩🇪" * 200]
    document = answer(gateway.post("/v1/clip/text", json={"prompts": prompts}), TextAnswer)
    assert len(document["embeddings"]) == len(prompts)


def test_too_many_prompts_are_refused(all_families: Path) -> None:
    """The limit is a setting."""
    with client(all_families, max_prompts=2) as gateway:
        response = gateway.post("/v1/clip/text", json={"prompts": ["a", "b", "c"]})
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


def expected_colour(rgb: np.ndarray, family: str) -> np.ndarray:
    mean = normalized(rgb, family).mean(axis=(0, 1))
    vector: np.ndarray = mean @ mixing(512 if family == "clip_image" else 365)
    return vector


def test_an_image_embedding_sees_the_middle_or_all(gateway: TestClient) -> None:
    """fit=crop (the rule): shortest side to 224, centre; fit=stretch: the whole frame."""
    crop = array(gateway.post("/v1/clip/image?normalize=false", content=BODY, headers=NPY))
    resized = Image.fromarray(FRAME).resize((336, 224), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(
        crop, expected_colour(np.asarray(resized.crop((56, 0, 280, 224))), "clip_image"), atol=1e-3
    )
    stretched = array(gateway.post("/v1/clip/image?normalize=false&fit=stretch", content=BODY, headers=NPY))
    whole = np.asarray(Image.fromarray(FRAME).resize((224, 224), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(stretched, expected_colour(whole, "clip_image"), atol=1e-3)
    document = answer(gateway.post("/v1/clip/image", content=BODY), EmbeddingAnswer)
    np.testing.assert_allclose(document["embedding"], crop / np.linalg.norm(crop), atol=1e-6)


def test_similarity_is_cosine_and_softmax(gateway: TestClient) -> None:
    """Frames by prompts, from the same embeddings that the other routes answer."""
    prompts = ["a cat", "a dog", "a cat"]
    files = [("file", ("0", BODY)), ("file", ("1", png(BRIGHTER)))]
    response = gateway.post("/v1/clip/similarity", files=files, data={"prompt": prompts})
    document = answer(response, SimilarityAnswer)
    texts = array(gateway.post("/v1/clip/text", json={"prompts": prompts}, headers=NPY))
    images = np.stack(
        [array(gateway.post("/v1/clip/image", content=b, headers=NPY)) for b in (BODY, png(BRIGHTER))]
    )
    np.testing.assert_allclose(document["cosine"], images @ texts.T, atol=1e-6)
    exponent = np.exp(100 * (images @ texts.T).astype(np.float64))
    np.testing.assert_allclose(document["softmax"], exponent / exponent.sum(axis=1, keepdims=True), atol=1e-4)
    assert document["resolved_model_mapping"] == {"core_clip": "clip_image_224+clip_text"}
    assert {used["model_name"] for used in document["models_used"]} == {"clip_image_224", "clip_text"}


def test_similarity_needs_a_frame_and_a_prompt(gateway: TestClient) -> None:
    """One without the other is an error that says so."""
    for files, data in (([("file", ("0", BODY))], {}), ([("nothing", ("0", BODY))], {"prompt": ["x"]})):
        response = gateway.post("/v1/clip/similarity", files=files, data=data)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")


def test_places_are_the_most_probable_categories(gateway: TestClient) -> None:
    """Top k with names; shortest side to 256, the middle 224; probabilities over all 365."""
    resized = Image.fromarray(FRAME).resize((384, 256), Image.Resampling.BILINEAR)
    logits = expected_colour(np.asarray(resized.crop((80, 16, 304, 240))), "places").astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    document = answer(gateway.post("/v1/places?k=7", content=BODY), PlacesAnswer)
    assert [row["category_id"] for row in document["places"]] == np.argsort(-probabilities)[:7].tolist()
    for row in document["places"]:
        assert row["probability"] == pytest.approx(probabilities[row["category_id"]], abs=1e-4)
        assert row["category"] == CATALOGUE["places"].labels[row["category_id"]]


@pytest.mark.parametrize("path", ["depth", "clip/image", "places"])
def test_frames_are_judged_alike_on_every_route(gateway: TestClient, path: str) -> None:
    """Broken and empty frames, unknown parameters and branches; see test_batches for several frames."""

    def code(**request: Any) -> tuple[int, str]:
        response = gateway.post(f"/v1/{path}{request.pop('query', '')}", **request)
        return response.status_code, response.json()["code"]

    assert code(content=b"") == (400, "invalid_image")
    assert code(content=b"text") == (415, "unsupported_media_type")
    assert code(content=BODY[:100]) == (400, "invalid_image")
    assert code(content=BODY, query="?nonsense=1") == (422, "validation_failed")
    assert code(content=BODY, query="?branch=nothing") == (404, "model_not_found")
    assert code(content=BODY, headers={"x-request-timeout": "1e-9"}) == (504, "deadline_exceeded")
    assert gateway.post(f"/v1/{path}?branch=large&fallback=true", content=BODY).json()["degraded"] is True


def test_extreme_frames_are_answered(gateway: TestClient) -> None:
    """One pixel, and 4000 by 1."""
    for width, height in ((1, 1), (4000, 1), (1, 4000)):
        body = png(np.full((height, width, 3), 100, np.uint8))
        for path in ("depth?branch=small", "clip/image?branch=small", "places?branch=small"):
            assert gateway.post(f"/v1/{path}", content=body).status_code == 200, (path, width, height)
