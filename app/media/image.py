"""Picture bytes to RGB pixels: format by content, size from the header before anything is decoded.

What is answered is what OpenCV's `imread` would give a model, in RGB: EXIF orientation applied, grey widened,
alpha dropped, 16 bits cut to the upper 8.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.errors import GatewayError, ImageTooLarge, InvalidImage, UnsupportedMediaType
from app.media.kinds import is_bmp, kind_of

Image.MAX_IMAGE_PIXELS = None  # Pillow's guess at a bomb: our own limit is checked from the header
# Each damaged EXIF block would print a line of its own and be remembered for ever; the picture is answered for.
warnings.filterwarnings("ignore", module=r"PIL\.")

# First bytes -> Pillow's name of the format. Only these ever reach a decoder.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
)
_HEAD_BYTES = 4096  # enough for `kind_of`
# EXIF's APP1 segment comes first or after other APP segments, in any case early.
_EXIF_REACH = 1 << 16
_ORIENTATION = 0x0112
_ANIMATED = "the picture is animated; send one frame"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """`max_pixels`: width x height of the largest picture that is decoded."""

    max_pixels: int = 64_000_000


def sniff(data: bytes) -> str:
    """The picture format that the first bytes announce: `JPEG`, `PNG`, `BMP` or `WEBP`.

    Raises:
        InvalidImage: there are no bytes.
        UnsupportedMediaType: they announce something else.
    """
    if not data:
        raise InvalidImage("the body is empty")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if is_bmp(data):
        return "BMP"
    raise UnsupportedMediaType(
        f"the content is {kind_of(data[:_HEAD_BYTES])}, not a JPEG, PNG, WebP or BMP picture"
    )


def decode_image(data: bytes, limits: ImageLimits | None = None) -> NDArray[np.uint8]:
    """Decode one still picture.

    Args:
        data: a complete JPEG, PNG, WebP or BMP file.
        limits: pixels are counted from the header before decoding.

    Returns:
        `[height, width, 3]` uint8 RGB, C-contiguous, as a viewer shows it (EXIF orientation applied).

    Raises:
        InvalidImage: empty, damaged, cut off, or animated.
        ImageTooLarge: more pixels than `limits` allow.
        UnsupportedMediaType: no picture format that is served.
    """
    limits = limits or ImageLimits()
    name = sniff(data)
    if name == "JPEG" and not _has_exif(data):
        rgb = _turbo(data, limits)
        if rgb is not None:
            return rgb
    return _pillow(data, name, limits)


def _has_exif(data: bytes) -> bool:
    """Whether an EXIF block stands among the segments (JPEG, B.1.1.4) before the picture itself."""
    at = 2
    while at < _EXIF_REACH and data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xe1" and data[at + 4 : at + 10] == b"Exif\x00\x00":
            return True
        if marker in (b"\xda", b""):  # the scan begins
            return False
        at += 1 if marker == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def _turbo(data: bytes, limits: ImageLimits) -> NDArray[np.uint8] | None:
    """libjpeg-turbo straight to RGB; None where Pillow has to judge (CMYK, odd or damaged files)."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height, limits)
        if colorspace in ("CMYK", "YCCK"):
            return None
        rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return rgb


def _pillow(data: bytes, name: str, limits: ImageLimits) -> NDArray[np.uint8]:
    try:
        if name == "WEBP":
            _check_webp(data, limits)
        image = Image.open(io.BytesIO(data), formats=(name,))
        _check_pixels(*image.size, limits)
        _check_still(image, name)
        return _rgb(image)
    except GatewayError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsing meets: it is no picture
        raise InvalidImage(f"the {name} picture can't be decoded: {error}") from error


def _check_webp(data: bytes, limits: ImageLimits) -> None:
    """Pillow's WebP opener allocates the whole canvas: read an extended header (RFC 9649, 2.7) first."""
    if data[12:16] != b"VP8X":
        return  # a simple file has 14 bits a side and one frame
    flags, width, height = data[20], *(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    _check_pixels(width, height, limits)
    if flags & 0b10:
        raise InvalidImage(_ANIMATED)


def _check_still(image: Image.Image, name: str) -> None:
    """A phone's JPEG may carry further pictures (MPO): its first one is meant. Animations have no such one."""
    if name != "JPEG" and getattr(image, "is_animated", False):
        raise InvalidImage(_ANIMATED)


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the picture is {width}x{height}, {width * height} pixels; the limit is {limits.max_pixels}"
        )


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pillow's modes to RGB, upright."""
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey: `convert` would clip at 255 instead of cutting
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(upper[..., None], (*upper.shape, 3)))
    image.info.pop("transparency", None)  # dropped like alpha, and `convert` would warn of a palette's
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))
