"""PNG (W3C, third edition): the chunks that make pixels, as a file of their own for the decoder.

Every ancillary chunk is left out unread, but for eXIf (orientation) and acTL (animation), which count if their CRC is
right.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.errors import InvalidImage
from app.media.pictures.base import ANIMATED, Header, Pixels, cut_off, damaged, opencv, too_many
from app.media.pictures.exif import UPRIGHT, orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000  # the smallest usual image data chunk has 4 kB: 400 MB of them
_FIRST_CHUNK = 33
_PALETTE = 3
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
_MOST_EXCESS = 3
_BEST_DEFLATE = 1032
_PIECE = 1 << 18
_PIXEL_BYTES = 7


def read(data: bytes) -> Header:
    """Read the IHDR chunk.

    Raises:
        InvalidImage: it is missing or damaged.
    """
    if len(data) < _FIRST_CHUNK:
        raise cut_off("PNG")
    if data[8:16] != b"\x00\x00\x00\x0dIHDR" or not _intact(data, 8, 13):
        raise damaged("PNG", "its header chunk can't be read")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not (width and height):
        raise damaged("PNG", f"its size is {width}x{height}")
    return Header(width, height, _PIXEL_BYTES)


@dataclass(slots=True)
class _Chunks:
    """Parts of a file that are kept: the palette's chunk, the image data, EXIF, and the number of frames."""

    palette: bytes = b""
    pixels: list[memoryview] = field(default_factory=list)
    exif: bytes = b""
    frames: int = 1


def decode(data: bytes, header: Header) -> tuple[Pixels, int]:
    """Pixels as stored, and their orientation.

    Raises:
        InvalidImage: damaged, cut off, animated, or too many chunks.
    """
    chunks = _walk(data)
    if chunks.frames > 1:
        raise InvalidImage(ANIMATED)
    if not chunks.pixels:
        raise cut_off("PNG")
    _check_length(chunks.pixels, _raw_bytes(data, header))
    palette = chunks.palette if data[25] == _PALETTE else b""
    rgb = opencv(
        b"".join((data[:_FIRST_CHUNK], palette, *_chunk(b"IDAT", chunks.pixels), *_chunk(b"IEND", ())))
    )
    if rgb is None:
        raise damaged("PNG", "its image data is incomplete or wrong")
    return rgb, orientation(chunks.exif) if chunks.exif else UPRIGHT


def _raw_bytes(data: bytes, header: Header) -> int:
    """Bytes of all rows before compression."""
    bits = data[24] * _SAMPLES.get(data[25], 4)
    return header.height * (1 + (header.width * bits + 7) // 8)


def _check_length(parts: Sequence[memoryview], raw: int) -> None:
    """Refuse image data that inflates to many times its picture: libpng inflates all of it, past the last row."""
    left = _MOST_EXCESS * raw + _PIECE
    if sum(map(len, parts)) * _BEST_DEFLATE <= left:
        return
    inflater = zlib.decompressobj()
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while rest and not inflater.eof:
                left -= len(inflater.decompress(rest, _PIECE))
                if left < 0:
                    raise damaged("PNG", "its image data is many times longer than its picture")
                rest = inflater.unconsumed_tail
    except zlib.error:
        return  # the decoder refuses it where it is wrong


def _walk(data: bytes) -> _Chunks:
    """Collect the chunks up to IEND or the end of the file, which may cut the last one."""
    view, kept, at = memoryview(data), _Chunks(), _FIRST_CHUNK
    for _ in range(MOST_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IDAT":
            kept.pixels.append(view[at + 8 : at + 8 + length])
        elif kind == b"PLTE" and not kept.palette:
            kept.palette = data[at : at + 12 + length]
        elif kind == b"eXIf" and not kept.exif and _intact(data, at, length):
            kept.exif = data[at + 8 : at + 8 + length]
        elif kind == b"acTL" and _intact(data, at, length):
            kept.frames = int.from_bytes(data[at + 8 : at + 12])
        elif kind in (b"IEND", b""):
            return kept
        at += 12 + length
    raise too_many("PNG", "chunks", MOST_CHUNKS)


def _intact(data: bytes, at: int, length: int) -> bool:
    """Check the CRC of the chunk at `at`, which covers its type and its data."""
    end = at + 8 + length
    return zlib.crc32(data[at + 4 : end]).to_bytes(4) == data[end : end + 4]


def _chunk(kind: bytes, parts: Sequence[memoryview]) -> Iterator[bytes | memoryview]:
    """The pieces of one chunk whose data are all `parts`."""
    crc = zlib.crc32(kind)
    for part in parts:
        crc = zlib.crc32(part, crc)
    yield sum(map(len, parts)).to_bytes(4)
    yield kind
    yield from parts
    yield crc.to_bytes(4)
