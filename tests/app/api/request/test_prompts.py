"""Many prompts in one request: what they cost others, and what is refused before a model is called."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.models.weighed import WeighedText
from support.servers.gateway import client, png, scene
from support.waiting import PATIENCE_S, eventually

from app.engine.fake import Arrays, FakeEngine
from routing.catalogue import Catalogue

FRAME = png(scene(300, 200))
PROMPTS = [f"thing {number}" for number in range(60)]


class Slow:
    """A text model that takes its time, and knows how many calls there were and how many at once."""

    def __init__(self) -> None:
        self.calls = self.most = self._now = 0
        self.go = threading.Event()
        self.go.set()
        self.seconds = 0.02
        self._lock = threading.Lock()

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.go.wait(PATIENCE_S)
        time.sleep(self.seconds)
        outputs["OUTPUT__0"][...] = inputs["INPUT__0"][..., None]
        with self._lock:
            self._now -= 1


def _even(inputs: Arrays, outputs: Arrays) -> None:
    outputs["OUTPUT__0"][...] = 1


@pytest.fixture
def slow() -> Slow:
    """Nothing has been asked yet."""
    return Slow()


@pytest.fixture
def gateway(slow: Slow, tmp_path: Path) -> Iterator[TestClient]:
    """Two leases a branch, four worker threads, a slow text model and a fast image model."""

    def engine(_: Any, catalogue: Catalogue) -> FakeEngine:
        return FakeEngine(catalogue, {"clip_text": slow, "clip_image_224": _even}, leases=2)

    with client(tmp_path, engine, leases=2, worker_threads=4) as test_client:
        yield test_client


def _post(gateway: TestClient, prompts: list[str], query: str = "", **options: Any) -> Any:
    return gateway.post(f"/v1/clip/text{query}", json={"prompts": prompts}, **options)


def test_as_many_are_in_flight_as_there_are_leases(gateway: TestClient, slow: Slow) -> None:
    """Both leases are at work, and no thread waits for a third."""
    slow.go.clear()
    with ThreadPoolExecutor(1) as pool:
        prompts = pool.submit(_post, gateway, PROMPTS)
        eventually(lambda: slow.calls == 2)
        slow.go.set()
        assert prompts.result().status_code == 200
    assert (slow.calls, slow.most) == (len(PROMPTS), 2)


def test_many_prompts_leave_the_threads_of_others_alone(gateway: TestClient, slow: Slow) -> None:
    """While one request's prompts are embedded, frames are answered."""
    slow.go.clear()
    with ThreadPoolExecutor(1) as pool:
        prompts = pool.submit(_post, gateway, PROMPTS)
        eventually(lambda: slow.calls == 2)
        for _ in range(3):
            assert gateway.post("/v1/clip/image", content=FRAME).status_code == 200
        slow.go.set()
        assert prompts.result().status_code == 200


