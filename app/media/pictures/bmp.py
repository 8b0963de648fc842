"""BMP (Windows 3 to 5, OS/2 1 and 2): every header is rewritten as the usual one for the decoder.

Masks that OpenCV doesn't know (or ignores) are applied here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import UnsupportedMediaType
from app.media.kinds import BMP_COMPRESSIONS
from app.media.pictures.base import Header, Pixels, cut_off, damaged, opencv
from app.media.pictures.exif import UPRIGHT

_FILE_HEADER, _INFO_HEADER, _OS2_HEADER = 14, 40, 12
_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_DEPTHS = {_RGB: (1, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _BITFIELDS: (16, 32)}
Masks = tuple[int, int, int]  # of red, green and blue
_MASKS_555: Masks = (0x7C00, 0x03E0, 0x001F)
_MASKS_565: Masks = (0xF800, 0x07E0, 0x001F)
_MASKS_888: Masks = (0xFF0000, 0x00FF00, 0x0000FF)


@dataclass(slots=True)
class Bmp(Header):
    """`pixels_at`, `palette`: where pixels and palette lie; `masks` of 16 and 32 bits per pixel."""

    top_down: bool
    depth: int
    compression: int
    masks: Masks
    palette: slice
    colour_bytes: int
    pixels_at: int

    @property
    def stride(self) -> int:
        """Bytes of an uncompressed row, padded to four."""
        return (self.width * self.depth + 31) // 32 * 4

    @property
    def usual(self) -> bool:
        """Tell the layouts that OpenCV reads as they are meant."""
        known = {16: (_MASKS_555, _MASKS_565), 32: (_MASKS_888,)}
        return self.masks in known.get(self.depth, (self.masks,))


def read(data: bytes) -> Bmp:
    """Read the two headers.

    Raises:
        InvalidImage: damaged or cut off.
        UnsupportedMediaType: a compression that no decoder here knows.
    """
    size = int.from_bytes(data[14:18], "little")
    if len(data) < _FILE_HEADER + size:
        raise cut_off("BMP")
    if size == _OS2_HEADER:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = colours = 0
    else:
        fields = data[18 : _FILE_HEADER + size].ljust(_INFO_HEADER, b"\0")
        width, height, _, depth, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", fields)
    if width <= 0 or height == 0:
        raise damaged("BMP", f"its size is {width}x{height}")
    if compression == _ALPHA_BITFIELDS:
        compression = _BITFIELDS
    if depth not in _DEPTHS.get(compression, ()):
        kind = BMP_COMPRESSIONS.get(compression, f"a BMP picture with {depth} bits per pixel")
        raise UnsupportedMediaType(f"the content is {kind}, which is not supported")
    masks, palette_at = _masks(data, size, depth, compression)
    return _layout(data, (width, height, depth, compression), colours, masks, palette_at)


def _masks(data: bytes, size: int, depth: int, compression: int) -> tuple[Masks, int]:
    """The masks of red, green and blue, and the offset behind header and masks."""
    end = _FILE_HEADER + size
    if compression != _BITFIELDS:
        return _MASKS_555 if depth == 16 else _MASKS_888, end
    at = _FILE_HEADER + _INFO_HEADER
    red, green, blue = struct.unpack_from("<III", data[at : at + 12].ljust(12, b"\0"))
    return (red, green, blue), max(end, at + 12)


def _layout(
    data: bytes, shape: tuple[int, int, int, int], colours: int, masks: Masks, palette_at: int
) -> Bmp:
    width, height, depth, compression = shape
    os2 = int.from_bytes(data[14:18], "little") == _OS2_HEADER
    colour_bytes = 3 if os2 else 4
    pixels_at = int.from_bytes(data[10:14], "little")
    most = 1 << depth if depth <= 8 else 0
    entries = min(colours or most, most)
    if pixels_at < palette_at:  # a writer that left it out
        pixels_at = palette_at + entries * colour_bytes
    entries = min(entries, (pixels_at - palette_at) // colour_bytes)
    return Bmp(
        width=width,
        height=abs(height),
        pixel_bytes=7,
        top_down=height < 0,
        depth=depth,
        compression=compression,
        masks=masks,
        palette=slice(palette_at, palette_at + entries * colour_bytes),
        colour_bytes=colour_bytes,
        pixels_at=pixels_at,
    )


def decode(data: bytes, header: Bmp) -> tuple[Pixels, int]:
    """Pixels, and their orientation, which BMP doesn't have.

    Raises:
        InvalidImage: damaged or cut off.
    """
    rows = memoryview(data)[header.pixels_at :]
    if header.compression in (_RGB, _BITFIELDS):
        padding = header.stride - (header.width * header.depth + 7) // 8
        missing = header.stride * header.height - len(rows)
        if missing > padding:
            raise cut_off("BMP")
        if not header.usual:
            return _masked(rows, header), UPRIGHT
        rows = rows[: header.stride * header.height]
    pixels = opencv(_usual(data, rows, header))
    if pixels is None:
        raise damaged("BMP", "its image data is incomplete or wrong")
    return pixels, UPRIGHT


def _usual(data: bytes, rows: memoryview, header: Bmp) -> bytes:
    """The same picture with Windows' usual header, a whole palette, and whole rows."""
    masks, compression, palette = b"", header.compression, b""
    if compression == _BITFIELDS:
        compression = _RGB if header.masks in (_MASKS_888, _MASKS_555) else _BITFIELDS
        masks = struct.pack("<III", *header.masks) if compression == _BITFIELDS else b""
    if header.depth <= 8:
        palette = _palette(data[header.palette], header)
    at = _FILE_HEADER + _INFO_HEADER + len(masks) + len(palette)
    height = -header.height if header.top_down else header.height
    info = (_INFO_HEADER, header.width, height, 1, header.depth, compression, 0, 0, 0, 0, 0)
    return b"".join(
        (
            struct.pack("<2sIHHI", b"BM", at + len(rows), 0, 0, at),
            struct.pack("<IiiHHIIiiII", *info),
            masks,
            palette,
            rows,
            bytes(header.stride),  # the last row's padding, where it is missing
        )
    )


def _palette(colours: bytes, header: Bmp) -> bytes:
    """All colours of a depth, four bytes each; black where the file has none."""
    table = np.zeros((1 << header.depth, 4), np.uint8)
    given = np.frombuffer(colours, np.uint8)
    given = given[: given.size // header.colour_bytes * header.colour_bytes].reshape(-1, header.colour_bytes)
    table[: len(given), :3] = given[:, :3]
    return table.tobytes()


def _masked(rows: memoryview, header: Bmp) -> Pixels:
    """Pixels as the masks say: a channel's greatest value is 255, and of more than 8 bits the upper 8 count."""
    whole = bytes(rows[: header.stride * header.height]).ljust(header.stride * header.height, b"\0")
    values: NDArray[np.unsignedinteger] = np.frombuffer(whole, "<u2" if header.depth == 16 else "<u4")
    values = values.reshape(header.height, -1)[:: 1 if header.top_down else -1, : header.width]
    rgb = np.zeros((header.height, header.width, 3), np.uint8)
    for channel, mask in enumerate(header.masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            drop = max(0, (mask >> shift).bit_length() - 8)
            most = mask >> shift + drop
            levels = np.round(np.arange(256) * (255 / most)).clip(0, 255).astype(np.uint8)
            rgb[..., channel] = levels[(values >> (shift + drop)) & most]
    return rgb
