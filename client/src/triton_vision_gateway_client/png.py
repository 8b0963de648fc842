"""PNG files of RGB arrays, without an imaging library (RFC 2083: signature, IHDR, IDAT, IEND)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # the filter that stores the difference to the row above
_LEVEL = 1  # of zlib: the fastest, because pictures travel once


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Return a PNG file with the same pixels.

    Args:
        rgb: `(height, width, 3)` uint8.
    """
    height, width, _ = rgb.shape
    pixels = np.ascontiguousarray(rgb).reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256, as the format has it
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), _LEVEL)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