def test_a_deadline_ends_the_prompts_that_wait(gateway: TestClient, slow: Slow) -> None:
    """After a 504 no further call is made for that request."""
    response = _post(gateway, PROMPTS, headers={"X-Request-Timeout": "0.1"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    idle = 'gateway_leases_in_use{branch="clip_text"} 0'
    eventually(lambda: idle in gateway.get("/metrics").text)
    made = slow.calls
    assert made < len(PROMPTS)
    time.sleep(0.2)
    assert slow.calls == made


def test_strict_refuses_before_any_call(gateway: TestClient, slow: Slow) -> None:
    """One prompt too long among many is an error that names it, and nobody was asked for the others."""
    response = _post(gateway, [*PROMPTS, "much too long " * 40], "?tokens=strict")
    assert (response.status_code, response.json()["code"]) == (400, "prompt_too_long")
    assert "much too long" in response.json()["detail"]
    assert slow.calls == 0


def test_prompts_that_differ_in_no_token_are_one_call(gateway: TestClient, slow: Slow) -> None:
    """Case and white space are no tokens; whether a prompt was cut is still said of each."""
    prompts = ["A Cat", "a cat", " a  cat\n", "cat " * 75, "cat " * 76]
    document = _post(gateway, prompts).json()
    assert (document["model_calls"], slow.calls) == (2, 2)
    assert document["truncated"] == [False, False, False, False, True]
    assert document["embeddings"][0] == document["embeddings"][1] == document["embeddings"][2]
    assert document["embeddings"][3] == document["embeddings"][4]


def test_a_thousand_prompts_are_answered_in_order(gateway: TestClient, slow: Slow) -> None:
    """The most that a request may hold, each with its own embedding."""
    slow.seconds = 0
    words = ["red", "green", "blue", "cat", "dog", "house", "tree", "sea", "sky", "road"]
    prompts = [f"{a} {b} {c}" for a in words for b in words for c in words]
    first = _post(gateway, prompts).json()
    assert len(first["embeddings"]) == 1000
    assert slow.calls == first["model_calls"] == 1000
    assert _post(gateway, prompts[::-1]).json()["embeddings"] == first["embeddings"][::-1]
    assert _post(gateway, [*prompts, "one more"]).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"prompts": [' + b",".join([b"1"] * 500_000) + b"]}", id="numbers"),
        pytest.param(b'{"prompts": [' + b",".join([b"[]"] * 340_000) + b"]}", id="lists"),
        pytest.param(b'{"' + b"x" * 1_000_000 + b'": 1}', id="a long name"),
        pytest.param(b"{" + b",".join(b'"%x":0' % i for i in range(90_000)) + b"}", id="unknown keys"),
        pytest.param(b"{" + b'"prompts":[],' * 70_000 + b'"prompts":[]}', id="one key again and again"),
        pytest.param(b'{"prompts": [' + b"9" * 1_000_000 + b"]}", id="a long number"),
        pytest.param(b"[" * 1_000_000, id="depth"),
    ],
)
def test_a_large_body_of_faults_has_a_small_answer(gateway: TestClient, body: bytes) -> None:
    """One fault is told, at once, however many there are."""
    started = time.process_time()
    response = gateway.post("/v1/clip/text", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert len(response.content) < 2000
    assert time.process_time() - started < 30


def test_weights_that_keep_changing_are_never_mixed(tmp_path: Path) -> None:
    """An answer's embeddings are all from the weights that it names, or it is a 503 that says why."""
    made: list[WeighedText] = []

    def engine(_: Any, catalogue: Catalogue) -> WeighedText:
        made.append(WeighedText(catalogue, leases=1))
        return made[0]

    with client(tmp_path, engine, leases=1) as gateway:
        made[0].swap_after = 7
        refused = _post(gateway, PROMPTS)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_not_ready")
        assert "changed" in refused.json()["detail"]
        made[0].swap_after = len(PROMPTS) * 2 - 1
        document = _post(gateway, PROMPTS, "?normalize=false").json()
    (number,) = {row[0] for row in document["embeddings"]}
    assert document["models_used"][0]["weights_digest"] == f"sha256:{number:g}"


def test_similarity_takes_the_same_care(gateway: TestClient, slow: Slow) -> None:
    """Too long a prompt is refused before any frame is looked at; else prompts count as in /v1/clip/text."""
    files = [("file", ("a", FRAME)), ("file", ("b", FRAME))]
    refused = gateway.post(
        "/v1/clip/similarity?tokens=strict", files=files, data={"prompt": ["x", "word " * 100]}
    )
    assert (refused.status_code, refused.json()["code"], slow.calls) == (400, "prompt_too_long", 0)
    answered = gateway.post("/v1/clip/similarity", files=files, data={"prompt": ["a cat", "A  cat"]})
    assert answered.status_code == 200, answered.text
    assert slow.calls == 1
    assert np.shape(json.loads(answered.content)["cosine"]) == (2, 2)


@pytest.mark.parametrize("size", [1_048_577, 9_900_000])
def test_json_beyond_its_limit_is_refused_unread(gateway: TestClient, size: int) -> None:
    """JSON without a picture has a limit of its own, and who sends more reads why."""
    response = gateway.post("/v1/clip/text", content=b" " * size)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert response.json()["detail"] == f"the body has {size} bytes; the limit for JSON is 1048576"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"prompts": ["a"], "prompts": ["b"]}', "the key 'prompts' is given twice"),
        (b'{"prompts": ["\\ud83d"]}', "lone surrogate"),
        (b'{"prompt": ["a"]}', "unknown key 'prompt'; did you mean 'prompts'?"),
        (b'{"prompts": [NaN]}', "NaN is not a number"),
        (b'{"prompts": ["a"], "x": 1' + b"0" * 5000 + b"}", "a number of 5001 characters"),
        (b'{"prompts": [1, 2, 3]}', "prompts.0: Input should be a valid string"),
    ],
)
def test_json_with_two_meanings_is_refused(gateway: TestClient, body: bytes, words: str) -> None:
    """JSON that other readers would read differently, or that can't be written again, is a 400 that says so."""
    response = gateway.post("/v1/clip/text", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
    assert words in response.json()["detail"]


def test_json_with_a_byte_order_mark_is_read(gateway: TestClient) -> None:
    """Some editors write one; it says nothing."""
    response = gateway.post("/v1/clip/text", content=b'\xef\xbb\xbf{"prompts": ["a cat", "\\ud83d\\ude00"]}')
    assert response.status_code == 200
    assert response.json()["embeddings"] == _post(gateway, ["a cat", "\U0001f600"]).json()["embeddings"]


def test_prompt_parts_are_bounded_in_bytes(gateway: TestClient) -> None:
    """Prompts in a form have the limit of prompts in JSON."""
    files = [("file", ("a.png", b"x")), *(("prompt", (None, "x" * 600_000)) for _ in range(2))]
    response = gateway.post("/v1/clip/similarity", files=files)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert response.json()["detail"] == "the prompts have 1200000 bytes; the limit is 1048576"
