"""The parts without I/O: retries, errors, lines, decoding, pictures."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triton_vision_gateway_client import (
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    GatewayError,
    Overloaded,
    RateLimited,
    StreamInterrupted,
    Unavailable,
    UnexpectedAnswer,
)
from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.calls.base import query_of, timeout_in
from triton_vision_gateway_client.calls.jobs import place_in
from triton_vision_gateway_client.errors import from_answer, retry_after_of
from triton_vision_gateway_client.lines import EventReader, FrameReader, Lines
from triton_vision_gateway_client.media import Upload, picture_bytes
from triton_vision_gateway_client.progress import File
from triton_vision_gateway_client.retries import Attempts, Deadline, Repeat, RetryPolicy
from triton_vision_gateway_client.transports.wire import Settings

LOST = ConnectionFailed("lost", sent=True)
UNSENT = ConnectionFailed("refused", sent=False)
IN_USE = Conflict("in use", code="idempotency_key_in_use", status=409, retry_after=2)


def refusal(retry_after: float | None) -> GatewayError:
    """A 503 of the gateway."""
    return Unavailable("busy", code="triton_unavailable", status=503, retry_after=retry_after)


def attempts(repeat: Repeat = Repeat.ALWAYS, seconds: float | None = None, most: int = 3) -> Attempts:
    """Attempts with a clock that stands still and no chance."""
    return Attempts(RetryPolicy(most), repeat, Deadline(seconds, lambda: 0.0), lambda: 1.0)


@pytest.mark.parametrize(
    ("repeat", "error", "again"),
    [
        (Repeat.ALWAYS, LOST, True),
        (Repeat.ALWAYS, UNSENT, True),
        (Repeat.ALWAYS, refusal(1), True),
        (Repeat.ALWAYS, refusal(None), False),
        (Repeat.ALWAYS, from_answer(502, {}, b"proxy"), True),
        (Repeat.ALWAYS, from_answer(500, {}, b"oops"), False),
        (Repeat.REFUSED, LOST, False),
        (Repeat.REFUSED, UNSENT, True),
        (Repeat.REFUSED, refusal(1), True),
        (Repeat.REFUSED, from_answer(502, {}, b"proxy"), False),
        (Repeat.ALWAYS, IN_USE, True),
        (Repeat.ALWAYS, Conflict("order", code="session_conflict", status=409), False),
        (Repeat.NEVER, UNSENT, False),
        (Repeat.NEVER, refusal(1), False),
    ],
)
def test_what_is_sent_again(repeat: Repeat, error: GatewayError, again: bool) -> None:
    """Only what is safe, and what waiting helps."""
    if again:
        assert attempts(repeat).pause_after(error) > 0
    else:
        with pytest.raises(type(error)):
            attempts(repeat).pause_after(error)


def test_waits() -> None:
    """Retry-After is the least wait; else they double; none is begun that ends too late or lasts too long."""
    assert attempts().pause_after(refusal(2)) == pytest.approx(2.2)
    waiting = attempts(most=8)
    assert [waiting.pause_after(LOST) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 20, 20]
    with pytest.raises(ConnectionFailed):
        waiting.pause_after(LOST)
    with pytest.raises(Unavailable):
        attempts(seconds=2).pause_after(refusal(2))
    with pytest.raises(Unavailable):
        attempts().pause_after(refusal(3600))
    with pytest.raises(Unavailable):
        attempts(most=0).pause_after(refusal(1))


def test_deadlines() -> None:
    """None never passes."""
    assert Deadline(None).share() is None
    passed = Deadline(1, iter([0.0, 5.0, 5.0]).__next__)
    with pytest.raises(DeadlineExceeded):
        passed.share()


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("", None), ("soon", None), ("-1", None), ("٣", None), ("1.5", None)]
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    """A whole number; what can't be read says nothing."""
    assert retry_after_of({"retry-after": text}) == seconds


