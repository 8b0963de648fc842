"""Bounds, damage and orientation of pictures, row by row."""

from __future__ import annotations

import functools
import struct
import time
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image
from support.picture_files import HEIGHT, RGB, WIDTH, chunk, png, riff, saved, segment, tiff

from app.errors import GatewayError, ImageTooLarge, InvalidImage, UnsupportedMediaType
from app.media.image import decode_image, decoded_bytes
from app.media.pictures import jpeg

BASELINE = saved(Image.fromarray(RGB), "JPEG", quality=90)
PROGRESSIVE = saved(Image.fromarray(RGB), "JPEG", progressive=True)
PNG = png(2, 8, interlaced=False)
WEBP = saved(Image.fromarray(RGB), "WEBP", quality=80)
EXIF = b"Exif\0\0"
TURNED, STORED = (WIDTH, HEIGHT), (HEIGHT, WIDTH)


def with_scans(data: bytes, count: int) -> bytes:
    """The progressive JPEG `data` with its last scan repeated until there are `count`."""
    have, end = jpeg.scans(data, data.index(b"\xff\xda"))
    last = data[data.rindex(b"\xff\xda") : end - 2]
    return data[: end - 2] + last * (count - len(have)) + data[end - 2 :]


def test_a_usual_number_of_scans_is_decoded() -> None:
    """Forty scans are the limit, and a progressive picture of today's encoders has ten."""
    assert len(jpeg.scans(PROGRESSIVE, PROGRESSIVE.index(b"\xff\xda"))[0]) == 10
    assert decode_image(with_scans(PROGRESSIVE, jpeg.MOST_SCANS)).shape[:2] == STORED


@pytest.mark.parametrize("count", [jpeg.MOST_SCANS + 1, 6000])
def test_too_many_scans_are_refused_before_decoding(count: int) -> None:
    """Each scan costs a pass over the whole picture, so they are counted first."""
    with pytest.raises(InvalidImage, match="more than 40 scans"):
        decode_image(with_scans(PROGRESSIVE, count))


def test_markers_in_tables_are_no_scans() -> None:
    """Bytes of a comment that look like the marker of a scan are not counted."""
    scan = PROGRESSIVE.rindex(b"\xff\xda")
    comment = segment(0xFE, b"\xff\xda" * 100)
    data = PROGRESSIVE[:scan] + comment + PROGRESSIVE[scan:]
    np.testing.assert_array_equal(decode_image(data), decode_image(PROGRESSIVE))


MANY = {
    "segments": BASELINE[:2] + segment(0xE5, b"") * 1_000_000 + BASELINE[2:],
    "fill bytes": BASELINE[:2] + b"\xff" * 4_000_000 + BASELINE[2:],
    "segments between scans": PROGRESSIVE[:-2] + segment(0xE5, b"") * 1_000_000,
    "PNG chunks": PNG[:33] + chunk(b"tEXt", b"a\0b") * 200_000 + PNG[33:],
    "empty IDAT": PNG[:33] + chunk(b"IDAT", b"") * 200_000 + PNG[33:],
    "WebP chunks": WEBP[:12] + (b"abcd" + bytes(4)) * 500_000 + WEBP[12:],
}


def cpu_s(work: Callable[[], object]) -> float:
    """Processor time of this process in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.parametrize("name", MANY)
def test_work_on_parts_is_bounded(name: str) -> None:
    """Millions of tiny parts cost little CPU, with a picture or a refusal in our words."""
    began = time.process_time()
    try:
        decode_image(MANY[name])
    except InvalidImage as error:
        assert "more than" in error.detail or "damaged" in error.detail  # noqa: PT017  # either outcome is right
    assert time.process_time() - began < 2


@functools.cache
def zeros(length: int) -> bytes:
    """So many zeros, deflated."""
    return zlib.compress(bytes(length), 1)


@pytest.mark.parametrize("name", ["zTXt", "iCCP"])
def test_metadata_is_never_inflated(name: str) -> None:
    """A hundred megabytes of zeros in a chunk of metadata cost nothing."""
    bomb = zeros(100_000_000)
    data = PNG[:33] + chunk(name.encode(), b"x\0\0" + bomb) + PNG[33:]
    inflating = cpu_s(lambda: zlib.decompress(bomb))
    assert cpu_s(lambda: decode_image(data)) < inflating / 2
    np.testing.assert_array_equal(decode_image(data), decode_image(PNG), err_msg=name)


def test_image_data_far_beyond_the_picture_is_not_inflated() -> None:
    """Two hundred megabytes of zeros behind a small picture's rows are refused at once."""
    bomb = zeros(200_000_000)
    data = PNG[:33] + chunk(b"IDAT", bomb) + PNG[-12:]
    inflating = cpu_s(lambda: zlib.decompress(bomb))

    def refused() -> None:
        with pytest.raises(InvalidImage, match="many times longer"):
            decode_image(data)

    assert cpu_s(refused) < inflating / 2


def test_a_side_has_a_limit() -> None:
    """Two million rows of one pixel are few pixels and much work."""
    header = struct.pack(">IIBBBBB", 1, 2_000_000, 8, 0, 0, 0, 0)
    data = PNG[:8] + chunk(b"IHDR", header) + PNG[33:]
    with pytest.raises(ImageTooLarge, match="longest side"):
        decode_image(data)


