"""multipart/form-data (RFC 7578), piece by piece: no name of the caller's ever reaches a file system."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Request

from app.api.request.headers import headers_of
from app.documents import clipped
from app.errors import InvalidParameter, PayloadTooLarge
from app.hints import did_you_mean

_LONGEST_BOUNDARY = 200  # RFC 2046 says 70
_HEAD_BYTES = 16_384  # of one part
_PADDING_BYTES = 1024  # after a boundary
_MORE_PARTS = 1000  # fields and empty file inputs, beside the parts that a route takes
_FIELD_BYTES = 65_536  # of all fields together

_LINE_END = re.compile(rb"\r?\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_FOLDED = re.compile(rb"\r?\n[ \t]+")
_PARAMETER = re.compile(rb""";\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)""", re.DOTALL)


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
    """Return the boundary of a multipart request; None where the request is none.

    Raises:
        InvalidParameter: it names no boundary, or one that is too long.
    """
    content_type = headers_of(request.scope).get(b"content-type", b"")
    kind = content_type.partition(b";")[0].strip()
    if kind.lower() != b"multipart/form-data":
        return None
    boundary = _parameters(content_type).get("boundary", b"").rstrip()
    if not boundary:
        raise InvalidParameter("the multipart body names no boundary")
    if len(boundary) > _LONGEST_BOUNDARY:
        raise InvalidParameter(f"the boundary of the multipart body has more than {_LONGEST_BOUNDARY} bytes")
    return boundary


def _parameters(header: bytes) -> dict[str, bytes]:
    """The parameters of a header's value by their names in lower case."""
    found = {}
    for name, raw in _PARAMETER.findall(header):
        value = raw.strip()
        if len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"'):
            value = value[1:-1].replace(b"\\\\", b"\\").replace(b'\\"', b'"')
        found[name.decode("latin-1").lower()] = value
    return found


