"""A real server against callers who are slow on purpose: each is cut off, not too soon, and it serves on.

These tests fail when the server waits as long as such a caller likes, not when it is a second late on a busy machine.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support import videos
from support.servers.gateway import png, scene, server
from support.waiting import PATIENCE_S, eventually

GOOD = png(scene(320, 320, (1, 64, 96, 32)))
IDLE_S, REQUEST_S = 1.0, 1.5
HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n"
Server = tuple[httpx2.Client, int]


@pytest.fixture(scope="module")
def running(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`gateway serve` with a short limit on idle connections."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    limits = {"idle_timeout_s": IDLE_S, "request_timeout_s": PATIENCE_S, "video_decoders": 1}
    with server(all_families, log, **limits) as started:
        yield started


@pytest.fixture(autouse=True)
def lives(running: Server) -> Iterator[None]:
    """All the while, /livez is answered; afterwards a frame is served."""
    http, _ = running
    stop, statuses = threading.Event(), []

    def probe() -> None:
        while not statuses or not stop.wait(0.05):
            statuses.append(_served(http, "GET", "/livez"))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert {*statuses} == {200}
    assert _served(http, "POST", "/v1/detect", content=GOOD) == 200


def _served(http: httpx2.Client, method: str, path: str, **request: Any) -> int:
    """Ask on a connection of its own, again where this process was too slow for the idle time; return the status."""
    for _ in range(10):
        with (
            contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError),
            httpx2.Client(base_url=http.base_url, timeout=PATIENCE_S) as own,
        ):
            return own.request(method, path, **request).status_code
    return 0


def _connect(http: httpx2.Client, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(PATIENCE_S)
    sock.connect((http.base_url.host, http.base_url.port))
    return sock


def _trickle(sock: socket.socket, data: bytes, pause: float = 0.05) -> bytes:
    """Send a byte at a time until the server has had enough; return what it said."""
    limit = time.monotonic() + PATIENCE_S
    sock.settimeout(pause)
    said = b""
    for byte in itertools.cycle(data):
        assert time.monotonic() < limit, "the server waits as long as its caller likes"
        try:
            sock.sendall(bytes([byte]))
            part = sock.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if not part:
            break
        said += part
        if _whole(said):
            break
    return said


def _whole(said: bytes) -> bool:
    """True if that is an answer in JSON with its end."""
    return said.partition(b"\r\n\r\n")[2].endswith(b"}")


@pytest.mark.parametrize("data", [b"X-A: slowly\r\n", b"\r\n", b"X" * 200], ids=["lines", "empty", "a word"])
def test_a_head_that_comes_a_byte_at_a_time_is_cut_off(running: Server, data: bytes) -> None:
    """After GATEWAY_IDLE_TIMEOUT_S, however steadily the bytes come."""
    http, _ = running
    started = time.monotonic()
    with _connect(http) as sock:
        if data != b"\r\n":
            sock.sendall(HEAD)
        said = _trickle(sock, data)
    assert time.monotonic() - started > IDLE_S - 0.2
    assert not said


def test_two_hundred_half_heads_are_all_cut_off(running: Server) -> None:
    """None is left after the idle time: neither those that say nothing nor those in the middle of a line."""
    http, pid = running
    before = psutil.Process(pid).num_fds()
    socks = [_connect(http) for _ in range(200)]
    try:
        for number, sock in enumerate(socks):
            with contextlib.suppress(ConnectionError):  # the first may be over already
                sock.sendall((HEAD + b"X-Half: o")[: number % 60])
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        eventually(lambda: psutil.Process(pid).num_fds() <= before + 5)
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 100000\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 100000\r\nContent-Type: multipart/form-data; boundary=XX\r\n",
    ],
    ids=["raw", "chunked", "form"],
)
@pytest.mark.parametrize("steady", [True, False], ids=["trickles", "stops"])
def test_a_body_that_takes_its_time_is_answered_504(running: Server, head: bytes, steady: bool) -> None:
    """After the time of the request, in stage `receive`; and the connection is over soon after."""
    http, _ = running
    part = b'--XX\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"a" * 300
    started = time.monotonic()
    with _connect(http) as sock:
        sock.sendall(HEAD + b"X-Request-Timeout: %g\r\n" % REQUEST_S + head + b"\r\n")
        data = b"1\r\na\r\n" if b"chunked" in head else part
        if steady:
            said = _trickle(sock, data)
        else:
            sock.sendall(data[: len(data) // 6 * 6])
            said = sock.recv(65536)
            while not _whole(said):
                said += sock.recv(65536)
        assert time.monotonic() - started > REQUEST_S - 0.2
        assert said.startswith(b"HTTP/1.1 504 "), said[:200]
        assert b'"stage":"receive"' in said
        _trickle(sock, data)


@pytest.mark.parametrize("what", ["header", "line", "trailers", "chunks"])
def test_a_head_without_end_is_refused(running: Server, what: str) -> None:
    """64 KiB, then it is a 400 and over; trailers and what chunks say of themselves count as well."""
    http, pid = running
    before = psutil.Process(pid).memory_info().rss
    start, piece = {
        "header": (HEAD + b"X-A: ", b"a" * 65536),
        "line": (b"GET /", b"a" * 65536),
        "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 8192),
        "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536),
    }[what]
    said, sent = b"", 0
    with _connect(http) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(start)
        for _ in range(500):
            sent += len(piece)
            sock.sendall(piece)
        said = sock.recv(65536)
    assert sent < 500 * 65536
    assert said[:12] in (b"", b"HTTP/1.1 400")  # empty: it was reset before it was read
    assert psutil.Process(pid).memory_info().rss - before < 20_000_000


def test_a_large_body_may_follow_a_larger_one(running: Server) -> None:
    """Bodies of earlier requests on the same connection count for nothing, however the data is cut into pieces."""
    http, _ = running
    with httpx2.Client(base_url=http.base_url, timeout=PATIENCE_S) as one:
        statuses = [one.post("/v1/detect", content=bytes(size)).status_code for size in (4 << 20, 1 << 20)]
    assert statuses == [415, 415]


def test_an_answer_that_nobody_takes_is_cut_off(running: Server) -> None:
    """Megabytes of depth for callers who don't read: memory and connections are given back after the idle time, and
    every lease serves others meanwhile.
    """
    http, pid = running
    path = b"/v1/depth?branch=256&size=frame"
    large = png(scene(1600, 1200))
    request = b"POST %s HTTP/1.1\r\nHost: x\r\nAccept: application/x-npy\r\nContent-Length: %d\r\n\r\n"
    process = psutil.Process(pid)
    before = process.num_fds()
    socks = [_connect(http, 4096) for _ in range(8)]
    try:
        for sock in socks:
            sock.sendall(request % (path, len(large)) + large)
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                sock.recv(1, socket.MSG_PEEK)  # its answer has begun
        assert _served(http, "POST", "/v1/depth?branch=256&size=branch", content=GOOD) == 200
        eventually(lambda: process.num_fds() <= before + 2)
    finally:
        for sock in socks:
            sock.close()


def test_a_stream_that_nobody_takes_gives_its_decoder_back(running: Server, tmp_path: Path) -> None:
    """NDJSON of a long video to a caller who doesn't read: the one decoder is free again after the idle time."""
    http, _ = running
    video = videos.count(tmp_path / "long.mp4", 1000).read_bytes()
    head = HEAD.replace(b"detect", b"clip/image") + b"Content-Type: video/mp4\r\nContent-Length: %d\r\n\r\n"
    with _connect(http, 4096) as sock:
        sock.sendall(head % len(video) + video)
        assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        eventually(lambda: _stream(http, video) == 200)
        sock.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            said = b""
            while part := sock.recv(65536):
                said = said[-5:] + part
            assert not said.endswith(b"0\r\n\r\n")  # it was cut off, and didn't end by itself


def _stream(http: httpx2.Client, video: bytes) -> int:
    return _served(http, "POST", "/v1/detect?end=0.2", content=video, headers={"content-type": "video/mp4"})


def test_requests_in_one_packet_are_answered_one_after_another(running: Server) -> None:
    """Pipelined, the second one's body there before the first is answered, and the third's in pieces."""
    http, _ = running
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    with contextlib.closing(_connect(http)) as sock:
        sock.sendall(one + one + one[:-10])
        time.sleep(0.05)
        sock.sendall(one[-10:-5])
        time.sleep(0.05)
        sock.sendall(one[-5:])
        said = b""
        while said.count(b"HTTP/1.1 200 OK") < 3 or not said.endswith(b"}"):
            part = sock.recv(65536)
            assert part, said
            said += part
    assert said.count(b'"detections"') == 3
