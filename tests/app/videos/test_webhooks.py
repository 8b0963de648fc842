"""Webhooks are signed, retried, and repeated after a restart; a bad receiver holds nothing up."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.servers.authority import HERE, Authority
from support.servers.receiver import Receiver, receiving
from support.waiting import eventually

from app.addresses import networks
from app.errors import InvalidParameter, UrlRefused, VideosUnavailable
from app.keys import signing
from app.outgoing import SocketAddress, UrlGuard, resolve
from app.state.callbacks import Callback
from app.state.jobs import Job, JobIndex
from app.videos.webhooks import WebhookOptions, Webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # of the specification's example
OTHER = "whsec_" + "QUJD" * 8
GUARD = UrlGuard(("127.0.0.1",), networks("127.0.0.0/8"), setting="GATEWAY_WEBHOOK_HOSTS")
OPTIONS = WebhookOptions(GUARD, signing.secrets(SECRET), limit_s=30.0, retry_s=0.01, give_up_s=3600.0)
Start = Callable[..., Webhooks]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[JobIndex]:
    opened = JobIndex.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def start(index: JobIndex) -> Iterator[Start]:
    """Starts deliveries over the index; closed at the end."""
    with contextlib.ExitStack() as stack:

        def build(observe: Callable[[str], None] = lambda _: None, **changes: object) -> Webhooks:
            webhooks = Webhooks(lambda: index, replace(OPTIONS, **changes), observe)  # type: ignore[arg-type]
            webhooks.start()
            stack.callback(webhooks.close)
            return webhooks

        yield build


def finished(index: JobIndex, url: str, name: str = "a", state: str = "done") -> None:
    """A job that is over, with a callback."""
    now = time.time()
    job = Job(
        name,
        state,
        "holiday.mp4",
        "p",
        1,
        "00",
        now,
        now,
        now,
        code=None if state == "done" else "invalid_video",
    )
    assert index.add(job, 10, url)


def callback(index: JobIndex, name: str = "a") -> Callback:
    found = index.callbacks.get(name)
    assert found is not None
    return found


def test_signatures_are_those_of_the_specification() -> None:
    """The example of Standard Webhooks, and one signature for each secret."""
    args = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    signed = signing.signature(signing.secrets(f"{SECRET} {OTHER}"), *args)
    first, second = signed.split(" ")
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert second == signing.signature(signing.secrets(OTHER), *args)


@pytest.mark.parametrize("text", ["secret", "whsec_=", "whsec_YQ==", "whsec_%%%%", SECRET[6:], f"{SECRET} x"])
def test_what_is_no_secret_is_refused(text: str) -> None:
    """The message doesn't repeat it."""
    with pytest.raises(ValueError, match="24 to 64 bytes") as refusal:
        signing.secrets(text)
    assert text not in str(refusal.value)


