"""Bodies with a Content-Encoding: decoded within the limits, whatever they hold, or refused by name."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.testclient import TestClient
from starlette.types import Message
from support.servers.gateway import client, png, scene
from support.videos import count

from app.api.request.content_encoding import chunks_of
from app.errors import GatewayError, InvalidParameter

FRAME = png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32)))
LIMIT = 200_000
VIDEO_LIMIT = 6_000_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODED = {
    "gzip": ("gzip", gzip.compress(FRAME)),
    "GZIP": ("GZIP", gzip.compress(FRAME)),
    "x-gzip": ("x-gzip", gzip.compress(FRAME)),
    "identity": ("identity", FRAME),
    "nothing": ("", FRAME),
    "zlib": ("deflate", zlib.compress(FRAME)),
    "raw deflate": ("deflate", raw_deflate(FRAME)),
    "uncompressed deflate": ("deflate", zlib.compress(FRAME, 0)),
    "two members": ("gzip", gzip.compress(FRAME[:500]) + gzip.compress(FRAME[500:])),
    "an empty member": ("gzip", gzip.compress(b"") + gzip.compress(FRAME)),
    "zeros at the end": ("gzip", gzip.compress(FRAME) + bytes(512)),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(FRAME))),
    "deflate, then gzip": ("deflate, identity, gzip", gzip.compress(zlib.compress(FRAME))),
}
DAMAGED = {
    "cut off": ("gzip", gzip.compress(FRAME)[:-20]),
    "cut off before the checksum": ("gzip", gzip.compress(FRAME)[:-8]),
    "zlib cut off": ("deflate", zlib.compress(FRAME)[:-20]),
    "one byte": ("deflate", b"\x78"),
    "no gzip": ("gzip", FRAME),
    "no deflate": ("deflate", b"\xff" * 100),
    "a wrong checksum": ("gzip", gzip.compress(FRAME)[:-8] + bytes(8)),
    "rubbish at the end": ("gzip", gzip.compress(FRAME) + b"rubbish"),
    "more than its end": ("deflate", zlib.compress(FRAME) + b"\x78\x9c"),
    "damaged inside": ("gzip, gzip", gzip.compress(gzip.compress(FRAME)[:-9])),
    "a thousand empty members": ("gzip", gzip.compress(b"") * 1000),
}


@pytest.fixture(scope="module")
def gateway(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Every family, and small limits."""
    with client(
        all_families,
        max_body_bytes=LIMIT,
        video_max_bytes=VIDEO_LIMIT,
        videos_folder=tmp_path_factory.mktemp("videos"),
    ) as test_client:
        yield test_client


def post(gateway: TestClient, coding: str, body: bytes, path: str = "/v1/detect", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.post(path, content=body, headers={"Content-Encoding": coding, **named})


@pytest.mark.parametrize("case", ENCODED)
def test_an_encoded_picture_is_answered_as_the_plain_one(gateway: TestClient, case: str) -> None:
    """Each coding by each of its names, alone and one over the other."""
    plain = gateway.post("/v1/detect", content=FRAME).json()
    answered = post(gateway, *ENCODED[case])
    assert answered.status_code == 200, answered.text
    assert answered.json()["detections"] == plain["detections"] != []


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_data_is_the_caller_s_error(gateway: TestClient, case: str) -> None:
    """The error names the encoding, not the picture."""
    answered = post(gateway, *DAMAGED[case])
    assert (answered.status_code, answered.json()["code"]) == (400, "invalid_parameter"), answered.text
    assert DAMAGED[case][0].split(",")[0] in answered.json()["detail"]


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "aws-chunked", "utf-8"])
def test_another_coding_is_refused_by_name(gateway: TestClient, coding: str) -> None:
    """415 says which one, and which are taken."""
    answered = post(gateway, coding, FRAME)
    assert (answered.status_code, answered.json()["code"]) == (415, "unsupported_media_type")
    assert coding.rpartition(", ")[2] in answered.json()["detail"]
    assert "gzip" in answered.json()["what_to_do"]


def test_three_codings_are_refused(gateway: TestClient) -> None:
    """Nobody needs them, and each multiplies what a bomb costs."""
    assert post(gateway, "gzip, gzip, gzip", FRAME).status_code == 415


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_refused_at_the_limit(gateway: TestClient, coding: str, levels: int) -> None:
    """The decoded size counts, not the sent one."""
    pack = gzip.compress if coding == "gzip" else zlib.compress
    bomb = bytes(200 * LIMIT)
    for _ in range(levels):
        bomb = pack(bomb)
    answered = post(gateway, ", ".join([coding] * levels), bomb)
    assert (answered.status_code, answered.json()["code"]) == (413, "payload_too_large")


