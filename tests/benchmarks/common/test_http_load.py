"""The generator of load against real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from benchmarks.common.cases import CASES, body, request
from benchmarks.common.http_load import BadAnswer, ask, drive, length_of, unchunked

ASKED = request("/x", b"0123456789" * 100_000, {"Content-Type": "image/jpeg"})


@contextmanager
def _server(answer: bytes, pieces: int = 1) -> Iterator[int]:
    """Answers every whole request on every connection with `answer`, sent in so many pieces; its port."""

    def talk(connection: socket.socket) -> None:
        with closing(connection), suppress(ConnectionError):  # a client that has seen enough
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                got = 0
                while got < len(ASKED):
                    data = connection.recv(1 << 16)
                    if not data:
                        return
                    got += len(data)
                step = -(-len(answer) // pieces)
                for at in range(0, len(answer), step):
                    connection.sendall(answer[at : at + step])

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _answer(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_answers_come_whole_however_they_are_cut(size: int, pieces: int) -> None:
    """Heads and bodies may be split anywhere, and be larger than the buffer."""
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with _server(_answer(content), pieces) as port:
        assert ask(port, ASKED) == content


def test_chunked_answers_are_put_together() -> None:
    """Some servers send no length."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with _server(head + b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n", 3) as port:
        assert ask(port, ASKED) == b"hello world"
    assert unchunked(b"0\r\n\r\n") == b""


def test_every_connection_asks_until_the_time_is_over() -> None:
    """At least one request a connection is counted, and each has a latency."""
    with _server(_answer(b"ok")) as port:
        once = drive(port, [ASKED], 4, 0)
        for seconds in (0.3, 3, 30):  # the longer ones on a busy machine
            more = drive(port, [ASKED, ASKED], 2, seconds)
            if len(more.samples_ms) > 4:
                break
    assert len(once.samples_ms) == 4
    assert len(more.samples_ms) > 4
    assert more.wall_s >= seconds
    assert more.rate == len(more.samples_ms) / more.wall_s
    assert all(0 < sample <= 1000 * more.wall_s for sample in more.samples_ms)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy", "503 Service Unavailable.*busy"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "without a length"),
    ],
)  # fmt: skip
def test_what_is_no_answer_ends_the_run(answer: bytes, said: str) -> None:
    """A target that refuses would otherwise look fast."""
    with _server(answer) as port, pytest.raises(BadAnswer, match=said):
        drive(port, [ASKED], 2, 1)


def test_a_length_is_found_whatever_its_case() -> None:
    """Header names are written in any case."""
    assert length_of(b"HTTP/1.1 200 OK\r\nContent-LENGTH: 17\r\n\r\n") == 17
    assert length_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n") is None


@pytest.mark.parametrize("name", CASES)
def test_requests_are_whole(name: str) -> None:
    """The length that a request says is that of its body, and a form has a part for every frame."""
    case = CASES[name]
    for frames in case.frames():
        content, kind = body(case, frames)
        head, _, rest = request(case.path, content, {"Content-Type": kind}).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(rest)}".encode() in head
        assert all(frame in rest for frame in frames)
        assert rest.count(b"Content-Disposition") == len(case.parts)
    assert len({tuple(frames) for frames in case.frames()}) == len(case.frames())
