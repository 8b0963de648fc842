"""The reader of forms: in pieces of any size, and at a cost that no form can raise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.request.multipart import FormReader, Memory
from app.errors import GatewayError, PayloadTooLarge

HEAD = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--XX--\r\n"
# What may stand where a boundary may begin, and what looks like one.
PIECES = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"-", b"--", b"\r\n--X", b"\r\n--XXa", b"\n--XX ", b"\r\n--XX-", b"a", b" \t"]
    ),
    max_size=12,
).map(b"".join)


def read(body: bytes, size: int, fields: set[str] | None = None) -> tuple[list[bytes], dict[str, list[str]]]:
    """The files and the fields of a form that comes in pieces of `size` bytes."""
    reader = FormReader(b"XX", {"file": 9}, lambda *_: Memory(), fields or set())
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return [part.value() for part in reader.finish()["file"]], reader.fields()


def boundary_in(content: bytes) -> bool:
    """True where a content holds a boundary's line, which a client avoids by its choice of boundary."""
    for rest in (content + END).split(b"\r\n--XX")[1:-1]:
        if rest.startswith(b"--") or not rest.partition(b"\n")[0].strip(b" \t\r"):
            return True
    return False


@settings(max_examples=150)
@given(PIECES.filter(lambda content: not boundary_in(content)), st.integers(1, 40))
def test_content_survives_pieces_of_any_size(content: bytes, size: int) -> None:
    """Content that looks like a boundary comes out as it went in, for any size of the pieces."""
    assert read(HEAD + content + END, size) == ([content], {})


@settings(max_examples=100)
@given(PIECES, PIECES, st.integers(1, 40))
def test_pieces_change_nothing(before: bytes, content: bytes, size: int) -> None:
    """Any form is read, or refused, as if it came at once."""

    def outcome(step: int) -> object:
        try:
            return read(before + b"\r\n" + HEAD + content + END, step)
        except GatewayError as error:
            return error.code

    assert outcome(size) == outcome(1 << 20)


def test_fields_and_files_come_in_order() -> None:
    """Repeated fields too, between the files."""
    field = b'--XX\r\nContent-Disposition: form-data; name="classes"\r\n\r\n%s\r\n'
    body = field % b"car" + HEAD + b"1\r\n" + field % "pe\u00f1a".encode() + HEAD + b"2" + END
    assert read(body, 5, {"classes"}) == ([b"1", b"2"], {"classes": ["car", "pe\u00f1a"]})


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"\r\n--XXa" * 500_000,
        b"\r\n--XXa" * 500_000,
        (HEAD + b"\r\n") * 100_000,
        b"--XX\r\n" + b"a: b\r\n" * 500_000,
    ],
    ids=["lines in content", "lines in the preamble", "parts", "heads"],
)
def test_what_costs_more_than_its_bytes_is_bounded(body: bytes) -> None:
    """Megabytes at once, or byte by byte, take a moment of CPU."""
    started = time.process_time()
    with pytest.raises(GatewayError):
        read(body, 1 << 20)
    with pytest.raises(GatewayError):
        read(body, 1)
    assert time.process_time() - started < 20


def test_too_many_lines_like_boundaries_are_too_large() -> None:
    """The refusal names the size."""
    with pytest.raises(PayloadTooLarge, match="parts"):
        read(HEAD + b"\r\n--XXa" * 2000 + END, 1 << 16)
