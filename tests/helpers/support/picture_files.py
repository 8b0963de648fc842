"""Small pictures of every kind with damaged metadata, made from a seed, for comparisons of decoders."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from support.bmp_files import bmps

WIDTH, HEIGHT = 45, 29
Array = NDArray[np.uint8]
# Smooth, so that JPEG keeps it; no two corners alike, so that a turn shows.
RGB: Array = np.asarray(
    cv2.resize(
        np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8),
        (WIDTH, HEIGHT),
        interpolation=cv2.INTER_CUBIC,
    ),
    np.uint8,
)


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file with damaged metadata, and the same picture without the damage."""

    name: str
    data: bytes
    intact: bytes


def all_pictures() -> list[PictureFile]:
    """Make all of them."""
    return [*_pngs(), *_jpegs(), *_webps(), *(PictureFile(*row) for row in bmps(RGB))]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with one entry."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


XMP6 = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


# PNG


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    found = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", found)


_PNG_TYPES = [
    *((0, depth) for depth in (1, 2, 4, 8, 16)),
    *((3, depth) for depth in (1, 2, 4, 8)),
    *((colour, depth) for colour in (2, 4, 6) for depth in (8, 16)),
]
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _samples(colour: int, depth: int) -> NDArray[np.uint16]:
    grey = RGB.mean(axis=2)
    planes = {
        0: [grey],
        2: list(RGB.transpose(2, 0, 1)),
        3: [grey],
        4: [grey, 255 - grey],
        6: [*RGB.transpose(2, 0, 1), 255 - grey],
    }[colour]
    most = (1 << depth) - 1
    return np.round(np.stack(planes, axis=2) / 255 * most).astype(np.uint16)


def _rows(samples: NDArray[np.uint16], depth: int) -> bytes:
    rows = []
    for row in samples.reshape(len(samples), -1):
        if depth == 16:
            packed = row.astype(">u2").tobytes()
        elif depth == 8:
            packed = row.astype(np.uint8).tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
            packed = np.packbits(bits.reshape(-1)).tobytes()
        rows.append(b"\0" + packed)
    return b"".join(rows)