def test_retry_after_as_a_date() -> None:
    """By the answer's own date where there is one; a date that has passed means now."""
    now = time.time()
    dates = {"retry-after": formatdate(now + 90, usegmt=True), "date": formatdate(now + 60, usegmt=True)}
    assert retry_after_of(dates) == pytest.approx(30, abs=1)
    assert retry_after_of({"retry-after": formatdate(now - 50, usegmt=True)}) == 0
    far = retry_after_of({"retry-after": formatdate(now + 10_000, usegmt=True)})
    assert far is not None
    assert 9_000 < far <= 10_000


def test_answers_become_exceptions() -> None:
    """By status and code; the message says all that a reader needs."""
    problem = {
        "code": "rate_limited",
        "detail": "one a second",
        "what_to_do": "Wait.",
        "request_id": "r1",
        "status": 429,
    }
    error = from_answer(429, {"retry-after": "3"}, json.dumps(problem).encode())
    assert isinstance(error, RateLimited)
    assert (error.retry_after, str(error)) == (3, "429 rate_limited: one a second. Wait. (request r1)")
    assert isinstance(from_answer(429, {}, b'{"code": "overloaded"}'), Overloaded)
    assert isinstance(from_answer(302, {}, b""), UnexpectedAnswer)
    assert from_answer(418, {"x-request-id": "r2"}, b"\xff").request_id == "r2"
    assert from_answer(500, {}, b"[1]").code == "http_500"
    openai = b'{"error": {"message": "no", "code": "rate_limit_exceeded"}}'
    assert from_answer(429, {}, openai).code == "rate_limited"


def test_lines_end_at_lf_alone() -> None:
    """However they are cut into chunks; Unicode's line ends are text."""
    text = "a\u2028b\x85c\r\nd\n".encode()
    for size in (1, 2, 3, 100):
        lines = Lines()
        found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
        assert found == ["a\u2028b\x85c".encode(), b"d"]


def test_frames_without_provenance_were_made_like_the_last() -> None:
    """A stream without its summary was cut off; an unreadable line is no frame."""
    reader: FrameReader[dict[str, Any]] = FrameReader(dict, "r1")
    lines = b'{"frame": {"index": 0, "time_s": 0}, "models_used": [1], "branch": 2}\n'
    lines += b'{"frame": {"index": 3, "time_s": 0.5}}\n'
    first, second = reader.feed(lines)
    assert second.answer["models_used"] == first.answer["models_used"] == [1]
    assert (second.index, second.time_s, second.answer["branch"]) == (3, 0.5, 2)
    with pytest.raises(StreamInterrupted) as caught:
        reader.finish()
    assert caught.value.frames == 2
    (failed,) = reader.feed(
        b'{"frame": {"index": 4, "time_s": 1}, "error": {"code": "overloaded", "status": 429}}\n'
    )
    with pytest.raises(Overloaded):
        _ = failed.answer
    for wrong in (b"{\n", b"[]\n", b'{"frame": 1}\n'):
        with pytest.raises(UnexpectedAnswer):
            list(reader.feed(wrong))


def test_server_sent_events() -> None:
    """Comments are left out, several lines of data are one."""
    reader = EventReader()
    found = list(reader.feed(b": ping\n\nevent: progress\r\ndata: 1\r\ndata: 2\r\n\r\ndata:3\n\nevent: cut"))
    assert [(one.event, one.data) for one in found] == [("progress", "1\n2"), ("message", "3")]


@dataclass(frozen=True)
class Inner:
    value: float


@dataclass(frozen=True)
class Outer:
    name: str
    pair: tuple[int, int]
    inner: tuple[Inner, ...] = ()
    other: Inner | None = None
    flag: bool = False


def test_documents_become_dataclasses() -> None:
    """Unknown members are ignored; missing ones and other types are named."""
    document = {"name": "a", "pair": [1, 2], "inner": [{"value": 1}], "other": None, "new": {}}
    assert decode(Outer, document) == Outer("a", (1, 2), (Inner(1.0),))
    for wrong in (
        {"name": "a"},
        {**document, "pair": [1]},
        {**document, "name": 1},
        {**document, "flag": 1},
        {**document, "pair": [True, 2]},
        {**document, "inner": {}},
        {**document, "other": 3},
        [],
    ):
        with pytest.raises(UnexpectedAnswer):
            decode(Outer, wrong)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 48)])
