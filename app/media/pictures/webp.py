"""WebP (RFC 9649): the one bitstream that makes pixels, as a simple file of its own for the decoder.

Metadata, colour profile and the separate alpha plane are left out unread, but for EXIF's orientation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.errors import InvalidImage
from app.media.pictures.base import ANIMATED, Header, Pixels, cut_off, damaged, opencv, too_many
from app.media.pictures.exif import UPRIGHT, orientation

MOST_CHUNKS = 10_000
_BITSTREAMS = (b"VP8 ", b"VP8L")
_PIXEL_BYTES = {b"VP8 ": 7, b"VP8L": 8}
_EXIF_FLAG = 0x08


def read(data: bytes) -> Header:
    """Read the size from the first chunk: the canvas of an extended file, or the bitstream's own header.

    Raises:
        InvalidImage: damaged or cut off.
    """
    if len(data) < 30:
        raise cut_off("WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = _plus_one(data, 24), _plus_one(data, 27)
        return Header(width, height, _PIXEL_BYTES[b"VP8L"])
    width, height = _stream_size(kind, data[20:30])
    return Header(width, height, _PIXEL_BYTES[kind])


def _plus_one(data: bytes, at: int) -> int:
    return 1 + int.from_bytes(data[at : at + 3], "little")


def _stream_size(kind: bytes, head: bytes) -> tuple[int, int]:
    """Width and height from the first bytes of a lossy (RFC 6386, 9.1) or lossless (RFC 9649, 3.4) bitstream."""
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and head[:1] == b"\x2f":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise damaged("WebP", "its header can't be read")


def decode(data: bytes, header: Header) -> tuple[Pixels, int]:
    """Pixels as stored, and their orientation.

    Raises:
        InvalidImage: damaged, cut off, animated, or too many chunks.
    """
    stream, frames, exif = b"", [], b""
    for kind, body in _chunks(memoryview(data), 12):
        if kind in _BITSTREAMS and not stream:
            stream = _simple(kind, body)
        elif kind == b"ANMF":
            frames.append(body)
        elif kind == b"EXIF" and not exif:
            exif = bytes(body)
    if len(frames) > 1:
        raise InvalidImage(ANIMATED)
    pixels = _still(stream, header) if stream or not frames else _frame(frames[0], header)
    return pixels, orientation(exif) if _has_exif(data) else UPRIGHT


def _has_exif(data: bytes) -> bool:
    """Only an extended file that announces EXIF has some (RFC 9649, 2.7)."""
    return data[12:16] == b"VP8X" and bool(data[20] & _EXIF_FLAG)


def _chunks(view: memoryview, at: int) -> Iterator[tuple[bytes, memoryview]]:
    """Type and body of each chunk; metadata may be cut."""
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(view):
            return
        length = int.from_bytes(view[at + 4 : at + 8], "little")
        kind = bytes(view[at : at + 4])
        if kind in (*_BITSTREAMS, b"ANMF") and length > len(view) - at - 8:
            raise cut_off("WebP")
        yield kind, view[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
    raise too_many("WebP", "chunks", MOST_CHUNKS)


def _simple(kind: bytes, body: memoryview) -> bytes:
    """A simple file (RFC 9649, 2.5 and 2.6) of one bitstream."""
    padding = b"\0" * (len(body) & 1)
    riff = (len(body) + len(padding) + 12).to_bytes(4, "little")
    return b"".join((b"RIFF", riff, b"WEBP", kind, len(body).to_bytes(4, "little"), body, padding))


def _still(stream: bytes, header: Header) -> Pixels:
    if not stream:
        raise cut_off("WebP")
    if _stream_size(stream[12:16], stream[20:30]) != (header.width, header.height):
        raise damaged("WebP", "its picture has another size than its canvas")
    pixels = opencv(stream)
    if pixels is None:
        raise damaged("WebP", "its image data is incomplete or wrong")
    return pixels


def _frame(body: memoryview, header: Header) -> Pixels:
    """The only frame of an animation (RFC 9649, 2.7.1.1), on its canvas; black where the frame doesn't reach."""
    found = (_simple(kind, part) for kind, part in _chunks(body, 16) if kind in _BITSTREAMS)
    stream = next(found, b"")
    place = bytes(body[:12])
    left, top = (2 * int.from_bytes(place[at : at + 3], "little") for at in (0, 3))
    frame = Header(_plus_one(place, 6), _plus_one(place, 9), header.pixel_bytes)
    if left + frame.width > header.width or top + frame.height > header.height:
        raise damaged("WebP", "its frame reaches beyond its canvas")
    pixels = _still(stream, frame)
    if (frame.width, frame.height) == (header.width, header.height):
        return pixels
    canvas = np.zeros((header.height, header.width, 3), np.uint8)
    canvas[top : top + frame.height, left : left + frame.width] = pixels
    return canvas
