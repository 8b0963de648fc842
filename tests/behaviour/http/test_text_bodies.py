"""Pictures as text: base64, data URIs, and JSON that holds them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene

FRAME = png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32)))
OTHER = png(scene(320, 320, (0, 64, 96, 32)))
TEXT = base64.b64encode(FRAME).decode()
URL_SAFE = base64.urlsafe_b64encode(FRAME).decode()
URI = f"data:image/png;base64,{TEXT}"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LIMIT = 100_000


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """Every family, and a small limit."""
    with client(all_families, max_body_bytes=LIMIT) as test_client:
        yield test_client


def post(gateway: TestClient, body: str | bytes, kind: str = "text/plain", path: str = "/v1/detect") -> Any:
    return gateway.post(path, content=body, headers={"Content-Type": kind})


def classes(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted({row["class_name"] for row in answer.json()["detections"]})


def lines(text: str) -> str:
    """Wrap the text as `base64` and MIME do."""
    return "\r\n".join(re.findall(".{1,76}", text)) + "\r\n"


BODIES = {
    "base64": (TEXT, "text/plain"),
    "without padding": (TEXT.rstrip("="), "text/plain"),
    "wrapped": (lines(TEXT), "text/plain"),
    "white space around": (f" \n\t{TEXT}\n\n", "text/plain"),
    "the url-safe alphabet": (URL_SAFE, "text/plain"),
    "after a byte order mark": ("\ufeff" + TEXT, "text/plain"),
    "in UTF-16, as PowerShell writes it": (TEXT.encode("utf-16"), "text/plain"),
    "said to be JSON": (TEXT, JSON),
    "said to be a picture": (TEXT, "image/png"),
    "said to be bytes": (TEXT, "application/octet-stream"),
    "as curl -d sends it": (TEXT, FORM),
    "a data URI": (URI, "text/plain"),
    "a data URI in capitals": (URI.replace("data:image/png;base64", "DATA:image/PNG;BASE64"), "text/plain"),
    "a data URI with parameters": (URI.replace("png;", "png;name=a.png;"), "text/plain"),
    "a data URI without a type": (f"data:;base64,{TEXT}", "text/plain"),
    "a data URI, wrapped": (f"data:image/png;base64,\n{lines(TEXT)}", "text/plain"),
    "a data URI, quoted": (f"data:image/png;base64,{quote(TEXT)}", "text/plain"),
    "a data URI without base64": (f"data:image/png,{quote(FRAME)}", "text/plain"),
    "json": (json.dumps({"image": TEXT}), JSON),
    "json with a data URI": (json.dumps({"image": URI}), JSON),
    "json, url-safe and wrapped": (json.dumps({"image": lines(URL_SAFE)}), JSON),
    "json without a content type": (json.dumps({"image": TEXT}), "text/plain"),
    "json as curl -d sends it": (json.dumps({"image": TEXT}, indent=1), FORM),
    "json with a byte order mark": ("\ufeff" + json.dumps({"image": TEXT}), JSON),
    "json in UTF-16": (json.dumps({"image": TEXT}).encode("utf-16"), JSON),
    "json in UTF-32": (json.dumps({"image": TEXT}).encode("utf-32"), JSON),
    "json text": (json.dumps(TEXT), JSON),
    "json with a list of one": (json.dumps({"image": [URI]}), JSON),
    "json under the part's name": (json.dumps({"file": TEXT}), JSON),
    "a form": (f"image={quote(TEXT, safe='')}", FORM),
    "a form with bare plus signs": (f"image={TEXT.replace('=', '%3D')}&conf=0.25", FORM),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_picture_as_text_is_answered_as_the_plain_one(gateway: TestClient, case: str) -> None:
    """Its bytes decide what a body is, whatever its type says."""
    plain = gateway.post("/v1/detect", content=FRAME).json()["detections"]
    answered = post(gateway, *BODIES[case])
    assert answered.status_code == 200, answered.text
    assert answered.json()["detections"] == plain != []


@pytest.mark.parametrize("text", [TEXT, URI, lines(URL_SAFE)])
def test_a_part_may_be_text(gateway: TestClient, text: str) -> None:
    """In a form too, with or without a file name."""
    assert classes(gateway.post("/v1/detect", files={"file": text.encode()})) == ["bicycle", "car"]
    assert classes(gateway.post("/v1/detect", files={"file": (None, text)})) == ["bicycle", "car"]


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/depth", "/v1/clip/image", "/v1/places"])
def test_every_frame_route_takes_text(gateway: TestClient, path: str) -> None:
    """Base64, a data URI and JSON give the same answer as the bytes."""
    plain = gateway.post(path, content=FRAME).json()
    for body, kind in ((TEXT, "text/plain"), (URI, "text/plain"), (json.dumps({"image": URI}), JSON)):
        answered = post(gateway, body, kind, path)
        assert answered.status_code == 200, answered.text
        assert answered.json() == plain


def test_flow_takes_two_pictures_in_json(gateway: TestClient) -> None:
    """`frame0` and `frame1`, as in the form."""
    plain = gateway.post("/v1/flow", files={"frame0": FRAME, "frame1": OTHER}).json()
    body = json.dumps({"frame0": TEXT, "frame1": base64.b64encode(OTHER).decode()})
    assert post(gateway, body, JSON, "/v1/flow").json()["flow"] == plain["flow"]
    half = post(gateway, json.dumps({"frame0": TEXT}), JSON, "/v1/flow")
    assert (half.status_code, half.json()["code"]) == (400, "invalid_parameter")


def test_similarity_takes_pictures_and_prompts_in_json(gateway: TestClient) -> None:
    """`image` and `prompts`, each one or several."""
    plain = gateway.post("/v1/clip/similarity", files={"file": FRAME}, data={"prompt": ["a cat", "a dög"]})
    body = json.dumps({"image": TEXT, "prompts": ["a cat", "a dög"]})
    assert post(gateway, body, JSON, "/v1/clip/similarity").json()["cosine"] == plain.json()["cosine"]


def test_a_list_is_a_batch(gateway: TestClient) -> None:
    """Answered in order."""
    body = json.dumps({"image": [TEXT, base64.b64encode(OTHER).decode()]})
    results = post(gateway, body, JSON).json()["results"]
    assert [sorted(row["class_name"] for row in one["detections"]) for one in results] == [
        ["bicycle", "car"],
        ["person"],
    ]


def test_json_takes_the_query_s_parameters(gateway: TestClient) -> None:
    """Text, numbers, truth and lists; a name in both places is refused."""
    body = json.dumps({"image": TEXT, "conf": 0.25, "classes": ["car"], "agnostic": False, "branch": None})
    assert classes(post(gateway, body, JSON)) == ["car"]
    both = post(gateway, body, JSON, "/v1/detect?conf=0.3")
    assert (both.status_code, both.json()["code"]) == (400, "invalid_parameter")
    assert post(gateway, json.dumps({"image": TEXT, "conf": 7}), JSON).status_code == 422
    assert post(gateway, json.dumps({"image": TEXT, "conf": {}}), JSON).status_code == 400
    unknown = post(gateway, json.dumps({"image": TEXT, "clases": 7}), JSON)
    assert unknown.status_code == 400
    assert "did you mean 'classes'?" in unknown.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "[1]",
        '{"url": "http://a/b.jpg"}',
        '{"prompts": ["a cat"]}',
        "null",
        "7",
        "{",
        '{"image"',
        "",
    ],
)
@pytest.mark.parametrize("path", ["/v1/detect", "/v1/depth", "/v1/flow", "/v1/clip/similarity", "/v1/places"])
def test_other_json_is_told_how_to_send_a_picture(gateway: TestClient, path: str, body: str) -> None:
    """415 with the line to use."""
    answered = post(gateway, body, JSON, path)
    if body:
        assert (answered.status_code, answered.json()["code"]) == (415, "unsupported_media_type")
        assert "--data-binary" in answered.json()["what_to_do"]
    else:
        assert answered.status_code in (400, 415)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("nonsense!", 400),
        ("", 400),
        ("https://example.com/a.jpg", 400),
        (TEXT[:-5] + "*" + TEXT[-4:], 400),
        (TEXT[:801], 400),
        (TEXT[:800], 400),
        (7, 400),
        ({"data": TEXT}, 400),
        (base64.b64encode(b"%PDF-1.7 and so on").decode(), 415),
    ],
)
def test_what_is_no_picture_in_json_is_refused(gateway: TestClient, image: Any, status: int) -> None:
    """Neither base64 nor a picture once it is decoded."""
    answered = post(gateway, json.dumps({"image": image}), JSON)
    assert answered.status_code == status, answered.text


@pytest.mark.parametrize("body", ["hello world", "hello", "TWFu" * 300, "data:text/plain,hello", "image=1"])
def test_other_text_is_still_text(gateway: TestClient, body: str) -> None:
    """Text that is no picture's base64 is refused as text."""
    assert post(gateway, body).status_code in (400, 415)


def test_the_limit_holds_for_text(gateway: TestClient) -> None:
    """The limit applies to the body as sent."""
    answered = post(gateway, json.dumps({"image": "A" * LIMIT}), JSON)
    assert (answered.status_code, answered.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("text", ['{"image": [' + "[" * 90_000, "{" + '"a":1,' * 15_000, "[" * 99_000])
def test_json_of_many_values_is_refused(gateway: TestClient, text: str) -> None:
    """Nesting and keys without end cost nothing."""
    assert post(gateway, text, JSON).status_code in (413, 415)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_prompts_come_in_any_utf(gateway: TestClient, encoding: str) -> None:
    """With or without a byte order mark."""
    body = json.dumps({"prompts": ["a cät"]}, ensure_ascii=False)
    plain = post(gateway, body.encode(), JSON, "/v1/clip/text").json()
    answered = post(gateway, body.encode(encoding), JSON, "/v1/clip/text")
    assert answered.status_code == 200, answered.text
    assert answered.json()["embeddings"] == plain["embeddings"]
