"""Picture bytes to pixels: every mode as OpenCV reads it, every damage as an error of ours."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support.paths import ROOT

from app.errors import GatewayError, ImageTooLarge, InvalidImage, UnsupportedMediaType
from app.media.image import ImageLimits, decode_image, sniff

RNG = np.random.default_rng(0)
# Smooth, so that JPEG keeps it; no two corners alike, so that orientation shows.
RGB: NDArray[np.uint8] = cv2.resize(
    RNG.integers(0, 256, (5, 7, 3), np.uint8), (61, 43), interpolation=cv2.INTER_CUBIC
)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opencv(data: bytes) -> NDArray[np.uint8]:
    """The reference: what OpenCV's IMREAD_COLOR gives a model, in RGB."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)


PICTURE = Image.fromarray(RGB)
GREY16 = (np.arange(43 * 61, dtype=np.uint16).reshape(43, 61) * 24).astype(np.uint16)
ALPHA = np.dstack([RGB, np.tile(np.arange(61, dtype=np.uint8) * 4, (43, 1))])
_, PNG_RGB16 = cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257 - (RGB[..., ::-1] > 0) * 100)
_, PNG_RGBA16 = cv2.imencode(".png", RNG.integers(0, 1 << 16, (43, 61, 4), np.uint16))
LOSSLESS = {
    "png rgb": encode(PICTURE, "PNG"),
    "png rgba": encode(Image.fromarray(ALPHA), "PNG"),
    "png grey": encode(PICTURE.convert("L"), "PNG"),
    "png grey alpha": encode(Image.fromarray(ALPHA).convert("LA"), "PNG"),
    "png 1 bit": encode(PICTURE.convert("1"), "PNG"),
    "png palette": encode(PICTURE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "png palette transparent": encode(PICTURE.quantize(16), "PNG", transparency=3),
    "png grey 16": encode(Image.fromarray(GREY16), "PNG"),
    "png rgb 16": PNG_RGB16.tobytes(),
    "png interlaced": encode(PICTURE, "PNG", interlace=1),
    "bmp": encode(PICTURE, "BMP"),
    "webp lossless": encode(PICTURE, "WEBP", lossless=True),
    "webp lossless alpha": encode(Image.fromarray(ALPHA), "WEBP", lossless=True, exact=True),
    "jpeg 4:4:4": encode(PICTURE, "JPEG", subsampling=0, quality=95),
    "jpeg 4:2:0": encode(PICTURE, "JPEG", subsampling=2),
    "jpeg progressive": encode(PICTURE, "JPEG", progressive=True),
    "jpeg grey": encode(PICTURE.convert("L"), "JPEG"),
    "jpeg restart markers": encode(PICTURE, "JPEG", restart_marker_blocks=2),
    "png palette alpha": encode(PICTURE.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "png grey transparent": encode(PICTURE.convert("L"), "PNG", transparency=90),
    "png rgba 16": PNG_RGBA16.tobytes(),
    "webp lossy": encode(PICTURE, "WEBP", quality=90),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_pixels_are_those_of_opencv(name: str) -> None:
    """Every mode of every format comes out as the reference's reader has it: RGB, 8 bits, alpha dropped."""
    rgb = decode_image(LOSSLESS[name])
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, opencv(LOSSLESS[name]))


def test_cmyk_becomes_rgb() -> None:
    """A print-shop JPEG shows the colours that it had."""
    rgb = decode_image(encode(PICTURE.convert("CMYK"), "JPEG", quality=95))
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - RGB).mean() < 4


def test_the_first_of_a_phone_s_pictures_is_read() -> None:
    """A JPEG that carries further pictures (MPO) is its first one, not an animation."""
    data = encode(PICTURE, "MPO", save_all=True, append_images=_frames()[1:], quality=95, subsampling=0)
    assert b"MPF\0" in data
    assert np.abs(decode_image(data).astype(int) - RGB).mean() < 3


# Alone in its process: pytest turns warnings into errors and would hide what a service prints.
_WARN = """
import sys
from pathlib import Path
from app.media.image import decode_image
for path in sys.argv[1:]:
    print(decode_image(Path(path).read_bytes()).shape)
"""


def test_pictures_with_harmless_faults_are_read_without_a_word(tmp_path: Path) -> None:
    """Damaged EXIF and a palette with alpha decode, and no warning of Pillow's reaches the log or is kept."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 20
    pictures = []
    for kind in ("JPEG", "WEBP"):
        whole = encode(PICTURE, kind, exif=exif)
        at = whole.index(b"\x01\x0e" if b"MM\x00*" in whole else b"\x0e\x01")
        pictures.append(whole[: at + 4] + b"\x7f\x7f" + whole[at + 6 :])  # a length beyond the block
    pictures.append(LOSSLESS["png palette alpha"])
    paths = []
    for number, data in enumerate(pictures):
        path = tmp_path / str(number)
        path.write_bytes(data)
        paths.append(str(path))
    command = [sys.executable, "-W", "always", "-c", _WARN, *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["(43, 61, 3)"] * 3


@pytest.mark.parametrize(
    ("least", "size"),
    [(0, (1000, 600)), (301, (1000, 600)), (300, (500, 300)), (100, (250, 150)), (75, (125, 75))],
)
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size_if_asked(least: int, size: tuple[int, int]) -> None:
    """At the least half, quarter or eighth of it with so long sides; the pixels are those of a smaller picture."""
    large = PICTURE.resize((1000, 600), Image.Resampling.BICUBIC)
    found = decode_image(encode(large, "JPEG", quality=95), None, least)
    assert found.shape == (*size[::-1], 3)
    expected = np.asarray(large.resize(size, Image.Resampling.BOX)).astype(int)
    assert np.abs(found - expected).mean() < 3
    assert decode_image(encode(large, "PNG"), None, least).shape == (600, 1000, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    """A phone's picture comes out as its viewer shows it, in all eight orientations."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    )
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }[orientation]
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert decode_image(data).flags.c_contiguous
    assert np.abs(decode_image(data).astype(int) - RGB).mean() < (3 if kind == "JPEG" else 0.01)