CUT = {
    "JPEG cut in its scan": BASELINE[:-40],
    "JPEG cut three bytes before its end": BASELINE[:-3],
    "progressive JPEG cut behind a scan": PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")],
    "progressive JPEG of one scan": PROGRESSIVE[: PROGRESSIVE.index(b"\xff\xc4", PROGRESSIVE.index(b"\xff\xda"))],
    "PNG cut in its IDAT": PNG[:-60],
    "PNG of too few rows": PNG[: PNG.index(b"IDAT") - 4] + chunk(b"IDAT", zlib.compress(bytes(999))) + PNG[-12:],
    "WebP cut": WEBP[:-9],
    "BMP cut": saved(Image.fromarray(RGB), "BMP")[:-200],
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_missing_image_data_is_an_error_in_our_words(name: str) -> None:
    """A picture whose image data is cut is refused without any text of a library."""
    with pytest.raises(InvalidImage, match=r"cut off|incomplete") as refused:
        decode_image(CUT[name])
    assert "BytesIO" not in refused.value.detail
    assert "0x" not in refused.value.detail


def test_only_the_end_marker_may_be_missing() -> None:
    """A JPEG without EOI has all its pixels, baseline and progressive."""
    for data in (BASELINE, PROGRESSIVE):
        np.testing.assert_array_equal(decode_image(data[:-2]), decode_image(data))
        np.testing.assert_array_equal(decode_image(data[:-1]), decode_image(data))


def webp(exif: bytes, flags: int = 0x08) -> bytes:
    canvas = bytes((flags, 0, 0, 0)) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    return riff((b"VP8X", canvas), (b"VP8 ", WEBP[20:]), (b"EXIF", exif))


def app1(body: bytes) -> bytes:
    return segment(0xE1, body)


FAR = BASELINE[:2] + segment(0xE2, bytes(65_000)) * 9 + app1(EXIF + tiff(6)) + BASELINE[2:]
ORIENTED = [
    ("EXIF first", BASELINE[:2] + app1(EXIF + tiff(6)) + BASELINE[2:], TURNED),
    ("EXIF behind 585 kB", FAR, TURNED),
    ("EXIF behind the frame header", BASELINE.replace(b"\xff\xda", app1(EXIF + tiff(6)) + b"\xff\xda", 1), TURNED),
    ("EXIF behind a broken one", BASELINE[:2] + app1(EXIF + b"x") + app1(EXIF + tiff(6)) + BASELINE[2:], TURNED),
    ("the first of two", BASELINE[:2] + app1(EXIF + tiff(6)) + app1(EXIF + tiff(1)) + BASELINE[2:], TURNED),
    ("orientation 9", BASELINE[:2] + app1(EXIF + tiff(9)) + BASELINE[2:], STORED),
    ("XMP alone", BASELINE[:2] + app1(b"http://ns.adobe.com/xap/1.0/\0 tiff:Orientation=6") + BASELINE[2:], STORED),
    ("eXIf in front", png(2, 8, interlaced=False, extra=chunk(b"eXIf", tiff(6))), TURNED),
    ("eXIf behind", png(2, 8, interlaced=False, behind=chunk(b"eXIf", tiff(6))), TURNED),
    ("eXIf with a wrong CRC", png(2, 8, interlaced=False, extra=chunk(b"eXIf", tiff(6), 1)), STORED),
    ("WebP EXIF", webp(tiff(6)), TURNED),
    ("WebP EXIF, not announced", webp(tiff(6), flags=0), STORED),
    ("WebP XMP flag", webp(b"garbage", flags=0x0C), STORED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "shape"), ORIENTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_exif_alone_orients(name: str, data: bytes, shape: tuple[int, int]) -> None:
    """The first readable EXIF block counts, wherever it stands, and nothing else does; OpenCV agrees."""
    del name
    assert decode_image(data).shape[:2] == shape
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is None or decoded.shape[:2] == shape


@pytest.mark.parametrize(
    ("frame", "said"),
    [(0xC3, "a lossless JPEG picture"), (0xC5, "a hierarchical JPEG picture"), (0xF7, "a JPEG-LS picture")],
)
def test_rare_processes_of_jpeg_are_named(frame: int, said: str) -> None:
    """A process that the decoder doesn't support is a kind of the table."""
    at = BASELINE.index(b"\xff\xc0") + 1
    with pytest.raises(UnsupportedMediaType, match=said):
        decode_image(BASELINE[:at] + bytes((frame,)) + BASELINE[at + 1 :])


@pytest.mark.parametrize(
    ("data", "least"),
    [(BASELINE, 3), (PROGRESSIVE, 6), (PNG, 6), (WEBP, 4), (saved(Image.fromarray(RGB), "BMP"), 3)],
)
def test_memory_is_known_before_decoding(data: bytes, least: int) -> None:
    """The header says how many bytes decoding takes: at least those of the pixels."""
    assert least * WIDTH * HEIGHT <= decoded_bytes(data) - len(data) <= 16 * WIDTH * HEIGHT


@pytest.mark.parametrize("data", [b"", b"text", BASELINE[:30], PNG[:20], WEBP[:20], b"\xff\xd8\xff\xc0\0"])
def test_no_memory_is_asked_for_what_is_refused(data: bytes) -> None:
    """A body without a usable header takes none, and its refusal says why."""
    assert decoded_bytes(data) == 0
    with pytest.raises(GatewayError):
        decode_image(data)
