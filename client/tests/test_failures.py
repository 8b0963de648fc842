"""Refusals of a real gateway, connections that break, deadlines, and what is sent again."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path
from typing import Any

import pytest
from relays import Relay, scripted
from services import KEY, SLOW, SPENT, Service, scene

from triton_vision_gateway_client import (
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    InvalidRequest,
    NotFound,
    RateLimited,
    StreamInterrupted,
    TooLarge,
    Unauthorized,
    UnexpectedAnswer,
    UnsupportedMedia,
)

FRAME = scene((0, 64, 64))
PROFILE = {
    "schema_version": 1,
    "sampling": {"every": 10},
    "components": {"core_object_detections": {"variant": "n"}},
}


def refused(kind: type[GatewayError], call: Any, *positional: Any, **named: Any) -> GatewayError:
    """The exception of a call that the service refuses; it has the fields of a problem."""
    with pytest.raises(kind) as caught:
        call(*positional, **named)
    assert type(caught.value) is kind
    assert caught.value.request_id
    assert caught.value.detail
    return caught.value


def test_refusals_of_the_request(client: Any) -> None:
    """400, 404, 409, 415 and 422 are exceptions of their own, with the service's code."""
    assert refused(NotFound, client.detect, FRAME, branch="nonsense").code == "model_not_found"
    assert refused(InvalidRequest, client.detect, FRAME, classes=["nonsense"]).code == "invalid_parameter"
    assert refused(InvalidRequest, client.detect, FRAME, conf=7).status == 422
    assert refused(InvalidRequest, client.detect, b"\xff\xd8\xff").code == "invalid_image"
    assert refused(UnsupportedMedia, client.detect, b"text").what_to_do
    assert refused(NotFound, client.session, "nobody").code == "session_not_found"
    assert refused(NotFound, client.job, "f" * 32).code == "video_not_found"
    client.detect(FRAME, session="conflicting", timestamp=5)
    assert refused(Conflict, client.detect, FRAME, session="conflicting", timestamp=4).status == 409
    client.delete_session("conflicting")
    error = refused(InvalidRequest, client.embed_text, ["word " * 100], tokens="strict")
    assert error.code == "prompt_too_long"


def test_errors_in_openai_s_form_are_the_same_exceptions(client: Any, connect: Any, guarded: Service) -> None:
    """Also their codes."""
    assert refused(NotFound, client.embeddings, ["a"], model="ada").code == "model_not_found"
    assert refused(Unauthorized, connect(guarded.url).embeddings, ["a"]).code == "unauthorized"