def png(colour: int, depth: int, *, interlaced: bool, extra: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG of the picture; `extra` chunks stand before the image data, `behind` after it."""
    samples = _samples(colour, depth)
    if interlaced:
        parts = (samples[top::down, left::right] for left, top, right, down in _ADAM7)
        raw = b"".join(_rows(part, depth) for part in parts if part.size)
    else:
        raw = _rows(samples, depth)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced)
    palette = b""
    if colour == 3:
        palette = chunk(b"PLTE", np.random.default_rng(depth).bytes(3 << depth))
    data = chunk(b"IDAT", zlib.compress(raw))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + palette + extra + data + behind + chunk(b"IEND", b"")


_BOMB = zlib.compress(bytes(2_000_000), 9)
_PNG_DAMAGE: dict[str, bytes] = {
    "pHYs crc": chunk(b"pHYs", bytes(9), 1),
    "pHYs short": chunk(b"pHYs", b"\0\1"),
    "iCCP garbage": chunk(b"iCCP", b"x\0\0" + b"garbage" * 9),
    "iCCP bomb": chunk(b"iCCP", b"x\0\0" + _BOMB),
    "iCCP crc": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"), 7),
    "tEXt crc": chunk(b"tEXt", b"a\0b", 7),
    "zTXt bomb": chunk(b"zTXt", b"x\0\0" + _BOMB),
    "zTXt garbage": chunk(b"zTXt", b"\xff" * 40),
    "iTXt bomb": chunk(b"iTXt", b"x\0\1\0\0\0" + _BOMB),
    "iTXt short": chunk(b"iTXt", b"x"),
    "eXIf garbage": chunk(b"eXIf", b"garbage"),
    "eXIf 6": chunk(b"eXIf", tiff(6)),
    "eXIf 8 big-endian": chunk(b"eXIf", tiff(8, ">")),
    "eXIf crc": chunk(b"eXIf", tiff(6), 9),
    "XMP 6": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP6),
    "raw profile 6": chunk(
        b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n" % 32 + (b"Exif\0\0" + tiff(6)).hex().encode()
    ),
    "tRNS long": chunk(b"tRNS", bytes(300)),
    "tRNS empty": chunk(b"tRNS", b""),
    "cHRM garbage": chunk(b"cHRM", b"\xff" * 32),
    "gAMA 0": chunk(b"gAMA", bytes(4)),
    "gAMA and sRGB": chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\x09"),
    "sBIT wrong": chunk(b"sBIT", b"\xff"),
    "bKGD wrong": chunk(b"bKGD", b"\xff"),
    "hIST wrong": chunk(b"hIST", b"\xff"),
    "tIME wrong": chunk(b"tIME", b"\xff" * 3),
    "sPLT wrong": chunk(b"sPLT", b"x\0\x07"),
    "unknown": chunk(b"prVt", b"\xff" * 30, 3),
    "acTL of one frame": chunk(b"acTL", struct.pack(">II", 1, 0)),
}


def _pngs() -> Iterator[PictureFile]:
    """Each type with its share of the damages, so that each damage meets several types."""
    damages = list(_PNG_DAMAGE.items())
    number = 0
    for interlaced in (False, True):
        for colour, depth in _PNG_TYPES:
            name = f"png type {colour} of {depth} bits{' interlaced' if interlaced else ''}"
            whole = png(colour, depth, interlaced=interlaced)
            yield PictureFile(name, whole, whole)
            yield PictureFile(f"{name}, no IEND", whole[:-12], whole)
            for _ in range(2):
                damage, extra = damages[number % len(damages)]
                number += 1
                yield PictureFile(
                    f"{name}, {damage}", png(colour, depth, interlaced=interlaced, extra=extra), whole
                )
    for damage in ("eXIf 6", "tEXt crc", "zTXt bomb"):
        data = png(2, 8, interlaced=False, behind=_PNG_DAMAGE[damage])
        yield PictureFile(
            f"png, {damage} behind the image data",
            data,
            png(2, 8, interlaced=False, extra=_PNG_DAMAGE[damage]),
        )


# JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAx"
    "NDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
    "MjIyMjIyMjL/yQARCAArAD0DASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDBgs+33cdIX6KlDlBhoJOBHiVS5G5W"
    "NkuQWjgC/Lo1xnx+E3SGU9HymFnQE1m1rXwfrs4dtZovnaPnFTcO8bU9R76b+BIzfyCKEFXi8WxE9dDEDqqMpyBI0O2jFZirukpe"
    "rTxKN6AIQouDKUSupH9gVvaegB25yyFoNUo8VYSTK5LKNPTA4p+Sc+i7RFL+3ggQLL8BXuXElqZD3zaBGHdWTrdjsl1KX0qiAA2/"
    "gb0SpYHCulsSwu+2BXS6qd51iTYvL267QgjPsabOqRl1ohV7Bu8V+M++JAFa4MVDKkDi7TzjGj1+uSnnBnmhmRM5SfmfVWLfueej"
    "/FgAW1f09YtCKtYRrFb9NCio6yhJ822FSRH06q/0/wBuu+S6oAz8rerAvz+Noh/KOEynAX5lsveod8Ww9uPycYHFW/a2Mqg+Bc/1"
    "ILq1TVWD+jKRKPqP3paklA14SxcYzjy/lbK2qLqij/AKIgcv9haYo0zLI1igfzxS9mpVR9vyQ8C5fe02vKCUhDGMG3oszyF/zsqO"
    "2Yckf4aUbxM2q7FkP5PgX5iOsk6yAD8S5fo71M8l0oJKbDizshv7gZjrw6dmwCFmTWPMg9sxAH/YlqN3lzwV/BHmnUt6Mv1/AdB/"
    "9eRotgzubOIzQGteZcroNZ2M1HYQ/9k="
)


def _jpeg_kinds() -> dict[str, bytes]:
    image = Image.fromarray(RGB)
    cmyk = saved(image.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe\0") + 11
    sampled = {
        name: cv2.imencode(".jpg", RGB[..., ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, value])[1].tobytes()
        for name, value in (
            ("4:1:1", 0x411111),
            ("4:2:0", 0x221111),
            ("4:2:2", 0x211111),
            ("4:4:0", 0x121111),
            ("4:4:4", 0x111111),
        )
    }
    return {
        **{f"jpeg {name}": data for name, data in sampled.items()},
        "jpeg grey": saved(image.convert("L"), "JPEG"),
        "jpeg progressive": saved(image, "JPEG", progressive=True),
        "jpeg grey progressive": saved(image.convert("L"), "JPEG", progressive=True),
        "jpeg optimised": saved(image, "JPEG", optimize=True, quality=95),
        "jpeg restart markers": saved(image, "JPEG", restart_marker_blocks=2),
        "jpeg CMYK": cmyk,
        "jpeg YCCK": cmyk[:adobe] + b"\2" + cmyk[adobe + 1 :],
        "jpeg RGB": saved(image, "JPEG", keep_rgb=True),
        "jpeg arithmetic": _ARITHMETIC,
    }  # fmt: skip


_EXIF = b"Exif\0\0"
_JPEG_DAMAGE: dict[str, bytes] = {
    "short Adobe": segment(0xEE, b"Adobe"),
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short ICC": segment(0xE2, b"ICC_PROFILE\0"),
    "empty segments": b"".join(segment(marker, b"") for marker in range(0xE0, 0xF0)),
    "EXIF garbage": segment(0xE1, _EXIF + b"garbage"),
    "EXIF 6 and short ICC": segment(0xE1, _EXIF + tiff(6)) + segment(0xE2, b"ICC_PROFILE\0\1"),
    "EXIF 3 and short Adobe": segment(0xE1, _EXIF + tiff(3, ">")) + segment(0xEE, b"Adobe\0"),
    "EXIF 8 behind 128 kB": segment(0xE2, bytes(65_000)) * 2 + segment(0xE1, _EXIF + tiff(8)),
    "XMP 6": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP6),
    "XMP, then EXIF 6": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP6)
    + segment(0xE1, _EXIF + tiff(6)),
    "EXIF of no entries": segment(0xE1, _EXIF + b"II*\0" + struct.pack("<IH", 8, 60_000)),
    "broken MPF": segment(0xE2, b"MPF\0garbage"),
    "comment": segment(0xFE, b"\xff\xd9\xff\xda"),
}


def _jpegs() -> Iterator[PictureFile]:
    damages = list(_JPEG_DAMAGE.items())
    number = 0
    for name, whole in _jpeg_kinds().items():
        yield PictureFile(name, whole, whole)
        yield PictureFile(f"{name}, no EOI", whole[:-2], whole)
        yield PictureFile(f"{name}, bytes behind EOI", whole + b"\0trailer\xff", whole)
        for _ in range(4):
            damage, extra = damages[number % len(damages)]
            number += 1
            yield PictureFile(f"{name}, {damage}", whole[:2] + extra + whole[2:], whole)
        at = whole.index(b"\xff\xdb")
        yield PictureFile(f"{name}, junk before a marker", whole[:at] + b"\0\0" + whole[at:], whole)
    whole = _jpeg_kinds()["jpeg 4:2:0"]
    at = whole.index(b"\xff\xc0") + 5
    late = whole[:at] + b"\0\0" + whole[at + 2 : -2] + b"\xff\xdc\0\4" + HEIGHT.to_bytes(2) + whole[-2:]
    yield PictureFile("jpeg, height in DNL", late, whole)


# WebP


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _webps() -> Iterator[PictureFile]:
    image, alpha = Image.fromarray(RGB), Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
    kinds = {
        "webp lossy": saved(image, "WEBP", quality=80),
        "webp lossless": saved(image, "WEBP", lossless=True),
        "webp lossy alpha": saved(alpha, "WEBP", quality=80, exact=True),
        "webp lossless alpha": saved(alpha, "WEBP", lossless=True, exact=True),
    }
    for name, whole in kinds.items():
        yield PictureFile(name, whole, whole)
        streams = [(kind, body) for kind, body in _webp_chunks(whole) if kind in (b"VP8 ", b"VP8L", b"ALPH")]
        for damage, flags, before, behind in _WEBP_DAMAGE:
            canvas = bytes((flags | 0x10 * ("alpha" in name), 0, 0, 0)) + _u24(WIDTH - 1) + _u24(HEIGHT - 1)
            data = riff((b"VP8X", canvas), *before, *streams, *behind)
            yield PictureFile(f"{name}, {damage}", data, whole)
        yield PictureFile(f"{name}, wrong RIFF size", whole[:4] + b"\xff\0\0\1" + whole[8:], whole)
        frame = b"".join(
            kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1) for kind, body in streams
        )
        place = bytes(6) + _u24(WIDTH - 1) + _u24(HEIGHT - 1) + _u24(100) + b"\0"
        canvas = bytes((0x02 | 0x10 * ("alpha" in name), 0, 0, 0)) + _u24(WIDTH - 1) + _u24(HEIGHT - 1)
        animation = riff((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", place + frame))
        yield PictureFile(f"{name}, animation of one frame", animation, whole)


_Chunks = list[tuple[bytes, bytes]]
_WEBP_DAMAGE: list[tuple[str, int, _Chunks, _Chunks]] = [
    ("EXIF garbage", 0x08, [], [(b"EXIF", b"garbage")]),
    ("EXIF empty", 0x08, [], [(b"EXIF", b"")]),
    ("EXIF 6", 0x08, [], [(b"EXIF", tiff(6))]),
    ("EXIF 8 big-endian", 0x08, [], [(b"EXIF", tiff(8, ">"))]),
    ("XMP 6", 0x04, [], [(b"XMP ", XMP6)]),
    ("ICCP garbage", 0x20, [(b"ICCP", b"garbage")], []),
    ("unknown chunks", 0, [(b"abcd", b"x")], [(b"efgh", b"y" * 33)]),
]


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