def test_a_finished_job_is_told(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """Once, signed, with the state and links of the job."""
    outcomes: list[str] = []
    finished(index, receiver.url)
    finished(index, receiver.url, "b", "failed")
    start(outcomes.append)
    eventually(lambda: outcomes == ["delivered"] * 2)
    assert (callback(index).state, callback(index).status, callback(index).attempts) == ("delivered", 204, 1)
    told = {}
    for headers, body in receiver.seen:
        document = json.loads(body)
        told[document["type"]] = document["data"]
        name, moment = headers["webhook-id"], int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signing.signature(OPTIONS.keys, name, moment, body)
        assert abs(moment - time.time()) < 3600
        assert (name, headers["content-type"]) == (f"msg_{document['data']['id']}", "application/json")
    assert told["video.done"]["links"] == {
        "self": "/v1/videos/a",
        "manifest": "/v1/videos/a/artifacts/manifest.json",
    }
    assert told["video.failed"]["error"]["code"] == "invalid_video"


def test_a_job_that_runs_is_not_told(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """Nor one that was deleted; its end is due at once when it comes."""
    now = time.time()
    index.add(Job("a", "queued", "v", "p", 1, "00", now), 10, receiver.url)
    finished(index, receiver.url, "deleted")
    index.mark_deleted("deleted")
    start()
    taken = index.claim(now)
    assert taken is not None
    finished(index, receiver.url, "other")
    eventually(lambda: callback(index, "other").state == "delivered")
    assert (callback(index).attempts, callback(index, "deleted").attempts) == (0, 0)
    index.finish(taken, "done", time.time(), 0, None)
    eventually(lambda: callback(index).state == "delivered")


def test_errors_are_retried(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """The same message until the receiver takes it; redirects aren't followed."""
    outcomes: list[str] = []
    receiver.answers = [500, (302, {"location": receiver.url}), (503, {"retry-after": "0"}), 404, 200]
    finished(index, receiver.url)
    start(outcomes.append)
    eventually(lambda: callback(index).state == "delivered")
    assert (callback(index).attempts, callback(index).status, callback(index).error) == (5, 200, None)
    assert outcomes == ["retried"] * 4 + ["delivered"]
    assert len({(headers["webhook-id"], body) for headers, body in receiver.seen}) == 1
    assert len(receiver.seen) == 5


def test_the_receiver_says_when(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """Retry-After moves the next attempt, and the job says why and when."""
    receiver.answers = [(429, {"retry-after": "1800"})]
    finished(index, receiver.url)
    start()
    eventually(lambda: callback(index).error is not None)
    row = callback(index)
    assert (row.state, row.status, row.error) == ("waiting", 429, "the receiver answered 429")
    assert row.attempted is not None
    assert 1700 < row.due - row.attempted < 1900


@pytest.mark.parametrize("reason", ["time", "gone"])
def test_a_receiver_is_given_up(index: JobIndex, receiver: Receiver, start: Start, reason: str) -> None:
    """When the time is up, or when it answers 410."""
    outcomes: list[str] = []
    receiver.answers = [410 if reason == "gone" else 500]
    finished(index, receiver.url)
    start(outcomes.append, give_up_s=0.0 if reason == "time" else 3600.0)
    eventually(lambda: callback(index).state == "failed")
    eventually(lambda: outcomes == ["given_up"])
    assert callback(index).attempts == 1


def test_a_restart_repeats_what_was_cut_off(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """Closing waits for no receiver; the next start sends the same message again."""
    receiver.hang = True
    finished(index, receiver.url)
    first = start(limit_s=3600.0)
    eventually(lambda: len(receiver.seen) == 1)
    first.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "webhook"]
    assert (callback(index).state, callback(index).error) == (
        "waiting",
        "the service stopped during the attempt",
    )
    receiver.hang = False
    start()
    eventually(lambda: callback(index).state == "delivered")
    (before, body), (after, again) = receiver.seen
    assert (before["webhook-id"], body) == (after["webhook-id"], again)


def test_a_killed_worker_s_attempt_is_repeated(
    tmp_path: Path, index: JobIndex, receiver: Receiver, start: Start
) -> None:
    """A living worker's is left alone."""
    other = JobIndex.in_folder(tmp_path)
    finished(index, receiver.url)
    assert other.callbacks.claim(time.time()) is not None
    assert index.callbacks.claim(time.time()) is None
    other.close()
    start()
    eventually(lambda: callback(index).state == "delivered")
    assert callback(index).attempts == 2


def test_a_receiver_that_hangs_holds_up_no_other(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """Others are told meanwhile."""
    receiver.hang = True
    finished(index, receiver.url)
    with receiving() as other:
        start(limit_s=3600.0)
        eventually(lambda: len(receiver.seen) == 1)
        finished(index, other.url, "b")
        eventually(lambda: callback(index, "b").state == "delivered")
    assert (callback(index).state, callback(index).attempts, callback(index).error) == ("waiting", 1, None)


def test_a_receiver_that_hangs_ends_in_time(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """The attempt fails after its limit."""
    receiver.hang = True
    finished(index, receiver.url)
    start(limit_s=0.3, retry_s=3600.0)
    eventually(lambda: callback(index).error is not None)
    assert (callback(index).error, callback(index).status) == ("no answer in time", None)


def test_a_receiver_that_drips_ends_in_time(index: JobIndex, start: Start) -> None:
    """A byte now and then doesn't extend the limit."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.01):
                    connection.sendall(b"x-a: b\r\n"[:1])

        thread = threading.Thread(target=drip)
        thread.start()
        finished(index, f"http://127.0.0.1:{listening.getsockname()[1]}/")
        start(limit_s=0.5, retry_s=3600.0)
        eventually(lambda: callback(index).error is not None)
        stop.set()
        thread.join()
    assert callback(index).error == "no answer in time"


def test_answers_that_are_no_http(index: JobIndex, start: Start) -> None:
    """Words and a refused connection have their reasons; none names an address."""
    start(retry_s=3600.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        finished(index, f"http://127.0.0.1:{listening.getsockname()[1]}/")
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(b"hello\r\n\r\n")
        connection.close()
        eventually(lambda: callback(index).error == "the receiver's answer is no HTTP")
    with socket.socket() as bound:  # it doesn't listen, so it refuses
        bound.bind(("127.0.0.1", 0))
        for name, scheme in (("b", "http"), ("c", "https")):
            finished(index, f"{scheme}://127.0.0.1:{bound.getsockname()[1]}/", name)
            eventually(lambda name=name: callback(index, name).error == "the connection was refused")


def test_a_trouble_of_ours_costs_an_attempt_at_most(
    index: JobIndex, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index can't be read, a defect, no thread: the delivery is made later, and none is lost."""
    troubles = [VideosUnavailable("busy"), ZeroDivisionError(), RuntimeError("can't start new thread")]
    get, start = JobIndex.get, threading.Thread.start

    def flaky_get(self: JobIndex, job_id: str) -> Job | None:
        if len(troubles) > 1:
            raise troubles.pop(0)
        return get(self, job_id)

    def flaky_start(thread: threading.Thread) -> None:
        if thread.name == "webhook" and len(troubles) == 1:
            raise troubles.pop()
        start(thread)

    monkeypatch.setattr(JobIndex, "get", flaky_get)
    monkeypatch.setattr(threading.Thread, "start", flaky_start)
    finished(index, receiver.url)
    webhooks = Webhooks(lambda: index, OPTIONS, lambda _: None)
    webhooks.start()
    eventually(lambda: callback(index).state == "delivered")
    webhooks.close()
    assert (callback(index).attempts, len(receiver.seen), troubles) == (4, 1, [])


def test_an_address_is_judged_at_every_attempt(index: JobIndex, receiver: Receiver, start: Start) -> None:
    """A name that had a good address when the video came, and has a bad one later, isn't called."""
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])
    answers: list[list[SocketAddress]] = [
        [(socket.AF_INET, ("8.8.8.8", port))], [(socket.AF_INET, ("127.0.0.1", port))],
    ]  # fmt: skip
    judge = UrlGuard(("a.example",), (), setting="GATEWAY_X", resolve=lambda *_: answers.pop(0))
    webhooks = start(guard=judge, retry_s=3600.0)
    webhooks.check(f"http://a.example:{port}/")
    finished(index, f"http://a.example:{port}/")
    eventually(lambda: callback(index).error is not None)
    assert "special address" in (callback(index).error or "")
    assert receiver.seen == []


@pytest.mark.parametrize("hosts", [("other.example",), ()])
def test_a_host_that_is_no_longer_listed_is_refused(
    index: JobIndex, receiver: Receiver, start: Start, hosts: tuple[str, ...]
) -> None:
    """The first attempt under the new settings ends it, with the reason; nothing is sent."""
    outcomes: list[str] = []
    finished(index, receiver.url)
    start(outcomes.append, guard=UrlGuard(hosts, networks("127.0.0.0/8"), setting="GATEWAY_X"))
    eventually(lambda: outcomes == ["refused"])
    row = callback(index)
    assert (row.state, row.status, row.attempts, row.owner) == ("refused", None, 1, None)
    assert "'127.0.0.1' may not be called: GATEWAY_X" in (row.error or "")
    assert receiver.seen == []


def test_what_waits_is_refused_where_no_host_is_listed(tmp_path: Path, index: JobIndex) -> None:
    """Whatever waits, but for an attempt that another worker makes; a dead worker's goes, too."""
    finished(index, "http://127.0.0.1/")
    index.add(Job("b", "queued", "v", "p", 1, "00", time.time()), 10, "http://127.0.0.1/")
    other = JobIndex.in_folder(tmp_path)
    assert other.callbacks.claim(time.time()) is not None
    assert index.callbacks.refuse("no host") == 1
    assert [callback(index, name).state for name in ("a", "b")] == ["waiting", "refused"]
    other.close()
    assert (index.callbacks.refuse("no host"), index.callbacks.refuse("no host")) == (1, 0)
    assert (callback(index).state, callback(index).error, callback(index).owner) == (
        "refused",
        "no host",
        None,
    )


@pytest.mark.parametrize("certificate", ["right", "of another authority", "of another host"])
def test_a_message_goes_over_tls_to_the_right_receiver_only(
    index: JobIndex, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: str
) -> None:
    """The authority that SSL_CERT_FILE names has signed for the host; with any other certificate nothing is sent."""
    ours = Authority(tmp_path / "ours")
    signer = Authority(tmp_path / "theirs") if certificate == "of another authority" else ours
    signed = signer.signed("x", "DNS:other.example" if certificate == "of another host" else HERE)
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.ca))
    with receiving(signed) as receiver:
        finished(index, receiver.url)
        start(retry_s=3600.0)
        eventually(lambda: callback(index).status is not None or callback(index).error is not None)
        row = callback(index)
        if certificate == "right":
            assert (row.state, row.status, len(receiver.seen)) == ("delivered", 204, 1)
        else:
            assert (row.state, row.status) == ("waiting", None)
            assert row.error == "the receiver's certificate can't be verified"
            assert receiver.seen == []


def test_urls_are_checked_when_they_come(start: Start) -> None:
    """By their form, host and addresses; a name server that is away is no reason to refuse."""

    def no_server(host: str, port: int) -> list[SocketAddress]:
        if host.endswith(".example"):
            number = socket.EAI_NONAME if host == "none.example" else socket.EAI_AGAIN
            raise socket.gaierror(number, "of the resolver")
        return resolve(host, port)

    judge = UrlGuard(("*",), (), setting="GATEWAY_X", resolve=no_server)
    webhooks = start(guard=judge)
    webhooks.check("https://away.example/")
    for url, kind in [
        ("https://none.example/", UrlRefused), ("http://127.0.0.1/", UrlRefused), ("words", InvalidParameter),
    ]:  # fmt: skip
        with pytest.raises(kind):
            webhooks.check(url)


def test_a_callback_goes_with_its_job(index: JobIndex) -> None:
    """Nothing is left of a job that was removed."""
    finished(index, "http://127.0.0.1/")
    index.mark_deleted("a")
    index.remove("a")
    assert index.callbacks.get("a") is None
