"""Request heads that two readers could understand differently are refused, before keys and bodies are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.servers.gateway import client, png, scene
from support.servers.listening import gateway
from support.servers.raw_http import Answer, Line

from app.api.request.headers import fault_of, length_of
from app.keys import access
from deploy.local.triton_server import free_ports

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
INNER = b"GET /livez HTTP/1.1\r\nHost: inner\r\n\r\n"
ZEROS = b"0" * 5000
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
# Head lines after the request line, with what follows them.
FAULTY = {
    "length with zeros": b"Host: x\r\nContent-Length: " + ZEROS + b"5\r\n\r\nhello",
    "length of zeros": b"Host: x\r\nContent-Length: " + ZEROS + b"\r\n\r\n",
    "length over 64 bits": b"Host: x\r\nContent-Length: 18446744073709551616\r\n\r\nhello",
    "length with sign": b"Host: x\r\nContent-Length: +5\r\n\r\nhello",
    "length list": b"Host: x\r\nContent-Length: 5,5\r\n\r\nhello",
    "length list, spaced": b"Host: x\r\nContent-Length: 5, 6\r\n\r\nhello",
    "length in hex": b"Host: x\r\nContent-Length: 0x5\r\n\r\nhello",
    "length, underscores": b"Host: x\r\nContent-Length: 1_0\r\n\r\nhello",
    "length, other digits": b"Host: x\r\nContent-Length: \xd9\xa5\r\n\r\nhello",
    "length, empty": b"Host: x\r\nContent-Length:\r\n\r\nhello",
    "length twice": b"Host: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "lengths in conflict": b"Host: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "length, then chunked": b"Host: x\r\nContent-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n" + INNER,
    "chunked, then length": b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + INNER,
    "coding unknown": b"Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "coding identity": b"Host: x\r\nTransfer-Encoding: identity\r\n\r\n" + INNER,
    "coding not last": b"Host: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "coding before": b"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "codings in two headers": b"Host: x\r\nTransfer-Encoding: identity\r\n" + CHUNKED + b"0\r\n\r\n" + INNER,
    "chunked twice": b"Host: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunk size with sign": b"Host: x\r\n" + CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size in 0x": b"Host: x\r\n" + CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size too long": b"Host: x\r\n" + CHUNKED + b"fffffffffffffffff\r\nhello\r\n",
    "chunk ends in LF": b"Host: x\r\n" + CHUNKED + b"5\nhello\n0\n\n",
    "folded header": b"Host: x\r\nX-A: b\r\n c\r\n\r\n",
    "folded coding": b"Host: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"Host: x\nContent-Length: 5\n\nhello",
    "bare LF in a value": b"Host: x\r\nX-A: b\nContent-Length: 5\r\n\r\nhello",
    "bare CR in a value": b"Host: x\r\nX-A: b\rContent-Length: 5\r\n\r\nhello",
    "space before the colon": b"Host: x\r\nContent-Length : 5\r\n\r\nhello",
    "NUL in a value": b"Host: x\r\nX-A: \x00\r\n\r\n",
    "two hosts": b"Host: x\r\nHost: y\r\n\r\n",
    "the same host twice": b"Host: x\r\nhost: x\r\n\r\n",
    "no host": b"X-A: b\r\n\r\n",
    "hosts in a list": b"Host: x, y\r\n\r\n",
    "host with a path": b"Host: x/y\r\n\r\n",
    "host with a user": b"Host: u@x\r\n\r\n",
    "host with a space": b"Host: x y\r\n\r\n",
    "host with a word as port": b"Host: x:http\r\n\r\n",
    "host with quotes": b'Host: x"\r\n\r\n',
    "host with a bracket": b"Host: [::1\r\n\r\n",
    "host in UTF-8": "Host: b\u00fccher\r\n\r\n".encode(),
}


class Guarded:
    """A real gateway that asks for keys; its port, a key, and its log."""

    def __init__(self, port: int, key: str, log: Path) -> None:
        self.port, self.key, self._log = port, key, log
        self._read = 0

    def ask(self, data: bytes) -> tuple[Answer, bool]:
        """The answer, and whether the connection ended with it."""
        with Line(self.port) as line:
            return line.send(data).answer(), line.over()

    def said(self) -> str:
        """Lines of the log since the last call."""
        text = self._log.read_text()
        new, self._read = text[self._read :], len(text)
        return new


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Ready."""
    port, log = free_ports(1)[0], tmp_path_factory.mktemp("gateway") / "log"
    key = access.new_key()
    entry = access.entry(access.ApiKey("camera", access.digest_of(key.encode()), access.scopes_of("infer")))
    base = f"http://127.0.0.1:{port}"
    with gateway(
        repository, log, lambda: httpx2.get(f"{base}/readyz").status_code == 200, port=port, api_keys=entry
    ):
        yield Guarded(port, key, log)


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_head_is_refused_before_the_key(guarded: Guarded, name: str) -> None:
    """400 `invalid_request` as a problem, the connection ends, nothing after the head is run, no traceback."""
    guarded.said()
    answer, over = guarded.ask(b"POST /v1/detect HTTP/1.1\r\n" + FAULTY[name])
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request"), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["connection"] == "close"
    assert over
    assert "Traceback" not in guarded.said()


