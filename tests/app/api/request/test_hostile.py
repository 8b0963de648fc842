"""A real server against bodies that mean harm: the right code, memory unmoved, and it serves on."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image
from support.servers.gateway import png, scene, server
from support.waiting import PATIENCE_S

GOOD = png(scene(320, 320, (1, 64, 96, 32)))
LIMIT = 2_000_000
LIMIT_S = 6.0  # more than a busy machine needs for a frame
WORK_S = 10.0  # of a processor: what a refused body may cost
Server = tuple[httpx2.Client, int]


@pytest.fixture(scope="module")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`gateway serve` with a small limit on bodies and a short one on time."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    with server(repository, log, max_body_bytes=LIMIT, max_parts=4, request_timeout_s=LIMIT_S) as started:
        yield started


@pytest.fixture(autouse=True)
def serves_on(running: Server) -> Iterator[None]:
    """After each attack a good frame is answered, and resident memory never rose on the way."""
    http, pid = running
    assert http.post("/v1/detect", content=GOOD).status_code == 200
    before = psutil.Process(pid).memory_info().rss
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again (proc(5))
    yield
    answer = http.post("/v1/detect", content=GOOD)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["detections"]) == 1
    assert _peak(pid) - before < 50_000_000


def _peak(pid: int) -> int:
    """The most resident memory in bytes since the peak was reset."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _animation() -> bytes:
    frames = [Image.fromarray(scene(64, 64, (c, 0, 0, 32))) for c in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=40)
    return buffer.getvalue()


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