def test_a_picture_at_the_limit_may_be_longer_when_encoded(gateway: TestClient) -> None:
    """The limit is that of the decoded body: what can't shrink grows by a few bytes."""
    body = FRAME + bytes(LIMIT - len(FRAME))
    encoded = gzip.compress(body, 0)
    assert len(encoded) > LIMIT
    assert post(gateway, "gzip", encoded).status_code == 200
    assert post(gateway, "gzip", gzip.compress(body + b"\0")).status_code == 413


def test_an_announced_length_far_over_the_limit_is_refused_unread(gateway: TestClient) -> None:
    """No coding makes room for as much as that."""
    answered = post(gateway, "gzip", b"", content_length=str(2 * VIDEO_LIMIT))
    assert (answered.status_code, answered.json()["code"]) == (413, "payload_too_large")


def test_a_form_is_decoded(gateway: TestClient) -> None:
    """The coding is that of the whole form."""
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + FRAME
        + b"\r\n--XX--\r\n"
    )
    answered = post(gateway, "gzip", gzip.compress(form), content_type="multipart/form-data; boundary=XX")
    assert answered.status_code == 200, answered.text


def test_json_is_decoded(gateway: TestClient) -> None:
    """Prompts too."""
    body = gzip.compress(json.dumps({"prompts": ["a cat"]}).encode())
    assert post(gateway, "gzip", body, "/v1/clip/text").status_code == 200


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/videos?profile=detect_embedded"])
def test_a_video_is_decoded(gateway: TestClient, path: str, tmp_path: Path) -> None:
    """A video may be larger than a picture, and its limit is the video's."""
    video = count(tmp_path / "count.mp4", 8).read_bytes()
    answered = post(gateway, "gzip", gzip.compress(video), path)
    assert answered.status_code in (200, 202), answered.text
    too_large = post(gateway, "gzip", gzip.compress(video + bytes(VIDEO_LIMIT)), path)
    assert (too_large.status_code, too_large.json()["code"]) == (413, "payload_too_large")


def _decoded(pieces: list[bytes], coding: bytes = b"gzip", limit: int = 1 << 30) -> list[bytes]:
    messages: list[Message] = [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    async def read() -> list[bytes]:
        request = Request({"type": "http", "headers": [(b"content-encoding", coding)]}, receive)
        return [chunk async for chunk in chunks_of(request, limit)]

    return asyncio.run(read())


@pytest.mark.parametrize("size", [1, 7, 4096, 100_000, 1 << 20])
@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_pieces_of_any_size_make_the_same_body(size: int, coding: bytes) -> None:
    """The borders of what comes mean nothing."""
    content = (bytes(range(256)) * 300 + bytes(3 << 20))[: 40_000 if size < 10 else None]
    packed = gzip.compress(content) if coding == b"gzip" else raw_deflate(content)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    assert b"".join(_decoded(pieces, coding)) == content


def test_what_is_made_at_once_is_bounded() -> None:
    """A body that grows a thousandfold comes in small pieces."""
    pieces = _decoded([gzip.compress(bytes(50 << 20))])
    assert max(map(len, pieces)) <= 1 << 18
    assert sum(map(len, pieces)) == 50 << 20


def test_bytes_that_make_nothing_are_counted() -> None:
    """Empty blocks without end would be decoded for ever."""
    packer = zlib.compressobj(wbits=-15)
    empty = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH) + b"\x00\x00\x00\xff\xff" * 10_000
    with pytest.raises(GatewayError, match="more than 20000 bytes"):
        _decoded([empty], b"deflate", 20_000)


def test_many_members_are_refused_before_they_cost_much() -> None:
    """Each member costs more than its twenty bytes."""
    with pytest.raises(InvalidParameter, match="members"):
        _decoded([gzip.compress(b"") * 50_000])


def test_a_file_of_many_honest_members_is_decoded() -> None:
    """Such as block-compressed files have."""
    buffer = io.BytesIO()
    for number in range(300):
        buffer.write(gzip.compress(number.to_bytes(4, "big") * 16_000, 0))
    assert sum(map(len, _decoded([buffer.getvalue()]))) == 300 * 64_000


def test_a_video_longer_than_a_picture_may_be_comes_in_one_piece(gateway: TestClient, tmp_path: Path) -> None:
    """Its first piece may already hold more than a picture and its form may have."""
    video = count(tmp_path / "count.mp4", 4).read_bytes()
    box = 5_000_000
    body = video + box.to_bytes(4, "big") + b"free" + bytes(box - 8)
    assert gateway.post("/v1/detect", content=body).status_code == 200
    assert gateway.post("/v1/detect", files={"file": body}).status_code == 200
