"""multipart/form-data, piece by piece: no name of the caller's ever reaches a file system."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.connections import header_of
from app.documents import clipped
from app.errors import InvalidParameter, PayloadTooLarge
from app.hints import did_you_mean

# It warns of every damaged body, which whoever sends it is told anyway: a caller could fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Sink(Protocol):
    """Takes one part's bytes."""

    def write(self, data: bytes) -> None: ...


class Memory:
    """A part in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._pieces.append(data)

    def value(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


S = TypeVar("S", bound=Sink)


def boundary_of(request: Request) -> bytes | None:
    """The boundary of a multipart request; None where the request is none.

    Raises:
        InvalidParameter: it names no boundary.
    """
    content_type = header_of(request.scope["headers"], b"content-type") or b""
    if b"multipart" not in content_type.lower():  # most bodies are one picture
        return None
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidParameter("the multipart body names no boundary")
    return boundary


class FormReader(Generic[S]):
    """Feeds each part to a sink of its own.

    Args:
        boundary: between the parts.
        most: which names there may be and how many parts of each.
        make: a sink for a part of this name.
    """

    def __init__(self, boundary: bytes, most: Mapping[str, int], make: Callable[[str], S]) -> None:
        self.parts: dict[str, list[S]] = {name: [] for name in most}
        self._most = most
        self._make = make
        self._sink: S | None = None
        self._field = ""
        self._value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidParameter(f"the multipart body is damaged: {error}") from error

    def feed(self, data: bytes) -> None:
        """The next bytes of the body.

        Raises:
            InvalidParameter: damaged, or an unknown part.
            PayloadTooLarge: too many parts of one name.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidParameter(f"the multipart body is damaged: {error}") from error

    def finish(self) -> dict[str, list[S]]:
        """The parts by name, in order.

        Raises:
            InvalidParameter: the body is cut off.
        """
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise InvalidParameter(f"the multipart body is damaged: {error}") from error
        if not self._ended:
            raise InvalidParameter("the multipart body is cut off")
        return self.parts

    def _begin(self) -> None:
        self._sink = None

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end].decode("latin-1")

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == "content-disposition":
            self._open(parse_options_header(self._value)[1].get(b"name"))
        self._field, self._value = "", b""

    def _on_headers(self) -> None:
        if self._sink is None:
            self._open(None)

    def _open(self, raw: bytes | None) -> None:
        name = (raw or b"").decode("utf-8", "replace")
        if name not in self._most:
            hint = did_you_mean(name, self._most)
            raise InvalidParameter(
                f"unknown part {clipped(name)!r}; this route takes {', '.join(self._most)}{hint}"
            )
        if len(self.parts[name]) >= self._most[name]:
            raise PayloadTooLarge(f"more than {self._most[name]} parts named {name!r}")
        self._sink = self._make(name)
        self.parts[name].append(self._sink)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink.write(data[start:end])

    def _on_end(self) -> None:
        self._ended = True
