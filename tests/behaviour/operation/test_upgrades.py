"""Offers to change the protocol, which nobody here takes: the request itself is answered, and nothing in it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.servers.gateway import png, scene, server
from support.servers.raw_http import Line

FRAME = png(scene(320, 320, (1, 64, 96, 32)))
PROMPTS = b'{"prompts":["a cat"]}'
# What Java's HttpClient and `curl --http2` send with every plain request.
JAVA = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
OFFERS = {
    "java": JAVA,
    "h2c": b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "tls": b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "several": b"Connection: upgrade\r\nUpgrade: h2c, websocket, TLS/1.0\r\n",
    "several headers": b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
    "odd case": b"cOnNeCtIoN:uPgRaDe\r\nUPGRADE:   H2C  \r\n",
    "made up": b"Connection: Upgrade\r\nUpgrade: teapot/9\r\n",
    "proxy": b"Proxy-Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "empty": b"Connection: Upgrade\r\nUpgrade:\r\n",
}
NEXT = b"GET /v1/branches?width=7&height=7 HTTP/1.1\r\nHost: inner\r\n\r\n"


@pytest.fixture(scope="module")
def port(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a gateway that runs every family."""
    with server(all_families, tmp_path_factory.mktemp("gateway") / "log") as (http, _):
        yield _port(http)


def _port(http: httpx2.Client) -> int:
    assert http.base_url.port is not None
    return http.base_url.port


def post(offer: bytes, body: bytes = FRAME, path: bytes = b"/v1/detect", version: bytes = b"1.1") -> bytes:
    head = b"POST %s HTTP/%s\r\nHost: gateway\r\n%sContent-Length: %d\r\n\r\n"
    return head % (path, version, offer, len(body)) + body


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_changes_no_answer(port: int, offer: bytes) -> None:
    """The body is read, the answer is HTTP/1.1 200 and no 101, and the connection takes the next request."""
    with Line(port) as line:
        first = line.send(post(offer)).answer()
        assert (first.version, first.status) == ("HTTP/1.1", 200), first.body
        assert len(first.json()["detections"]) == 1
        assert "upgrade" not in first.headers
        assert line.send(post(offer)).answer().json()["detections"] == first.json()["detections"]
        assert line.send(post(b"")).answer().status == 200


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (b"/v1/depth", FRAME, b"image/png"),
        (b"/v1/clip/text", PROMPTS, b"application/json"),
        (b"/v1/clip/image", FRAME, b"image/png"),
        (b"/v1/places", FRAME, b"image/png"),
    ],
)
def test_an_offer_changes_no_answer_of_another_family(
    port: int, path: bytes, body: bytes, kind: bytes
) -> None:
    """Every route that takes a body reads it."""
    with Line(port) as line:
        answer = line.send(post(JAVA + b"Content-Type: " + kind + b"\r\n", body, path)).answer()
        assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/metrics", b"/v1/branches", b"/openapi.json"])
def test_an_offer_without_a_body_is_answered_at_once(port: int, path: bytes) -> None:
    """A GET needs nothing more, and the connection goes on."""
    with Line(port) as line:
        request = b"GET %s HTTP/1.1\r\nHost: gateway\r\n%s\r\n" % (path, JAVA)
        assert [line.send(request).answer().status for _ in range(2)] == [200, 200]


def test_a_body_may_come_later(port: int) -> None:
    """Head and body in pieces of their own, and cut within the offer."""
    request = post(JAVA)
    with Line(port) as line:
        for piece in (request[:70], request[70:90], request[90:400], request[400:]):
            line.send(piece)
        assert line.answer().status == 200


def test_a_chunked_body_is_read(port: int) -> None:
    """The length need not be known; the request after it is the caller's own."""
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(FRAME), FRAME)
    head = b"POST /v1/detect HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n" + JAVA + b"\r\n"
    with Line(port) as line:
        assert line.send(head, chunks, NEXT).answer().status == 200
        assert "families" in line.answer().json()


def test_100_is_sent_for_a_body_that_waits_for_it(port: int) -> None:
    """An offer and an expectation in one head."""
    head, _, body = post(JAVA + b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with Line(port) as line:
        assert line.send(head + b"\r\n\r\n").answer().status == 100
        assert line.send(body).answer().status == 200


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_request_in_a_body_is_not_run(port: int, offer: bytes) -> None:
    """A body that reads like a request is a body: one answer, to the request that carries it."""
    with Line(port) as line:
        line.send(post(offer, NEXT), post(b"Connection: close\r\n"))
        refused, served = line.answer(), line.answer()
        assert (refused.status, refused.json()["code"]) == (415, "unsupported_media_type")
        assert len(served.json()["detections"]) == 1
        assert line.over()


def test_requests_that_were_sent_together_are_answered_in_order(port: int) -> None:
    """Offers among them, in one piece: as many answers as requests, each to its own."""
    whole = b"".join(
        [post(JAVA), NEXT, post(b""), post(OFFERS["websocket"]), post(JAVA, b"no picture"), NEXT]
    )
    with Line(port) as line:
        line.send(whole)
        answers = [line.answer() for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 415, 200]
    assert ["detections" in answer.json() for answer in answers] == [True, False, True, True, False, False]


def test_an_offer_in_http_1_0_is_ignored_too(port: int) -> None:
    """The answer ends the connection, as every answer to HTTP/1.0 does."""
    with Line(port) as line:
        assert line.send(post(JAVA, version=b"1.0")).answer().status == 200
        assert line.over()


@pytest.mark.parametrize("extra", [b"", b"Content-Length: 70\r\n", JAVA])
def test_a_tunnel_is_refused(port: int, extra: bytes) -> None:
    """CONNECT is a 405; what was meant for the tunnel is not run, and the connection ends."""
    head = b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n" + extra + b"\r\n"
    with Line(port) as line:
        refused = line.send(head + NEXT).answer()
        assert (refused.status, refused.json()["code"]) == (405, "method_not_allowed")
        assert line.over()


@pytest.mark.parametrize(
    "extra",
    [
        b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, identity\r\n", b"Content-Length: 3,3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Host: other\r\n",
    ],
)  # fmt: skip
def test_an_offer_excuses_no_faulty_head(port: int, extra: bytes) -> None:
    """A head that is refused without an offer is refused with one: 400, and the connection ends."""
    head = b"POST /v1/detect HTTP/1.1\r\nHost: gateway\r\n" + JAVA + extra + b"\r\n"
    with Line(port) as line:
        refused = line.send(head + NEXT).answer()
        assert (refused.status, refused.json()["code"]) == (400, "invalid_request")
        assert line.over()


def test_thousands_of_offers_at_once_are_parsed_in_time(port: int) -> None:
    """Each costs a new parser, and none copies what follows it."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with Line(port) as line:
        line.send(request * 2000)
        assert {line.answer().status for _ in range(2000)} == {200}