ATTACKS = {
    "empty": (b"", 400, "invalid_image"),
    "truncated jpeg": (_jpeg()[:5000], 400, "invalid_image"),
    "jpeg header alone": (_jpeg()[:200], 400, "invalid_image"),
    "truncated png": (GOOD[: len(GOOD) // 2], 400, "invalid_image"),
    "text": (b"just text", 415, "unsupported_media_type"),
    "html": (b"<html><script>alert(1)</script></html>", 415, "unsupported_media_type"),
    "pickle": (b"\x80\x04\x95\x1f\x00\x00\x00", 415, "unsupported_media_type"),
    "playlist": (b"#EXTM3U\nfile:///etc/passwd\n", 415, "unsupported_media_type"),
    "20000x20000 png header": (_png_header(20_000, 20_000), 413, "image_too_large"),
    "animated webp": (_animation(), 400, "invalid_image"),
    "compression bomb": (_png_header(100, 100)[:33] + b"\0" * 100, 400, "invalid_image"),
    "body over the limit": (b"\xff\xd8\xff" + bytes(LIMIT), 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_body_is_refused_with_its_code(running: Server, name: str) -> None:
    """The right problem, at once."""
    http, pid = running
    body, status, code = ATTACKS[name]
    _refused(http, pid, name, body, "image/jpeg", status, code)


def _refused(
    http: httpx2.Client, pid: int, name: str, body: bytes, kind: str, status: int, code: str
) -> None:
    before = psutil.Process(pid).memory_info().rss
    worked = sum(psutil.Process(pid).cpu_times()[:2])
    answer = http.post("/v1/detect", content=body, headers={"content-type": kind})
    worked = sum(psutil.Process(pid).cpu_times()[:2]) - worked
    moved = (_peak(pid) - before) / 1e6
    print(f"{name:26} {answer.status_code} {answer.json()['code']:24} {worked:5.2f} s {moved:+6.1f} MB")  # noqa: T201  # the table, with -s
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert worked < WORK_S


def _form(*parts: tuple[str, bytes], end: bytes = b"--XX--\r\n") -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="%s"; filename="../../../etc/passwd\x00"\r\n\r\n'
    return b"".join(head % name.encode() + body + b"\r\n" for name, body in parts) + end


_KIND = "multipart/form-data; boundary=XX"
FORMS = {
    "form without boundary": ("multipart/form-data", _form(("file", GOOD)), 400, "invalid_parameter"),
    "form of other boundary": (f"{_KIND}Y", _form(("file", GOOD)), 400, "invalid_parameter"),
    "form of long boundary": (_KIND + "X" * 300, _form(("file", GOOD)), 400, "invalid_parameter"),
    "form cut off": (_KIND, _form(("file", GOOD), end=b""), 400, "invalid_parameter"),
    "form of another name": (_KIND, _form(("picture", GOOD)), 400, "invalid_parameter"),
    "form of a hostile name": (_KIND, _form(("../file", GOOD)), 400, "invalid_parameter"),
    "form with a text part": (_KIND, _form(("file", GOOD), ("profile", b"x")), 400, "invalid_parameter"),
    "form without parts": (_KIND, b"--XX--\r\n", 400, "invalid_parameter"),
    "form of many headers": (_KIND, b"--XX\r\n" + b"X-A: b\r\n" * 50_000, 400, "invalid_parameter"),
    "form of many parts": (_KIND, _form(*[("file", b"x")] * 5), 413, "payload_too_large"),
    "form of empty parts": (_KIND, _form(*[("file", b"")] * 10_000), 413, "payload_too_large"),
    "form of bad pictures": (_KIND, _form(*[("file", b"x")] * 4), 415, "unsupported_media_type"),
    "form of bombs": (
        _KIND, _form(*[("file", _png_header(20_000, 20_000))] * 4), 413, "image_too_large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_hostile_form_is_refused_with_its_code(running: Server, name: str) -> None:
    """Too many parts, cut off, without boundary or of wrong names: the right problem, at once."""
    http, pid = running
    kind, body, status, code = FORMS[name]
    _refused(http, pid, name, body, kind, status, code)


def test_a_path_as_a_file_name_is_of_no_consequence(running: Server) -> None:
    """The file name of a part reaches no file system: the frame is answered."""
    http, _ = running
    answer = http.post("/v1/detect", content=_form(("file", GOOD)), headers={"content-type": _KIND})
    assert answer.status_code == 200
    assert len(answer.json()["detections"]) == 1


def test_an_endless_body_is_cut_off_at_the_limit(running: Server) -> None:
    """Chunked, so no length is announced: bytes are counted while they come."""
    http, _ = running
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50 * LIMIT:
            sent += 65536
            yield bytes(65536)

    with contextlib.suppress(httpx2.TransportError):  # the server may close before all is written
        answer = http.post("/v1/detect", content=endless())
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert sent < 50 * LIMIT


def _raw(http: httpx2.Client, data: bytes, seconds: float = PATIENCE_S) -> bytes:
    """Send bytes as they are; what comes back until the server closes or the time is over."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=seconds) as sock:
        sock.sendall(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := sock.recv(65536):
                received += part
                head, _, body = received.partition(b"\r\n\r\n")
                if b"content-length: %d" % len(body) in head.lower():
                    break
        return received


def test_a_slow_sender_is_cut_off(running: Server) -> None:
    """A body that doesn't come within the time limit is a 504 in stage `receive`."""
    http, _ = running
    answer = _raw(http, b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly this")
    assert answer.startswith(b"HTTP/1.1 504"), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["stage"] == "receive"


def test_a_slow_sender_is_cut_off_at_its_own_limit(running: Server) -> None:
    """X-Request-Timeout shortens the wait for the body: 504 long before the server's limit."""
    http, _ = running
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: 0.2\r\nContent-Length: 1000\r\n\r\n"
    started = time.perf_counter()
    answer = _raw(http, head + b"only this")
    assert time.perf_counter() - started < LIMIT_S
    assert answer.startswith(b"HTTP/1.1 504"), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "deadline_exceeded"


@pytest.mark.parametrize(("nbytes", "kept"), [(900_000, True), (1_900_000, False)])
def test_a_short_body_that_nobody_asked_for_costs_no_connection(
    running: Server, nbytes: int, kept: bool
) -> None:
    """Refused by its query, it is thrown away as it comes, and the next request is served; a long one is cut off."""
    http, _ = running
    with contextlib.closing(
        HTTPConnection(http.base_url.host, http.base_url.port, timeout=PATIENCE_S)
    ) as connection:
        connection.putrequest("POST", "/v1/detect?conf=7")
        connection.putheader("Content-Length", str(nbytes))
        connection.endheaders()
        refusal = connection.getresponse()
        assert (refusal.status, refusal.will_close) == (422, not kept)
        refusal.read()
        if kept:
            connection.send(bytes(nbytes))
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200


def test_a_caller_that_leaves_breaks_nothing(running: Server) -> None:
    """Twenty half requests, each cut in the middle of the body."""
    http, _ = running
    for _ in range(20):
        with socket.create_connection(
            (http.base_url.host, http.base_url.port or 80), timeout=PATIENCE_S
        ) as sock:
            sock.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + GOOD[:50])


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    ],
)
def test_what_is_no_http_is_no_500(running: Server, data: bytes) -> None:
    """Garbage on the socket is a client's error or a closed connection."""
    http, _ = running
    answer = _raw(http, data, seconds=5)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
