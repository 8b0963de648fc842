"""Small BMP files of every kind, some with odd headers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
Row = tuple[str, bytes, bytes]  # name, file, the same picture in a form that every reader knows


def bmp(
    shape: tuple[int, int, int],
    pixels: bytes,
    *,
    palette: bytes = b"",
    compression: int = 0,
    masks: bytes = b"",
    header: int = 40,
    **odd: int,
) -> bytes:
    """A BMP of `(width, height, depth)`; `odd` fields: `colours`, `offset`, `nbytes`, `planes`, `resolution`."""
    width, height, depth = shape
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, depth)
        palette = np.frombuffer(palette, np.uint8).reshape(-1, 4)[:, :3].tobytes()
    else:
        resolution = odd.get("resolution", 2835)
        info = struct.pack(
            "<IiiHHIIiiII", header, width, height, odd.get("planes", 1), depth, compression, 0,
            resolution, resolution, odd.get("colours", 0), 0,
        )  # fmt: skip
        info += (masks + bytes(header))[: header - 40] if header > 40 else masks
    at = 14 + len(info) + len(palette)
    size = odd.get("nbytes", at + len(pixels))
    return struct.pack("<2sIHHI", b"BM", size, 0, 0, odd.get("offset", at)) + info + palette + pixels


def _packed(rows: Array, bits: int) -> bytes:
    """Rows of indices or bytes, bottom up, padded to four bytes."""
    found = []
    for row in rows[::-1]:
        unpacked = np.unpackbits(row.reshape(-1, 1), axis=1)[:, 8 - bits :].reshape(-1)
        data = np.packbits(unpacked).tobytes()
        found.append(data + bytes(-len(data) % 4))
    return b"".join(found)


def _words(rgb: Array, masks: tuple[int, int, int], dtype: str) -> bytes:
    values = np.zeros(rgb.shape[:2], np.uint32)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        most = mask >> shift
        values |= (np.round(rgb[..., channel] / 255 * most).astype(np.uint32)) << shift
    rows = [row.astype(dtype).tobytes() for row in values[::-1]]
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


def _run_lengths(indices: Array, *, nibbles: bool) -> bytes:
    """RLE: runs, and a literal run at the start of each row."""
    found = bytearray()
    for row in indices[::-1]:
        head, rest = row[:5], row[5:]
        body = (
            bytes(head)
            if not nibbles
            else bytes((head[0] << 4 | head[1], head[2] << 4 | head[3], head[4] << 4))
        )
        found += bytes((0, len(head))) + body + bytes(len(body) & 1)
        for value in rest:
            found += bytes((1, value << 4 if nibbles else value))
        found += b"\0\0"
    return bytes(found + b"\0\1")


def bmps(rgb: Array) -> Iterator[Row]:
    """All kinds of the picture `rgb`."""
    height, width = rgb.shape[:2]
    for bits in (1, 4, 8):
        yield from _indexed(rgb, bits)
    plain = bmp((width, height, 24), _packed(rgb[..., ::-1].reshape(height, -1), 8))
    yield "bmp 24", plain, plain
    yield (
        "bmp 24 OS/2",
        bmp((width, height, 24), _packed(rgb[..., ::-1].reshape(height, -1), 8), header=12),
        plain,
    )
    down = bmp((width, -height, 24), _packed(rgb[::-1, :, ::-1].reshape(height, -1), 8))
    yield "bmp 24 top down", down, plain
    pixels = _packed(rgb[..., ::-1].reshape(height, -1), 8)
    odds: tuple[tuple[str, dict[str, int]], ...] = (
        ("wrong file size", {"nbytes": 7}),
        ("resolution of -1", {"resolution": -1}),
        ("no planes", {"planes": 0}),
        ("no offset", {"offset": 0}),
        ("colours of 2^31", {"colours": 1 << 31}),
    )
    for name, odd in odds:
        yield f"bmp 24, {name}", bmp((width, height, 24), pixels, **odd), plain  # type: ignore[arg-type]  # none of them is `palette` or `masks`
    for size in (52, 56, 64, 108, 124):
        yield f"bmp 24, header of {size}", bmp((width, height, 24), pixels, header=size), plain
    yield "bmp 24, no last padding", plain[: -(-width * 3 % 4)] if width * 3 % 4 else plain, plain
    yield "bmp 24, bytes behind", plain + b"trailer", plain
    yield from _masked(rgb)


def _indexed(rgb: Array, bits: int) -> Iterator[Row]:
    height, width = rgb.shape[:2]
    most = (1 << bits) - 1
    indices = np.round(rgb.mean(axis=2) / 255 * most).astype(np.uint8)
    palette = np.random.default_rng(bits).integers(0, 256, (most + 1, 4), np.uint8)
    palette[:, 3] = 0
    shape, pixels, colours = (width, height, bits), _packed(indices, bits), palette.tobytes()
    plain = bmp(shape, pixels, palette=colours)
    yield f"bmp {bits}", plain, plain
    yield f"bmp {bits} OS/2", bmp(shape, pixels, palette=colours, header=12), plain
    yield f"bmp {bits}, colours given", bmp(shape, pixels, palette=colours, colours=most + 1), plain
    yield f"bmp {bits}, colours of 100,000", bmp(shape, pixels, palette=colours, colours=100_000), plain
    yield f"bmp {bits}, header of 108", bmp(shape, pixels, palette=colours, header=108), plain
    if bits >= 4:
        packed = _run_lengths(indices, nibbles=bits == 4)
        yield f"bmp RLE{bits}", bmp(shape, packed, palette=colours, compression=3 - bits // 4), plain


def _masked(rgb: Array) -> Iterator[Row]:
    """16 and 32 bits; the picture in a common form for masks that OpenCV ignores."""
    height, width = rgb.shape[:2]
    for name, masks, bits in (
        ("555", (0x7C00, 0x03E0, 0x001F), 16),
        ("565", (0xF800, 0x07E0, 0x001F), 16),
        ("444", (0x0F00, 0x00F0, 0x000F), 16),
        ("BGR 565", (0x001F, 0x07E0, 0xF800), 16),
        ("RGB 888", (0xFF0000, 0xFF00, 0xFF), 32),
        ("BGR 888", (0xFF, 0xFF00, 0xFF0000), 32),
        ("shifted", (0xFF000000, 0xFF0000, 0xFF00), 32),
        ("10-10-10", (0x3FF00000, 0xFFC00, 0x3FF), 32),
    ):
        pixels = _words(rgb, masks, "<u2" if bits == 16 else "<u4")
        shown = _shown(rgb, masks, exact=name in ("555", "565"))
        intact = bmp((width, height, 24), _packed(shown[..., ::-1].reshape(height, -1), 8))
        words = struct.pack("<III", *masks)
        yield f"bmp {bits} {name}", bmp((width, height, bits), pixels, compression=3, masks=words), intact
        data = bmp((width, height, bits), pixels, compression=3, masks=words, header=124)
        yield f"bmp {bits} {name}, header of 124", data, intact
    pixels = _words(rgb, (0x7C00, 0x03E0, 0x001F), "<u2")
    shown = _shown(rgb, (0x7C00, 0x03E0, 0x001F), exact=True)
    intact = bmp((width, height, 24), _packed(shown[..., ::-1].reshape(height, -1), 8))
    yield "bmp 16", bmp((width, height, 16), pixels), intact


def _shown(rgb: Array, masks: tuple[int, int, int], *, exact: bool) -> Array:
    """Return the pixels by the masks, with OpenCV's shifted levels for the two layouts it knows (`exact`)."""
    planes = []
    for channel, mask in enumerate(masks):
        most = mask >> ((mask & -mask).bit_length() - 1)
        level = np.round(rgb[..., channel] / 255 * most).astype(np.int64)
        bits = most.bit_length()
        if bits >= 8:
            planes.append(level >> (bits - 8))
        else:
            planes.append(level << (8 - bits) if exact else np.round(level * 255 / most))
    return np.stack(planes, axis=2).astype(np.uint8)
