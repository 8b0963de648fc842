"""Names of content that is not served, from the one table of kinds."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from app.errors import UnsupportedMediaType
from app.media.containers import sniff_container
from app.media.image import decode_image
from app.media.kinds import UNKNOWN, is_bmp, kind_of


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, kind)
    return buffer.getvalue()


def ftyp(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4) + body + bytes(64)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a", "b")
    return buffer.getvalue()


REFUSED: list[tuple[bytes, str]] = [
    (ftyp(b"heic", b"mif1"), "a HEIC picture"),
    (ftyp(b"mif1", b"mif1", b"heic"), "a HEIC picture"),
    (ftyp(b"mif1", b"miaf", b"avif"), "an AVIF picture"),
    (ftyp(b"mif1"), "a HEIF picture"),
    (ftyp(b"avif"), "an AVIF picture"),
    (ftyp(b"crx ", b"isom"), "a CR3 raw picture"),
    (ftyp(b"M4A ", b"isom"), "an M4A audio file"),
    (ftyp(b"isom"), "an MP4 or QuickTime file"),
    (bytes(4) + b"moov" + bytes(9), "an MP4 or QuickTime file"),
    (saved("JPEG2000"), "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51\x00", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
    (saved("GIF"), "a GIF"),
    (saved("TIFF"), "a TIFF picture or a camera's raw picture"),
    (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "a CR2 raw picture"),
    (b"FUJIFILMCCD-RAW 0201", "a RAF raw picture"),
    (b"8BPS\x00\x01", "a Photoshop (PSD) picture"),
    (saved("ICO"), "an ICO icon"),
    (saved("PPM"), "a Netpbm picture"),
    (saved("DDS"), "a DDS texture"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "an SVG drawing"),
    (b"<?xml version='1.0'?><a/>", "XML"),
    (saved("PDF"), "a PDF document"),
    (npy(), "a NumPy array (npy)"),
    (archive(), "a ZIP archive"),
    (b"\x1f\x8b\x08\x00", "a gzip file"),
    (b"\x47" + bytes(187) + b"\x47", "an MPEG transport stream"),
    (bytes(4) + b"\x47" + bytes(191) + b"\x47", "an MPEG transport stream"),
    (b"\x00\x00\x01\xba\x44", "an MPEG program stream"),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webm", "a Matroska or WebM file"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a WAVE audio file"),
    (b"ID3\x04\x00", "an MP3 audio file"),
    (b"OggS\x00", "an Ogg file"),
    (b"FLV\x01", "an FLV file"),
    (b"<!DOCTYPE html>\n<html>", "an HTML page"),
    (b'{"image": "abc"}', "JSON text"),
    ('{"image": "abc"}'.encode("utf-16"), "JSON text"),
    (b"data:image/jpeg;base64,/9j/4AAQ", "text: a data URI"),
    (b"/9j/4AAQSkZJRgABAQ", "text: a JPEG picture in base64"),
    (b"iVBORw0KGgoAAAANSUhEUgAA", "text: a PNG picture in base64"),
    (b"--boundary\r\nContent-Disposition: form-data", "text that begins like a multipart form"),
    (b"BMW is a car", "text"),
    ("Größe: 3 m".encode(), "text"),
    (b"\x80\x04\x95\x10", UNKNOWN),
    (bytes(64), UNKNOWN),
    (b"\x00", UNKNOWN),
]


@pytest.mark.parametrize(("data", "name"), REFUSED)
def test_a_picture_route_names_what_it_refuses(data: bytes, name: str) -> None:
    """The refusal of each kind holds its name from the table and no text of a library."""
    assert kind_of(data[:4096]) == name
    with pytest.raises(UnsupportedMediaType) as refused:
        decode_image(data)
    assert refused.value.detail == f"the content is {name}, not a JPEG, PNG, WebP or BMP picture"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_a_video_route_takes_its_names_from_the_same_table(kind: str) -> None:
    """A picture sent as a video is named with the words of the table."""
    data = saved(kind)
    with pytest.raises(UnsupportedMediaType) as refused:
        sniff_container(data[:4096])
    assert kind_of(data) in refused.value.detail


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_served_kinds_are_in_the_table(kind: str) -> None:
    """The table names what is served as well, for routes that take something else."""
    assert kind_of(saved(kind)).lower() == f"a {kind} picture".lower()


def test_text_that_begins_with_bm_is_no_bitmap() -> None:
    """A BMP is known by its second header's size, too."""
    assert is_bmp(saved("BMP"))
    assert not is_bmp(b"BM is how this text begins, and it goes on")
