"""Forms as clients write them: multipart by RFC 2046 and 7578, and parameters as fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene
from support.videos import count

FRAME = png(scene(320, 320, (0, 32, 32, 32), (1, 96, 96, 32), (2, 224, 32, 32)))
OTHER = png(scene(320, 320, (0, 64, 64, 32)))
FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png'
EMPTY = (
    b'Content-Disposition: form-data; name="file"; filename=""\r\nContent-Type: application/octet-stream',
    b"",
)
KIND = "multipart/form-data; boundary=XX"


@pytest.fixture(scope="module")
def gateway(all_families: Path) -> Iterator[TestClient]:
    """Every family, in this process."""
    with client(all_families) as test_client:
        yield test_client


def field(name: str, value: bytes) -> tuple[bytes, bytes]:
    return f'Content-Disposition: form-data; name="{name}"'.encode(), value


def form(
    *parts: tuple[bytes, bytes], line: bytes = b"\r\n", padding: bytes = b"", end: bytes = b"\r\n"
) -> bytes:
    body = b""
    for head, content in parts:
        body += b"--XX" + padding + line + head.replace(b"\r\n", line) + line * 2 + content + line
    return body + b"--XX--" + end


def post(
    gateway: TestClient, body: bytes, query: str = "", kind: str = KIND, path: str = "/v1/detect"
) -> Any:
    return gateway.post(path + query, content=body, headers={"Content-Type": kind})


def classes(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted({row["class_name"] for row in answer.json()["detections"]})


ALL = ["bicycle", "car", "person"]
BODIES = {
    "plain": form((FILE, FRAME)),
    "preamble": b"This is a multi-part message in MIME format.\r\n" + form((FILE, FRAME)),
    "preamble with the boundary inside": b"see --XX below, or\r\n--XXL\r\n--XX-\r\n" + form((FILE, FRAME)),
    "an empty line first": b"\r\n" + form((FILE, FRAME)),
    "padding": form((FILE, FRAME), padding=b" \t  "),
    "padding after the end": form((FILE, FRAME), end=b"  \r\n"),
    "epilogue": form((FILE, FRAME), end=b"\r\nthat was all\r\n--XX\r\nreally"),
    "no line end at the end": form((FILE, FRAME), end=b""),
    "lines of LF": form((FILE, FRAME), line=b"\n"),
    "an empty file input": form((FILE, FRAME), EMPTY),
    "an empty file input first": form(EMPTY, (FILE, FRAME)),
    "an empty input of another name": form((EMPTY[0].replace(b"file", b"mask", 1), b""), (FILE, FRAME)),
    "no content type": form((FILE.partition(b"\r\n")[0], FRAME)),
    "no file name": form(field("file", FRAME)),
    "no quotes": form((b"Content-Disposition: form-data; name=file; filename=a.png", FRAME)),
    "names in another case": form((b'content-DISPOSITION: Form-Data; NAME="file"; FileName="a"', FRAME)),
    "a folded head": form((b'Content-Disposition: form-data;\r\n name="file";\r\n\tfilename="a"', FRAME)),
    "an encoded name": form((FILE.replace(b'filename="a.png"', b"filename*=UTF-8''n%C3%A4ive.png"), FRAME)),
    "a name with a boundary": form((FILE.replace(b"a.png", b"a; name=x --XX.png"), FRAME)),
    "more heads": form((b"X-Odd: 1\r\n" + FILE + b"\r\nContent-Transfer-Encoding: binary", FRAME)),
    "content with half a boundary": form((FILE, FRAME + b"\r\n--X\r\n--XXY\r\n--XX-\r\n")),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_form_is_read_as_the_rfc_says(gateway: TestClient, case: str) -> None:
    """The form holds one picture, and one picture is answered."""
    assert classes(post(gateway, BODIES[case])) == ALL


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/form-data; boundary="XX"',
        "Multipart/Form-Data; Boundary=XX",
        "multipart/form-data; charset=utf-8; boundary=XX",
        'multipart/form-data;boundary="XX";charset=utf-8',
        "multipart/form-data; boundary=XX ",
    ],
)
def test_the_boundary_may_be_written_in_any_way(gateway: TestClient, kind: str) -> None:
    """Quoted, in another case, with other parameters."""
    assert classes(post(gateway, BODIES["plain"], kind=kind)) == ALL


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (form((FILE, FRAME))[:-8], "cut off"),
        (form((FILE, FRAME)).replace(b"XX", b"YY"), "damaged"),
        (b"--XX\r\n" + b"a: b\r\n" * 5000, "damaged"),
        (b"--XX\r\nno colon\r\n\r\n\r\n--XX--", "damaged"),
        (form(), "file"),
        (form(EMPTY), "file"),
        (form((FILE.replace(b'"file"', b'"picture"'), FRAME)), "picture"),
        (form((FILE, FRAME), field("conff", b"0.3")), "conff"),
        (form((b"Content-Type: image/png", FRAME)), "part"),
        (form((FILE, FRAME), field("conf", b"\xff\xfe")), "conf"),
    ],
)
def test_a_wrong_form_is_refused_in_our_words(gateway: TestClient, body: bytes, word: str) -> None:
    """A damaged form, an unknown part and a form without a picture are errors of the caller."""
    answer = post(gateway, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), answer.text
    assert word in answer.json()["detail"]


@pytest.mark.parametrize("count_of_parts", [1100, 5000])
def test_parts_without_end_are_refused(gateway: TestClient, count_of_parts: int) -> None:
    """Ignored parts and fields are counted too."""
    for part in (EMPTY, field("classes", b"car")):
        assert post(gateway, form(*[part] * count_of_parts)).status_code == 413


def test_fields_are_bounded(gateway: TestClient) -> None:
    """A parameter of megabytes isn't kept."""
    assert post(gateway, form((FILE, FRAME), field("classes", b"car," * 20_000))).status_code == 413