def test_keys(connect: Any, guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 without one, 403 without the scope; one may come from the environment, and none is shown."""
    assert refused(Unauthorized, connect(guarded.url).detect, FRAME).status == 401
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    client = connect(guarded.url)
    assert client.detect(FRAME).class_names == ["person"]
    assert refused(Forbidden, client.repository).status == 403
    assert KEY not in repr(client.client)


def test_a_body_that_is_too_large(connect: Any, guarded: Service) -> None:
    """413, although the service doesn't read all of it."""
    error = refused(TooLarge, connect(guarded.url, api_key=KEY).detect, b"\xff\xd8\xff" + bytes(3_000_000))
    assert (error.status, error.code) == (413, "payload_too_large")


def exhaust(client: Any) -> None:
    """Call until the key's rate is used up."""
    while True:
        client.detect(FRAME)


def test_a_rate_limit_says_when_to_come_back(connect: Any, guarded: Service) -> None:
    """429 has Retry-After, in seconds."""
    client = connect(guarded.url, api_key=SPENT, timeout=20)
    with pytest.raises(RateLimited) as caught:
        exhaust(client)
    assert caught.value.status == 429
    assert caught.value.code == "rate_limited"
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 100


def test_a_rate_limit_is_waited_for(connect: Any, guarded: Service) -> None:
    """The refusal that one client gets is the wait of another."""
    hasty = connect(guarded.url, api_key=SLOW, retries=0)
    patient = connect(guarded.url, api_key=SLOW, retries=20)
    with pytest.raises(RateLimited):
        exhaust(hasty)
    assert patient.detect(FRAME).class_names == ["person"]


def test_a_lost_answer_is_asked_for_again(connect: Any, service: Service, small: Path) -> None:
    """Computing twice does no harm: detection, arrays and forms."""
    with Relay(service.port, [0, 100, None]) as relay:
        assert connect(relay.url).detect(FRAME).class_names == ["person"]
        assert relay.connections == 3
    with Relay(service.port, [0]) as relay:
        assert connect(relay.url).depth(small).values.shape == (240, 240)
    with Relay(service.port, [0]) as relay:
        assert len(connect(relay.url).detect_batch([FRAME, FRAME])) == 2


def test_a_frame_of_a_session_is_sent_once(connect: Any, service: Service) -> None:
    """It may have been counted although its answer is lost."""
    with Relay(service.port, [0]) as relay:
        client = connect(relay.url)
        with pytest.raises(ConnectionFailed) as caught:
            client.detect(FRAME, session="once", timestamp=1)
        assert caught.value.sent
        assert relay.connections == 1
        assert client.detect(FRAME, session="once", timestamp=2).session.frame == 2
        client.delete_session("once")


def test_a_job_is_submitted_once(connect: Any, service: Service, inputs: Path) -> None:
    """Although the answer is lost and the call is sent again, there is one job, not two."""
    before = {row.id for row in connect(service.url).jobs(limit=1000)}
    with Relay(service.port, [0]) as relay:
        client = connect(relay.url)
        job = client.submit(inputs / "numbered.mp4", PROFILE)
        assert {row.id for row in client.jobs(limit=1000)} - before == {job.id}
        job.wait()
        job.delete()


def test_a_submission_has_a_key_of_its_own_or_the_caller_s(
    connect: Any, service: Service, inputs: Path
) -> None:
    """Another process with the same key gets the same job; another video with it is refused."""
    first, second = connect(service.url), connect(service.url)
    job = first.submit(inputs / "numbered.mp4", PROFILE, idempotency_key='nightly "1"')
    assert second.submit(inputs / "numbered.mp4", PROFILE, idempotency_key='nightly "1"').id == job.id
    assert first.submit(inputs / "numbered.mp4", PROFILE).id != job.id
    with pytest.raises(InvalidRequest) as caught:
        second.submit(inputs / "damaged.avi", PROFILE, idempotency_key='nightly "1"')
    assert caught.value.code == "idempotency_key_reused"
    with pytest.raises(ValueError, match="idempotency_key"):
        first.submit(inputs / "numbered.mp4", PROFILE, idempotency_key="")


def test_a_removal_whose_answer_is_lost_is_done(connect: Any, service: Service) -> None:
    """The second attempt finds nothing, which is what was wanted; by itself that is an error."""
    client = connect(service.url)
    client.detect(FRAME, session="lost", timestamp=1)
    with Relay(service.port, [0]) as relay:
        connect(relay.url).delete_session("lost")
        assert relay.connections == 2
    refused(NotFound, client.delete_session, "lost")


def test_waiting_survives_broken_connections(connect: Any, service: Service, inputs: Path) -> None:
    """The events are asked for again."""
    job = connect(service.url).submit(inputs / "numbered.mp4", {**PROFILE, "sampling": {"every": 1}})
    with Relay(service.port, [2_500, 0, 700]) as relay:
        client = connect(relay.url)
        assert client.job(job.id).wait().state == "done"
        assert relay.connections > 1
    job.delete()


def test_a_video_whose_connection_breaks(connect: Any, service: Service, inputs: Path) -> None:
    """The frames that came have come, and the exception says how many."""
    with Relay(service.port, [5_000]) as relay:
        frames = connect(relay.url).detect_video(inputs / "numbered.mp4")
        seen: list[int] = []
        with pytest.raises(StreamInterrupted) as caught:
            seen.extend(frame.index for frame in frames)
        assert relay.connections == 1
    assert 0 < caught.value.frames == len(seen) == frames.received < 50
    assert seen == list(range(len(seen)))
    assert caught.value.code == "stream_interrupted"
    assert frames.summary is None


def test_a_video_is_sent_again_before_its_first_line(connect: Any, service: Service, inputs: Path) -> None:
    """A file that can be rewound is; a pipe can't."""
    path = inputs / "numbered.mp4"
    for source in (path, path.read_bytes(), path.open("rb")):
        with Relay(service.port, [0]) as relay:
            assert len(list(connect(relay.url).detect_video(source, every=25))) == 2
            assert relay.connections == 2
        if hasattr(source, "close"):
            source.close()

    class Pipe:
        def __init__(self) -> None:
            self.rest = path.read_bytes()

        def read(self, size: int) -> bytes:
            piece, self.rest = self.rest[:size], self.rest[size:]
            return piece

    with Relay(service.port, [0]) as relay:
        with pytest.raises(ConnectionFailed):
            list(connect(relay.url).detect_video(Pipe()))
        assert relay.connections == 1


def test_a_deadline_of_a_silent_service(connect: Any) -> None:
    """The client's own, and that of one call."""
    with scripted() as url:
        for call in (
            lambda: connect(url, timeout=0.2).detect(FRAME),
            lambda: connect(url).detect(FRAME, timeout=0.2),
            lambda: list(connect(url).detect_video(b"video", timeout=0.2)),
            lambda: connect(url).jobs(timeout=0.2),
        ):
            with pytest.raises(DeadlineExceeded) as caught:
                call()
            assert (caught.value.code, caught.value.status) == ("deadline_exceeded", None)


def test_a_deadline_of_an_answer_that_trickles(connect: Any) -> None:
    """The whole call is limited, not the wait for each byte."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    with scripted(head, forever=b" ") as url, pytest.raises(DeadlineExceeded):
        connect(url).detect(FRAME, timeout=0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    with scripted(head, forever=b"1\r\n\n\r\n") as url, pytest.raises(DeadlineExceeded):
        list(connect(url).detect_video(b"video", timeout=0.3))


def test_the_service_stops_when_the_time_is_over(connect: Any, service: Service) -> None:
    """It is told how much there is left; whoever notices first, it is the same exception."""
    with pytest.raises(DeadlineExceeded):
        connect(service.url).detect(FRAME, timeout=0.001)


def test_silence_ends_a_stream(connect: Any) -> None:
    """A video has no limit but that."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    with scripted(head, b"\n", forever=b"") as url:
        frames = connect(url, silence_timeout=2).detect_video(b"video")
        with pytest.raises(StreamInterrupted) as caught:
            list(frames)
    assert caught.value.frames == 0


def test_other_servers_are_told_apart(connect: Any) -> None:
    """HTML, a redirect, JSON of something else, an endless array."""
    answers = {
        b"200 OK": b"<html>hello</html>",
        b"302 Found\r\nLocation: http://elsewhere/": b"",
        b"201 Created": b"{}",
    }
    for status, body in answers.items():
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
        with scripted(head + body) as url, pytest.raises(UnexpectedAnswer):
            connect(url).detect(FRAME)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with scripted(head) as url, pytest.raises(UnexpectedAnswer):
        connect(url).depth(FRAME)


def test_a_proxy_s_refusal_is_tried_again_where_that_is_safe(connect: Any) -> None:
    """502 without a problem of the gateway; a submission has a key by which the gateway knows it again."""
    refusal = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
    with scripted(refusal) as url:
        with pytest.raises(GatewayError) as caught:
            connect(url, retries=1).detect(FRAME)
        assert (caught.value.code, caught.value.status) == ("http_502", 502)
        with pytest.raises(GatewayError):
            connect(url, retries=1).submit(b"video", "any")


def test_retry_after_as_a_date(connect: Any) -> None:
    """It is compared with the answer's own date, so clocks may differ; too long a wait is not begun."""
    now = time.time() - 1_000_000
    dates = [email.utils.formatdate(moment, usegmt=True).encode() for moment in (now, now + 3000)]
    head = (
        b"HTTP/1.1 503 Busy\r\nDate: %s\r\nRetry-After: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    with scripted(head % tuple(dates)) as url, pytest.raises(GatewayError) as caught:
        connect(url).detect(FRAME)
    assert caught.value.retry_after == 3000
