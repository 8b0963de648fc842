"""Picture bytes to RGB pixels: format by content, size from the header before anything is decoded.

The pixels are those that OpenCV's `imread` would give a model, in RGB: EXIF orientation applied, grey widened, alpha
dropped, 16 bits cut to the upper 8. Metadata never decides whether pixels are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors import GatewayError, ImageTooLarge, InvalidImage, UnsupportedMediaType
from app.media.kinds import is_bmp, kind_of
from app.media.pictures import bmp, jpeg, png, webp
from app.media.pictures.base import Header, Pixels, damaged
from app.media.pictures.exif import UPRIGHT, upright

_HEAD_BYTES = 4096  # enough for `kind_of`
LONGEST_SIDE = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """`max_pixels`: width x height of the largest picture that is decoded."""

    max_pixels: int = 64_000_000


class Codec(Protocol):
    """A module of `app.media.pictures`."""

    def read(self, data: bytes) -> Any: ...
    def decode(self, data: bytes, header: Any) -> tuple[Pixels, int]: ...


_CODECS: Mapping[str, Codec] = {"JPEG": jpeg, "PNG": png, "WebP": webp, "BMP": bmp}


def sniff(data: bytes) -> str:
    """Return the picture format that the first bytes announce: `JPEG`, `PNG`, `BMP` or `WebP`.

    Raises:
        InvalidImage: there are no bytes.
        UnsupportedMediaType: they announce something else.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if is_bmp(data):
        return "BMP"
    if not data:
        raise InvalidImage("the body is empty")
    kind = kind_of(data[:_HEAD_BYTES])
    raise UnsupportedMediaType(f"the content is {kind}, not a JPEG, PNG, WebP or BMP picture")


def is_picture(head: bytes) -> bool:
    """Return True for a body that begins like one of the supported picture formats."""
    try:
        sniff(head)
    except GatewayError:
        return False
    return True


def decode_image(data: bytes, limits: ImageLimits | None = None, least_side: int = 0) -> Pixels:
    """Decode one still picture.

    Args:
        data: a complete JPEG, PNG, WebP or BMP file.
        limits: pixels are counted from the header before decoding.
        least_side: of a JPEG, decode a fraction of the size (at most half of it) that has this many rows and columns,
            where there is one; 0: decode all of it.

    Returns:
        `[height, width, 3]` uint8 RGB, C-contiguous, as a viewer shows it (EXIF orientation applied).

    Raises:
        InvalidImage: empty, damaged, cut off, animated, or of too many parts.
        ImageTooLarge: more pixels than `limits` allow.
        UnsupportedMediaType: no picture format that is served.
    """
    name = sniff(data)
    codec = _CODECS[name]
    try:
        header = codec.read(data)
        _check_size(header, limits or ImageLimits())
        pixels, turned = (
            jpeg.decode(data, header, least_side) if codec is jpeg else codec.decode(data, header)
        )
        return pixels if turned == UPRIGHT else upright(pixels, turned)
    except GatewayError:
        raise
    except Exception as error:  # what a parser meets in damaged bytes: the words are ours
        raise damaged(name, "it can't be decoded") from error


def size_of_scalable(data: bytes, limits: ImageLimits) -> tuple[int, int] | None:
    """Return width and height of a picture as shown, if it is of a kind that can be decoded at a fraction of its size.

    Raises:
        InvalidImage, ImageTooLarge, UnsupportedMediaType: as `decode_image`.
    """
    name = sniff(data)
    if name != "JPEG":
        return None
    try:
        header = jpeg.read(data)
        _check_size(header, limits)
        return jpeg.size_shown(data, header)
    except GatewayError:
        raise
    except Exception as error:  # as above
        raise damaged(name, "it can't be decoded") from error


def decoded_bytes(data: bytes, further: int = 0) -> int:
    """Estimate the memory in bytes that a picture takes, from its header; 0 for what is refused anyway.

    Args:
        data: a picture file.
        further: bytes per pixel beyond decoding, such as for an answer of the picture's size.
    """
    try:
        header: Header = _CODECS[sniff(data)].read(data)
    except Exception:  # noqa: BLE001  # `decode_image` says what is wrong with it
        return 0
    return len(data) + header.width * header.height * (header.pixel_bytes + further)


def _check_size(header: Header, limits: ImageLimits) -> None:
    width, height = header.width, header.height
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the picture is {width}x{height}, {width * height} pixels; the limit is {limits.max_pixels}"
        )
    if max(width, height) > LONGEST_SIDE:
        raise ImageTooLarge(f"the picture is {width}x{height}; the longest side is limited to {LONGEST_SIDE}")