@pytest.mark.parametrize(
    ("fields", "query", "found"),
    [
        ([("classes", b"car")], "", ["car"]),
        ([("classes", b"car"), ("classes", b"person")], "", ["car", "person"]),
        ([("classes", b"0,1")], "", ["bicycle", "person"]),
        ([("conf", b"1")], "", []),
        ([("conf", b"0.25"), ("iou", b"0.7"), ("keyframes", b"false")], "", ALL),
        ([("conf", b"0.25")], "?classes=car", ["car"]),
        ([("conf", b""), ("classes", b""), ("branch", b""), ("session", b"")], "", ALL),
        ([("classes", b"")], "?classes=car", ["car"]),
    ],
)
def test_a_field_is_the_query_s_equal(
    gateway: TestClient, fields: list[tuple[str, bytes]], query: str, found: list[str]
) -> None:
    """Before or after the picture, a field says what the query would say."""
    parts = [field(*one) for one in fields]
    assert classes(post(gateway, form((FILE, FRAME), *parts), query)) == found
    assert classes(post(gateway, form(*parts, (FILE, FRAME)), query)) == found


@pytest.mark.parametrize(
    ("fields", "query", "status", "word"),
    [
        ([("conf", b"0.5")], "?conf=0.5", 400, "conf"),
        ([("classes", b"car")], "?classes=person", 400, "classes"),
        ([("conf", b"0.5"), ("conf", b"0.6")], "", 400, "conf"),
        ([("conf", b"2")], "", 422, "form.conf"),
        ([("conf", b"much")], "", 422, "form.conf"),
        ([("start", b"3")], "", 400, "start"),
        ([("branch", b"nonsense")], "", 404, "nonsense"),
        ([("classes", b"unicorn")], "", 400, "unicorn"),
        ([("timestamp", b"1")], "", 400, "timestamp"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    gateway: TestClient, fields: list[tuple[str, bytes]], query: str, status: int, word: str
) -> None:
    """A wrong field is refused as in the query; a name in both places is ambiguous."""
    answer = post(gateway, form((FILE, FRAME), *(field(*one) for one in fields)), query)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "fields", "key"),
    [
        ("/v1/depth", {"size": "branch"}, "map"),
        ("/v1/flow", {"size": "branch"}, "map"),
        ("/v1/clip/image", {"normalize": "false"}, "normalized"),
        ("/v1/places", {"k": "2"}, "places"),
        ("/v1/clip/similarity", {"fit": "stretch"}, "cosine"),
    ],
)
def test_every_frame_route_takes_fields(
    gateway: TestClient, path: str, fields: dict[str, str], key: str
) -> None:
    """The answer is the one that the query asks for."""
    files = {"frame0": FRAME, "frame1": OTHER} if path == "/v1/flow" else {"file": FRAME}
    prompts = {"prompt": ["a cat", "a dog"]} if path == "/v1/clip/similarity" else {}
    by_query = gateway.post(path, params=fields, files=files, data=prompts)
    by_field = gateway.post(path, files=files, data={**fields, **prompts})
    assert by_field.status_code == by_query.status_code == 200, by_field.text
    assert by_field.json()[key] == by_query.json()[key]


def test_a_session_may_be_named_in_the_form(gateway: TestClient) -> None:
    """With its timestamps, which say the frames' place in it."""
    for step in (1, 2):
        body = form((FILE, FRAME), field("session", b"formed"), field("timestamp", str(step).encode()))
        answer = post(gateway, body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["session"] == {"id": "formed", "frame": step, "timestamp": step}
    late = post(gateway, form((FILE, FRAME), field("timestamp", b"1")), "?session=formed")
    assert (late.status_code, late.json()["code"]) == (409, "session_conflict")


def test_a_video_takes_fields(gateway: TestClient, tmp_path: Path) -> None:
    """Sampling and parameters of a video come with its form; a session is for pictures."""
    video = count(tmp_path / "count.mp4", 12).read_bytes()
    part = (b'Content-Disposition: form-data; name="file"; filename="a.mp4"', video)
    answer = post(gateway, form(part, field("every", b"4"), field("conf", b"0.9")))
    assert answer.status_code == 200, answer.text
    assert answer.text.count('"frame":{"index"') == 3
    refused = post(gateway, form(part, field("session", b"a")))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")
    wrong = post(gateway, form(part, field("every", b"no")))
    assert wrong.status_code == 422