def test_a_jpeg_with_harmless_faults_is_read() -> None:
    """Bytes between the segments, which many cameras leave, don't make a picture unusable."""
    data = LOSSLESS["jpeg 4:2:0"]
    at = data.index(b"\xff\xdb")
    np.testing.assert_array_equal(decode_image(data[:at] + b"\x00\x00" + data[at:]), opencv(data))


def _frames() -> list[Image.Image]:
    return [PICTURE, Image.fromarray(255 - RGB)]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_is_refused(kind: str) -> None:
    """One frame is asked for; which of many is not ours to choose."""
    data = encode(PICTURE, kind, save_all=True, append_images=_frames()[1:], duration=100)
    with pytest.raises(InvalidImage, match="animated"):
        decode_image(data)


def test_nothing_is_no_picture() -> None:
    """An empty body is said to be empty."""
    with pytest.raises(InvalidImage, match="empty"):
        sniff(b"")


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_file_that_is_cut_off_is_refused(name: str) -> None:
    """Half a picture is no picture, wherever it ends."""
    data = LOSSLESS[name]
    for length in {1, 2, 4, 8, 12, 16, 20, 29, 33, len(data) // 3, len(data) // 2, len(data) * 9 // 10}:
        with pytest.raises((InvalidImage, UnsupportedMediaType)):
            decode_image(data[:length])


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=250)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), max_size=6),
)
def test_damage_is_an_error_of_ours_or_a_picture(name: str, damage: list[tuple[int, bytes]]) -> None:
    """Flipped bytes never raise anything foreign, and never give more pixels than allowed."""
    data = bytearray(LOSSLESS[name])
    for at, patch in damage:
        at %= len(data)  # noqa: PLW2901  # folded into the file
        data[at : at + len(patch)] = patch
    try:
        rgb = decode_image(bytes(data), ImageLimits(max_pixels=100_000))
    except GatewayError:
        return
    assert rgb.dtype == np.uint8
    assert rgb.shape[2] == 3
    assert rgb.shape[0] * rgb.shape[1] <= 100_000


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def _jpeg_header(width: int, height: int) -> bytes:
    data = LOSSLESS["jpeg 4:2:0"]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _webp_header(width: int, height: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + b"\0\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    body += LOSSLESS["webp lossy"][12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.parametrize(
    "data",
    [
        png_header(20_000, 20_000),
        png_header(2**31 - 1, 2**31 - 1),
        _jpeg_header(65_500, 65_500),
        _webp_header(16_383, 16_383),
        LOSSLESS["webp lossy"][:26] + struct.pack("<HH", 16_383, 16_383) + LOSSLESS["webp lossy"][30:],
        LOSSLESS["webp lossless"][:21] + b"\xff" * 3 + b"\x0f" + LOSSLESS["webp lossless"][25:],
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + b"\0" * 64,
    ],
    ids=["png", "png max", "jpeg", "webp", "webp simple", "webp simple lossless", "bmp"],
)
def test_a_bomb_is_refused_from_its_header(data: bytes) -> None:
    """Pixels are counted before anything is decoded: memory doesn't move."""
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(ImageTooLarge, match="limit"):
        decode_image(data)
    assert process.memory_info().rss - before < 20_000_000
