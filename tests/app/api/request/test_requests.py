"""Reading requests: whatever comes is frames, a time limit and a form, or an error of ours."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message
from support.waiting import PATIENCE_S

from app.api.gateway import listening
from app.api.request.requests import deadline_of, negotiate
from app.api.request.uploads import read_upload
from app.api.response.problems import CallerGone, NotAcceptable
from app.api.server.connections import GONE
from app.deadline import Deadline
from app.errors import DeadlineExceeded, GatewayError, InvalidParameter, PayloadTooLarge
from app.settings import Settings

SETTINGS = Settings(max_body_bytes=4096, max_parts=3, request_timeout_s=5)
FORM = "multipart/form-data; boundary=XX"
OFFERED = ("application/json", "image/png")


def request(chunks: Iterable[bytes] = (b"",), **headers: str) -> Request:
    """A request whose body comes in these chunks; then the sender is silent."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()
        ],
    }

    async def receive() -> Message:
        return messages.pop(0)

    return Request(scope, receive)


def frames(body: bytes, kind: str = FORM) -> list[bytes]:
    return read(request([body], content_type=kind))


def read(asked: Request, seconds: float = PATIENCE_S) -> list[bytes]:
    return asyncio.run(read_upload(asked, SETTINGS, Deadline.after(seconds))).parts["file"]


def form(*bodies: bytes, name: bytes = b"file") -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="' + name + b'"; filename="a"\r\n\r\n'
    return b"".join(head + body + b"\r\n" for body in bodies) + b"--XX--\r\n"


@given(st.lists(st.binary(max_size=200).filter(lambda body: b"--XX" not in body), min_size=1, max_size=3))
def test_parts_come_out_as_they_went_in(bodies: list[bytes]) -> None:
    """Any bytes that don't hold the boundary survive multipart, in order."""
    assert frames(form(*bodies)) == bodies


@settings(max_examples=600)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
    st.text(st.characters(max_codepoint=255), max_size=400).map(lambda word: f"multipart/form-data;{word}")
    | st.just(FORM),
)
def test_a_damaged_form_is_frames_or_an_error_of_ours(
    damage: list[tuple[int, bytes, int]], kind: str
) -> None:
    """Bytes put in, changed and taken out, and any boundary: nothing foreign is raised."""
    body = form(b"one", b"two")
    for at, patch, drop in damage:
        body = body[:at] + patch + body[at + drop :]
    try:
        found = frames(body, kind)
    except GatewayError:
        return
    assert len(found) <= 3


@pytest.mark.parametrize("length", [256, 257, 300, 4000])
def test_a_boundary_of_any_length_is_answered(length: int) -> None:
    """The parser refuses long ones in its constructor: an error of the caller like any other."""
    with pytest.raises(InvalidParameter):
        frames(form(b"one"), "multipart/form-data; boundary=" + "X" * length)


@pytest.mark.parametrize(
    "kind", ["", "image/png", "multipart/mixed; boundary=XX", ";", "multipart/form-data2"]
)
def test_what_is_no_form_is_one_frame(kind: str) -> None:
    """Any other content type is a raw body."""
    assert frames(form(b"one"), kind) == [form(b"one")]


def test_a_body_is_counted_while_it_comes() -> None:
    """The limit holds without a Content-Length, to the byte."""
    assert read(request([b"x" * 2048] * 2)) == [b"x" * 4096]
    with pytest.raises(PayloadTooLarge, match="4096"):
        read(request([b"x" * 2048, b"x" * 2049]))


def test_an_announced_length_is_refused_before_anything_is_read() -> None:
    """Content-Length beyond the limit needs no byte of the body."""
    with pytest.raises(PayloadTooLarge, match="4097"):
        read(request(content_length="4097"))


def test_a_sender_that_leaves_is_the_caller_s_error() -> None:
    """A disconnect in the middle is no defect of the service."""
    gone = request()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(InvalidParameter, match="left"):
        read(Request(gone.scope, receive))


def test_a_silent_sender_runs_into_the_deadline() -> None:
    """The wait for the body counts, as stage `receive`."""
    silent = request()

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    with pytest.raises(DeadlineExceeded) as failure:
        read(Request(silent.scope, receive), 0.05)
    assert failure.value.stage == "receive"


@given(st.text(st.characters(max_codepoint=255), max_size=12) | st.floats().map(str))
def test_a_time_limit_is_positive_and_never_above_the_server_s(text: str) -> None:
    """Any text is a limit of at most the server's, or refused."""
    try:
        wished = float(text)
    except ValueError:
        wished = math.nan
    if wished > 0:
        assert deadline_of(request(x_request_timeout=text), SETTINGS).remaining() <= min(5, wished)
    else:
        with pytest.raises(InvalidParameter):
            deadline_of(request(x_request_timeout=text), SETTINGS)


def test_without_a_wish_the_server_s_limit_holds() -> None:
    """No header, no change."""
    before = time.monotonic()
    assert before + 5 <= deadline_of(request(), SETTINGS).at() <= time.monotonic() + 5


@settings(max_examples=500)
@given(
    st.text("aijmp/*;,q=01. gnonlct", max_size=60) | st.text(st.characters(max_codepoint=255), max_size=40)
)
def test_any_accept_is_a_form_that_is_offered_or_406(text: str) -> None:
    """However Accept is misspelt, the answer is one of the forms, or there is none."""
    try:
        assert negotiate(request(accept=text), OFFERED) in OFFERED
    except NotAcceptable as error:
        assert error.status_code == 406  # noqa: PT017  # either outcome is right


def test_a_form_with_quality_zero_is_never_chosen() -> None:
    """The most specific range speaks for a form, also where it forbids it (RFC 9110, 12.5.1)."""
    assert negotiate(request(accept="*/*, application/json;q=0"), OFFERED) == "image/png"
    assert negotiate(request(accept="image/png;q=0, image/*, application/json;q=0.1"), OFFERED) == OFFERED[0]
    with pytest.raises(NotAcceptable):
        negotiate(request(accept="application/json;q=0, image/*;q=0, */*;q=0"), OFFERED)


@pytest.mark.parametrize("ours", [True, False])
def test_who_leaves_ends_what_is_done_for_him(ours: bool) -> None:
    """Told by our server's future or by any server's message, the wait ends, and so does the deadline."""

    async def scene() -> float:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            await gone
            return {"type": "http.disconnect"}

        caller = Request(request().scope | ({GONE: gone} if ours else {}), receive)
        asyncio.get_running_loop().call_later(0.01, gone.set_result, None)
        deadline = Deadline.after(PATIENCE_S)
        with pytest.raises(CallerGone), listening(caller, deadline):
            await asyncio.sleep(60)
        await asyncio.sleep(0)  # the task itself goes on
        return deadline.remaining()

    assert asyncio.run(scene()) == 0


def test_who_leaves_when_all_is_done_ends_nothing() -> None:
    """The news of it, on its way while the work ends, cancels nothing that comes after."""

    async def scene() -> float:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        deadline = Deadline.after(PATIENCE_S)
        with listening(Request(request().scope | {GONE: gone}), deadline):
            gone.set_result(None)
        await asyncio.sleep(0.01)
        return deadline.remaining()

    assert asyncio.run(scene()) > 0