def test_arrays_are_encoded_without_loss(shape: tuple[int, int]) -> None:
    """Pillow reads the same pixels, also of an array that isn't contiguous."""
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for array in (rgb, rgb[::-1, :, ::-1]):
        with Image.open(io.BytesIO(picture_bytes(array))) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_images_of_every_mode(mode: str) -> None:
    """Pillow's own conversion to RGB; 16 bits stay 16 bits."""
    image = Image.new(mode, (5, 4), 1 if mode in {"1", "L", "P", "I;16"} else (1, 2, 3, 4)[: len(mode)])
    with Image.open(io.BytesIO(picture_bytes(image))) as sent:
        assert sent.size == (5, 4)
        if mode != "I;16":
            np.testing.assert_array_equal(np.asarray(sent), np.asarray(image.convert("RGB")))
        else:
            assert sent.mode == mode


@pytest.mark.parametrize(
    "picture",
    [
        1,
        None,
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        io.StringIO("text"),
    ],
)
def test_what_is_no_picture(picture: Any) -> None:
    """It is refused here, with words that help."""
    with pytest.raises((TypeError, ValueError)):
        picture_bytes(picture)


def test_a_file_is_sent_from_where_it_stands(tmp_path: Path) -> None:
    """Each time it is sent."""
    path = tmp_path / "video"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        upload = Upload(file)
        assert (upload.size, upload.name, upload.repeatable) == (6, "video", True)
        assert [b"".join(upload.pieces()) for _ in range(2)] == [b"456789"] * 2
    with pytest.raises(TypeError):
        Upload(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        list(Upload(io.StringIO("text")).pieces())  # type: ignore[arg-type]


def test_parameters_as_text() -> None:
    """None isn't sent, a list is repeated, booleans are words, and NumPy's numbers are numbers."""
    options = {"conf": np.float64(0.5), "classes": ["a", 3], "fallback": True, "branch": None, "timeout": 3}
    assert query_of(options) == (("conf", "0.5"), ("classes", "a"), ("classes", "3"), ("fallback", "true"))
    assert timeout_in({"timeout": 3}) == 3.0
    for wrong in (0, -1, float("nan"), "3", True):
        with pytest.raises((ValueError, TypeError)):
            timeout_in({"timeout": wrong})


def test_arguments_of_a_client() -> None:
    """The address has a scheme; numbers are positive."""
    for wrong in (
        ("127.0.0.1:8080", 1, 3, 1),
        ("http://a", 0, 3, 1),
        ("http://a", 1, -1, 1),
        ("http://a", 1, 3, 0),
    ):
        url, timeout, retries, silence = wrong
        with pytest.raises(ValueError, match=r"address|positive"):
            Settings.of(str(url), None, float(timeout), int(retries), float(silence))


@pytest.mark.parametrize("key", ["gw_\u2026", "gw_a\nb"])
def test_what_is_no_key(key: str) -> None:
    """It is refused at once, and not repeated."""
    with pytest.raises(ValueError, match="key") as caught:
        Settings.of("http://a", key, 1, 1, 1)
    assert "gw_" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../x", "a\\..\\x", "C:/x"])
def test_artefacts_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    """Whatever a service calls them."""
    with pytest.raises(UnexpectedAnswer):
        place_in(tmp_path, name)
    assert place_in(tmp_path, "a/b.npz") == tmp_path / "a" / "b.npz"


def test_a_download_with_another_digest_leaves_no_file(tmp_path: Path) -> None:
    """Nor does one that breaks off."""
    file = File(tmp_path / "a" / "b.npz", "0" * 64)
    file.write(b"x")
    with pytest.raises(UnexpectedAnswer):
        file.finish()
    file.abandon()
    assert list((tmp_path / "a").iterdir()) == []