class FormReader(Generic[S]):
    """Feed each part to a sink of its own. Fields are kept here.

    What precedes the first boundary, follows the last one or pads a boundary's line is skipped (RFC 2046, 5.1.1). Lines
    may end in LF alone; the first boundary's line says so for all. An empty part with an empty file name, which a
    browser sends for a file input without a file, is no part.

    Args:
        boundary: between the parts.
        most: which names there may be and how many parts of each.
        make: a sink for a part of this name and file name.
        fields: names of the fields that there may be.
    """

    def __init__(
        self,
        boundary: bytes,
        most: Mapping[str, int],
        make: Callable[[str, str | None], S],
        fields: Collection[str] = (),
    ) -> None:
        self.parts: dict[str, list[S]] = {name: [] for name in most}
        self._most = most
        self._make = make
        self._fields = fields
        self._found: dict[str, list[Memory]] = {}
        self._left = sum(most.values()) + _MORE_PARTS
        self._field_bytes = 0
        self._boundary = boundary
        self._delimiter = b"\n--" + boundary
        self._buffer = b"\n"  # so that a boundary at the very beginning follows a line's end too
        self._at = self._searched = 0
        self._step: Callable[[], bool] | None = self._preamble  # None: the last boundary has come
        self._sink: Sink | None = None
        self._in_field = False
        self._waiting = ("", "")  # a part that is opened once it has content

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            InvalidParameter: damaged, an unknown part, or several of a part that may stand once.
            PayloadTooLarge: too many parts, or fields of too many bytes.
        """
        if self._step is None:  # what follows the last boundary is skipped
            return
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        while self._take():
            pass

    def finish(self) -> dict[str, list[S]]:
        """Return the parts by name, in order.

        Raises:
            InvalidParameter: the body is cut off.
        """
        if self._step == self._preamble:
            raise _damaged("the boundary that Content-Type names is not in it")
        if self._step is not None:
            raise InvalidParameter("the multipart body is cut off")
        return self.parts

    def fields(self) -> dict[str, list[str]]:
        """Return the values of the fields by name, in order.

        Raises:
            InvalidParameter: one is not UTF-8.
        """
        return {name: [_text(name, one.value()) for one in found] for name, found in self._found.items()}

    def _take(self) -> bool:
        step = self._step
        return step is not None and step()

    # Each step takes what it can from the buffer, from `_at` on; False: it needs more.

    def _preamble(self) -> bool:
        at = self._buffer.find(self._delimiter, self._at)
        if at < 0:
            self._at = max(self._at, len(self._buffer) - len(self._delimiter) + 1)
            return False
        self._at = at
        end = self._line_end(at + len(self._delimiter))
        if end is None:
            return False
        if end < 0:
            self._at = at + 1
            return True
        crlf = self._buffer[end - 2 : end] == b"\r\n"
        self._delimiter = (b"\r\n--" if crlf else b"\n--") + self._boundary
        self._at = end
        return True

    def _line_end(self, start: int) -> int | None:
        """Return the end of a boundary's line and set the next step; -1: the line is none; None: needs more."""
        rest = self._buffer[start : start + _PADDING_BYTES]
        if rest.startswith(b"--"):
            self._step = None
            return start + 2
        line, newline, _ = rest.partition(b"\n")
        if (line.strip(b" \t\r") and rest != b"-") or len(line) == _PADDING_BYTES:
            self._count()
            return -1
        if not newline:
            return None
        self._step = self._head
        return start + len(line) + 1

    def _count(self) -> None:
        """Count a part, or a line that only begins like a boundary: each costs more than its bytes."""
        self._left -= 1
        if self._left < 0:
            raise PayloadTooLarge("the form has too many parts")

    def _head(self) -> bool:
        blank = _LINE_END.match(self._buffer, self._at)  # a part without a head
        searched = max(self._at, self._searched)
        blank = blank or _BLANK_LINE.search(self._buffer, searched, self._at + _HEAD_BYTES)
        if blank is None:
            self._searched = len(self._buffer) - self._at - 3  # in the buffer as it will be then
            if len(self._buffer) - self._at >= _HEAD_BYTES:
                raise _damaged(f"the head of a part has more than {_HEAD_BYTES} bytes")
            return False
        head, self._at = self._buffer[self._at : blank.start()], blank.end()
        self._searched = 0
        disposition = b""
        for line in _FOLDED.sub(b" ", head).splitlines():
            name, colon, value = line.partition(b":")
            if not colon:
                raise _damaged("a line in the head of a part has no colon")
            if name.strip().lower() == b"content-disposition":
                disposition = value
        self._step = self._content
        self._begin(_parameters(disposition))
        return True

    def _content(self) -> bool:
        at = self._buffer.find(self._delimiter, self._at)
        if at < 0:
            keep = max(self._at, len(self._buffer) - len(self._delimiter) + 1)
            self._write(self._buffer[self._at : keep])
            self._at = keep
            return False
        end = self._line_end(at + len(self._delimiter))
        if end is not None and end < 0:  # the content has a line that only begins like a boundary
            at += len(self._delimiter)
        self._write(self._buffer[self._at : at])
        self._at = at if end is None or end < 0 else end
        return end is not None

    def _begin(self, parameters: Mapping[str, bytes]) -> None:
        self._count()
        name, filename = parameters.get("name", b"").decode("utf-8", "replace"), _filename(parameters)
        self._sink = None
        if filename == "":
            self._waiting = (name, filename)
        else:
            self._open(name, filename)

    def _open(self, name: str, filename: str | None) -> None:
        self._in_field = name not in self._most and name in self._fields
        if self._in_field:
            field = Memory()
            self._found.setdefault(name, []).append(field)
            self._sink = field
            return
        if name not in self._most:
            hint = did_you_mean(name, [*self._most, *self._fields])
            raise InvalidParameter(
                f"unknown part {clipped(name)!r}; this route takes {', '.join(self._most)}"
                + (", and its query parameters as fields" if self._fields else "")
                + hint
            )
        if len(self.parts[name]) >= self._most[name]:
            if self._most[name] == 1:
                raise InvalidParameter(f"the form has several parts named {clipped(name)!r}; it takes one")
            raise PayloadTooLarge(f"more than {self._most[name]} parts named {name!r}")
        sink = self._make(name, filename)
        self.parts[name].append(sink)
        self._sink = sink

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if self._sink is None:
            self._open(*self._waiting)
        if self._in_field:
            self._field_bytes += len(data)
            if self._field_bytes > _FIELD_BYTES:
                raise PayloadTooLarge(f"the fields of the form have more than {_FIELD_BYTES} bytes")
        if self._sink is not None:
            self._sink.write(data)


def _filename(parameters: Mapping[str, bytes]) -> str | None:
    """The file name as the caller sent it; `filename*` (RFC 5987) goes before `filename`."""
    charset, _, rest = parameters.get("filename*", b"").partition(b"'")
    if charset.lower() in (b"utf-8", b"iso-8859-1"):
        value = unquote_to_bytes(rest.partition(b"'")[2])
        return value.decode(charset.decode().lower(), "replace")
    plain = parameters.get("filename")
    return None if plain is None else plain.decode("utf-8", "replace")


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"the field {name!r} is not UTF-8") from error


def _damaged(reason: str) -> InvalidParameter:
    return InvalidParameter(f"the multipart body is damaged: {reason}")
