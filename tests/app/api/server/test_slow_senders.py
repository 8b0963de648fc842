"""A real server against callers who are slow on purpose: each is cut off in a known time, and it serves on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from support import videos
from support.servers.gateway import png, scene, server

GOOD = png(scene(320, 320, (1, 64, 96, 32)))
IDLE_S, REQUEST_S = 1.0, 1.5
SLACK_S = 1.5  # of a busy machine
HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n"
Server = tuple[httpx2.Client, int]


@pytest.fixture(scope="module")
def running(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`gateway serve` with short limits on time."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    limits = {"idle_timeout_s": IDLE_S, "request_timeout_s": REQUEST_S, "video_decoders": 1}
    with server(all_families, log, **limits) as started:
        yield started


@pytest.fixture(autouse=True)
def lives(running: Server) -> Iterator[None]:
    """All the while, /livez answers in less than half a second; afterwards a frame is served."""
    http, _ = running
    stop, slowest = threading.Event(), [0.0]

    def probe() -> None:
        with httpx2.Client(base_url=http.base_url, timeout=10) as own:
            while not slowest[0] or not stop.wait(0.05):
                started = time.perf_counter()
                own.get("/livez").raise_for_status()
                slowest[0] = max(slowest[0], time.perf_counter() - started)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert 0 < slowest[0] < 3  # far from the seconds that each sender here takes
    assert http.post("/v1/detect", content=GOOD).status_code == 200


def _connect(http: httpx2.Client, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(10)
    sock.connect((http.base_url.host, http.base_url.port))
    return sock


def _trickle(sock: socket.socket, data: bytes, pause: float = 0.05) -> tuple[float, bytes]:
    """Send a byte at a time until the server has had enough: after how many seconds, and what it said."""
    started = time.monotonic()
    sock.settimeout(pause)
    said = b""
    for byte in data * (1 + 200 // len(data)):
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
        if b"\r\n\r\n" in said and said.partition(b"\r\n\r\n")[2].endswith(b"}"):
            break
    return time.monotonic() - started, said


@pytest.mark.parametrize("data", [b"X-A: slowly\r\n", b"\r\n", b"X" * 200], ids=["lines", "empty", "a word"])
def test_a_head_that_comes_a_byte_at_a_time_is_cut_off(running: Server, data: bytes) -> None:
    """After GATEWAY_IDLE_TIMEOUT_S, however steadily the bytes come."""
    http, _ = running
    with _connect(http) as sock:
        if data != b"\r\n":
            sock.sendall(HEAD)
        seconds, said = _trickle(sock, data)
    assert IDLE_S - 0.2 < seconds < IDLE_S + SLACK_S
    assert not said


def test_two_hundred_half_heads_are_all_cut_off(running: Server) -> None:
    """None is left after the idle time: neither those that say nothing nor those in the middle of a line."""
    http, pid = running
    before = psutil.Process(pid).num_fds()
    socks = [_connect(http) for _ in range(200)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall((HEAD + b"X-Half: o")[: number % 60])
        limit = time.monotonic() + IDLE_S + SLACK_S
        while psutil.Process(pid).num_fds() < before + 150 and time.monotonic() < limit:
            time.sleep(0.01)
        assert psutil.Process(pid).num_fds() >= before + 150
        while psutil.Process(pid).num_fds() > before + 5 and time.monotonic() < limit:
            time.sleep(0.05)
        assert psutil.Process(pid).num_fds() <= before + 5
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
    """After GATEWAY_REQUEST_TIMEOUT_S, in stage `receive`; and the connection is over soon after."""
    http, _ = running
    part = b'--XX\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"a" * 300
    with _connect(http) as sock:
        sock.sendall(HEAD + head + b"\r\n")
        data = b"1\r\na\r\n" if b"chunked" in head else part
        if steady:
            seconds, said = _trickle(sock, data)
        else:
            sock.sendall(data[: len(data) // 6 * 6])
            started = time.monotonic()
            said = sock.recv(65536)
            seconds = time.monotonic() - started
            said += sock.recv(65536) if not said.endswith(b"}") else b""
        assert REQUEST_S - 0.2 < seconds < REQUEST_S + SLACK_S
        assert said.startswith(b"HTTP/1.1 504 "), said[:200]
        assert b'"stage":"receive"' in said
        rest, _ = _trickle(sock, data)
        assert rest < IDLE_S + SLACK_S


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
    with httpx2.Client(base_url=http.base_url) as one:
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
        time.sleep(0.6)
        answer = http.post("/v1/depth?branch=256&size=branch", content=GOOD)
        assert answer.status_code == 200
        limit = time.monotonic() + REQUEST_S + 2 * IDLE_S + SLACK_S
        while process.num_fds() > before + 2 and time.monotonic() < limit:
            time.sleep(0.05)
        assert process.num_fds() <= before + 2
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
        limit = time.monotonic() + 10
        status = 0
        while status != 429 and time.monotonic() < limit:
            time.sleep(0.05)
            status = _stream(http, video)
        assert status == 429
        while status == 429 and time.monotonic() < limit:
            time.sleep(0.1)
            status = _stream(http, video)
        assert status == 200


def _stream(http: httpx2.Client, video: bytes) -> int:
    headers = {"content-type": "video/mp4"}
    with http.stream("POST", "/v1/detect?end=0.2", content=video, headers=headers) as answer:
        return answer.status_code


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