WELL_FORMED = {
    "length with a few zeros": b"Host: x\r\nContent-Length: 000%d\r\n\r\n" % len(FRAME) + FRAME,
    "chunked": b"Host: x\r\n" + CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(FRAME), FRAME),
    "chunk with zeros": b"Host: x\r\n" + CHUNKED + b"%s%x\r\n%s\r\n0\r\n\r\n" % (b"0" * 40, len(FRAME), FRAME),
    "chunked in capitals": b"Host: x\r\ntransfer-encoding: CHUNKED\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(FRAME), FRAME),
}  # fmt: skip


@pytest.mark.parametrize("name", WELL_FORMED)
def test_an_unusual_head_that_is_right_is_served(guarded: Guarded, name: str) -> None:
    """An odd but valid head is answered, and the connection stays open."""
    with Line(guarded.port) as line:
        for _ in range(2):
            line.send(
                b"POST /v1/detect HTTP/1.1\r\nX-API-Key: %s\r\n" % guarded.key.encode() + WELL_FORMED[name]
            )
            answer = line.answer()
            assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    "host",
    [
        "",
        "x",
        "x:8080",
        "x:",
        "127.0.0.1",
        "[::1]:80",
        "[fe80::1%25eth0]",
        "a_b.example",
        "b%C3%BCcher",
        "x.",
        "X-1",
    ],
)
def test_a_host_is_taken_as_the_rfc_writes_it(host: str) -> None:
    """RFC 3986, 3.2.2: names, addresses, an empty one; with a port or without."""
    assert fault_of("1.1", [(b"host", host.encode())]) is None


def test_http_1_0_needs_no_host(guarded: Guarded) -> None:
    """RFC 9112, 3.2."""
    assert guarded.ask(b"GET /livez HTTP/1.0\r\n\r\n")[0].status == 200


@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
def test_another_version_is_refused(guarded: Guarded, version: bytes) -> None:
    """A version that the parser knows but nobody here speaks."""
    assert guarded.ask(b"GET /livez HTTP/%s\r\nHost: x\r\n\r\n" % version)[0].status == 400


def test_chunks_in_http_1_0_are_refused(guarded: Guarded) -> None:
    """RFC 9112, 6.1: such framing is faulty."""
    answer, over = guarded.ask(b"POST /v1/detect HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"0\r\n\r\n")
    assert (answer.status, answer.json()["code"], over) == (400, "invalid_request", True)


def test_a_faulty_head_waits_for_the_answers_before_it(guarded: Guarded) -> None:
    """Requests sent before it on the same connection get their own answers first."""
    frame = WELL_FORMED["chunked"]
    good = b"POST /v1/detect HTTP/1.1\r\nX-API-Key: %s\r\n" % guarded.key.encode() + frame
    with Line(guarded.port) as line:
        line.send(good + good + b"POST /v1/detect HTTP/1.1\r\n" + FAULTY["length list"] + INNER)
        assert [line.answer().status for _ in range(3)] == [200, 200, 400]
        assert line.over()


def test_a_broken_body_ends_with_its_own_refusal(guarded: Guarded) -> None:
    """A chunk that is none, in the second of two requests: one answer each."""
    key = b"X-API-Key: %s\r\nHost: x\r\n" % guarded.key.encode()
    good = b"GET /v1/branches HTTP/1.1\r\n" + key + b"\r\n"
    with Line(guarded.port) as line:
        line.send(good + b"POST /v1/detect HTTP/1.1\r\n" + key + CHUNKED + b"+5\r\nhello\r\n" + INNER)
        assert [line.answer().status for _ in range(2)] == [200, 400]
        assert line.over()


def test_a_caller_that_waited_for_100_in_vain_gets_a_new_connection(guarded: Guarded) -> None:
    """Refused by its key, it may leave its body out; nothing else may then be taken for that body."""
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 300\r\n\r\n"
    answer, over = guarded.ask(head)
    assert (answer.status, answer.headers["connection"], over) == (401, "close", True)


def test_http_1_0_gets_no_100(guarded: Guarded) -> None:
    """RFC 9110, 10.1.1: the expectation of an HTTP/1.0 caller is ignored."""
    key = b"X-API-Key: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n" % (
        guarded.key.encode(),
        len(FRAME),
    )
    with Line(guarded.port) as line:
        assert line.send(b"POST /v1/detect HTTP/1.0\r\n" + key + b"\r\n", FRAME).answer().status == 200
        assert line.over()
    with Line(guarded.port) as line:
        line.send(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n" + key + b"\r\n")
        assert line.answer().status == 100
        assert line.send(FRAME).answer().status == 200


@pytest.mark.parametrize(
    "path", ["/metrics/", "/livez/", "/v1/branches/", "/v1/detect/", "/docs/", "/v1/videos/"]
)
def test_a_slash_at_the_end_is_another_path(repository: Path, path: str) -> None:
    """404, and no redirect to the host that the caller named."""
    with client(repository) as http:
        for method in ("GET", "POST", "HEAD"):
            answer = http.request(method, path, headers={"host": "elsewhere.example"}, follow_redirects=False)
            assert answer.status_code == 404
            assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("length", "nbytes"), [(b"5", 5), (b"0", 0), (b"007", 7), (ZEROS, float("inf")), (b"5,5", float("inf"))]
)
def test_a_length_is_read_without_harm(length: bytes, nbytes: float) -> None:
    """Thousands of digits are nobody's length."""
    assert length_of(length) == nbytes
