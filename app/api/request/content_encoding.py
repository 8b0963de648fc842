"""Content-Encoding of requests: gzip and deflate, decoded as the body comes and no further than its reader takes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator

from fastapi import Request

from app.errors import InvalidParameter, PayloadTooLarge, UnsupportedMediaType

_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_MOST_CODINGS = 2
_PIECE = 1 << 18  # bytes that are made at once
_SLICE = 1 << 16  # bytes that are taken at once: what follows a member's end is copied
_INLINE = 1 << 12  # as many bytes are decoded on the event loop; more on a thread
_GZIP, _ZLIB, _RAW = 31, 15, -15  # wbits of zlib


def codings_of(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the codings of a body in the order in which they were applied.

    Raises:
        UnsupportedMediaType: one that is not decoded here, or too many.
    """
    values = [value for name, value in headers if name == b"content-encoding"]
    if not values:
        return []
    words = [word.strip().lower() for word in b",".join(values).decode("latin-1").split(",")]
    words = [word for word in words if word not in ("", "identity")]
    for word in words:
        if word not in _NAMES:
            raise UnsupportedMediaType(f"the Content-Encoding {word[:40]!r} is not supported", hint=_HINT)
    if len(words) > _MOST_CODINGS:
        raise UnsupportedMediaType(f"the body has {len(words)} codings in Content-Encoding", hint=_HINT)
    return [_NAMES[word] for word in words]


_HINT = "Send the body as it is, or with Content-Encoding gzip or deflate."


def encoded_limit(limit: int) -> int:
    """Return the limit of an encoded body whose decoded limit is `limit`; incompressible data grows a little."""
    return limit + limit // 64 + 1024


def chunks_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the decoded body as it arrives. This function limits the encoded bytes; the reader limits the decoded
    ones.

    Args:
        request: not read yet.
        limit: bytes of the decoded body.

    Raises:
        UnsupportedMediaType: see `codings_of`.
        InvalidParameter: the data is damaged or cut off.
        PayloadTooLarge: more encoded bytes than a body of `limit` bytes needs.
    """
    chunks: AsyncIterator[bytes] = request.stream()
    for coding in reversed(codings_of(request.scope["headers"])):
        chunks = _decoded(chunks, coding, limit)
    return chunks


async def _decoded(chunks: AsyncIterator[bytes], coding: str, limit: int) -> AsyncIterator[bytes]:
    inflater, taken = _Inflater(coding), 0
    async for chunk in chunks:
        taken += len(chunk)
        if taken > encoded_limit(limit):
            raise PayloadTooLarge(f"the body has more than {limit} bytes")
        for start in range(0, len(chunk), _SLICE):
            pieces = inflater.pieces(chunk[start : start + _SLICE])
            if len(chunk) <= _INLINE:
                for piece in pieces:
                    yield piece
                continue
            while (made := await asyncio.to_thread(next, pieces, None)) is not None:
                yield made
    inflater.finish()


class _Inflater:
    """Decodes one coding of one body."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._start = b""  # bytes that are too few to tell the kind of deflate
        self._member: zlib._Decompress | None = None
        self._members = self._taken = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds to the body, in pieces of at most `_PIECE` bytes.

        Raises:
            InvalidParameter: the data is damaged.
        """
        self._taken += len(data)
        data, self._start = self._start + data, b""
        while data:
            if self._member is None:
                data = self._open(data)
                if self._member is None:
                    return
            yield from self._inflated(self._member, data)
            data = self._member.unused_data
            if self._member.eof:
                self._member = None

    def _open(self, data: bytes) -> bytes:
        """Begin a member if `data` is enough for one, and return what it starts with."""
        if self._members:
            if self._coding == "gzip":
                data = data.lstrip(b"\0")  # padding, as gzip itself takes it
                if not data:
                    return data
            elif data:
                raise self._damaged()
        if self._coding == "deflate" and len(data) < 2:
            self._start = data
            return data
        self._members += 1
        if self._members > 64 + self._taken // 1024:  # members cost more than their bytes
            raise InvalidParameter("the gzip data has too many members")
        wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0  # RFC 1950, 2.2
        self._member = zlib.decompressobj(_GZIP if self._coding == "gzip" else _ZLIB if wrapped else _RAW)
        return data

    def _inflated(self, member: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        full = True
        while data or full:
            try:
                piece = member.decompress(data, _PIECE)
            except zlib.error as error:
                raise self._damaged() from error
            data, full = member.unconsumed_tail, len(piece) == _PIECE
            if piece:
                yield piece

    def finish(self) -> None:
        """Check the end of the body.

        Raises:
            InvalidParameter: the data is cut off.
        """
        if self._member is not None or self._start:
            raise InvalidParameter(f"the body is cut off: its {self._coding} data has no end", hint=_DAMAGED)

    def _damaged(self) -> InvalidParameter:
        return InvalidParameter(
            f"the body is not the {self._coding} data that Content-Encoding announces, or it is damaged",
            hint=_DAMAGED,
        )


_DAMAGED = "Send the whole compressed body, or leave Content-Encoding out and send it as it is."
