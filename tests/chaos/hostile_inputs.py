"""The hostile inputs of `hostile.py`: what each is, where it goes, and which statuses are right."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from support import videos
from support.servers.gateway import png, scene

GOOD = png(scene(320, 320, (1, 64, 96, 32)))
DETECT, TEXT, VIDEOS = "/v1/detect?branch=320", "/v1/clip/text", "/v1/videos"
JSON = {"content-type": "application/json"}
VIDEO = {"content-type": "video/mp4"}
FORM = {"content-type": "multipart/form-data; boundary=XX"}
CLOSED = "closed"  # cut off while it was being sent: no answer is owed
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Attack:
    """`raw`: the body is the whole of what is written to the socket."""

    name: str
    body: bytes
    expected: tuple[int | str, ...]
    path: str = DETECT
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    raw: bool = False


def attacks(folder: Path) -> Iterator[Attack]:
    """All of them; `folder` is for videos that are made on the way."""
    yield from pictures()
    yield from kinds()
    yield from films(folder)
    yield from documents()
    yield from forms()
    yield from queries()
    yield from heads()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG in RGB whose header says this size, whatever is in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(nbytes: int) -> bytes:
    """Zeros, deflated 1000 to 1."""
    return zlib.compress(bytes(nbytes), 9)


def saved(kind: str, image: Image.Image, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


GOOD_WEBP = saved("WEBP", Image.new("RGB", (64, 64)))


def pictures() -> Iterator[Attack]:
    grey = Image.new("RGB", (1900, 1900), (114, 114, 114))
    jpeg = saved("JPEG", Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)))
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(50)]
    exif = Image.Exif()
    exif[0x010E] = "A" * 60_000
    yield Attack("nothing", b"", (400,))
    yield Attack("JPEG, truncated", jpeg[:5000], (400,))
    yield Attack("JPEG, header alone", jpeg[:200], (400,))
    yield Attack("JPEG, another's tail", jpeg[:9000] + GOOD, (400,))
    yield Attack("JPEG of 65535 x 65535 in its header", _sized(jpeg, 65535, 65535), (413,))
    yield Attack("JPEG of 1 x 65535 in its header", _sized(jpeg, 1, 65535), (400, 413, 200))
    yield Attack("JPEG with 100 comments of 64 kB", _commented(jpeg, 100), (200, 400))
    yield Attack("JPEG with a large EXIF", saved("JPEG", grey, exif=exif), (200,))
    yield Attack("JPEG with 10 MB of EXIF segments", _segmented(jpeg, 0xE1, b"Exif\0\0", 160), (200, 400))
    yield Attack("JPEG with 10 MB of ICC segments", _segmented(jpeg, 0xE2, b"ICC_PROFILE\0", 160), (200, 400))
    yield Attack("PNG, truncated", GOOD[: len(GOOD) // 2], (400,))
    yield Attack(
        "PNG of 65535 x 65535 in its header", png_of(65535, 65535, chunk(b"IDAT", zeros(MB))), (413,)
    )
    yield Attack("PNG of 2^31 - 1 squared", png_of(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")), (400, 413))
    yield Attack("PNG of 0 x 0", png_of(0, 0, chunk(b"IDAT", b"")), (400,))
    yield Attack("PNG of 1 x 65535", saved("PNG", Image.new("RGB", (1, 65535))), (200, 400, 413))
    yield Attack(
        "PNG bomb: 2 GB of pixels for 100 x 100",
        png_of(100, 100, chunk(b"IDAT", zeros(2000 * MB))),
        (400,),
    )
    yield Attack("PNG at the limit, 3.6 megapixels in 11 kB", saved("PNG", grey), (200,))
    yield Attack("PNG with an ICC bomb", _with(GOOD, chunk(b"iCCP", b"x\0\0" + zeros(300 * MB))), (200, 400))
    yield Attack("PNG with a text bomb", _with(GOOD, chunk(b"zTXt", b"x\0\0" + zeros(300 * MB))), (200, 400))
    yield Attack("PNG with 100,000 chunks", _with(GOOD, chunk(b"tEXt", b"a\0b") * 100_000), (200, 400))
    yield Attack(
        "PNG, animated", saved("PNG", frames[0], save_all=True, append_images=frames[1:]), (200, 400)
    )
    scans = saved("JPEG", grey, progressive=True)
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    yield Attack("JPEG with 6,000 scans", scans[:-2] + scan * 6000 + scans[-2:], (400,))
    yield Attack("JPEG with 2 million segments", jpeg[:2] + b"\xff\xe5\0\2" * 2 * MB + jpeg[2:], (400,))
    yield Attack("JPEG with 8 MB of fill bytes", jpeg[:2] + b"\xff" * 8 * MB + jpeg[2:], (400,))
    yield Attack("PNG with a million chunks", _with(GOOD, chunk(b"tEXt", b"") * MB), (400,))
    yield Attack(
        "PNG with an international text bomb",
        _with(GOOD, chunk(b"iTXt", b"x\0\1\0\0\0" + zeros(300 * MB))),
        (200,),
    )
    yield Attack(
        "PNG of 2 rows and 2,000,000 columns", png_of(2_000_000, 2, chunk(b"IDAT", zeros(12 * MB))), (413,)
    )
    yield Attack(
        "WebP with a million chunks", GOOD_WEBP[:12] + (b"abcd" + bytes(4)) * MB + GOOD_WEBP[12:], (400,)
    )
    yield Attack("WebP, animated", saved("WEBP", frames[0], save_all=True, append_images=frames[1:]), (400,))
    yield Attack("WebP of 16383 x 16383", _webp(16383, 16383), (400, 413))
    yield Attack("WebP bomb: 1900 x 1900 in a kB", saved("WEBP", grey, lossless=True), (200,))
    yield Attack("BMP of 2^31 - 1 pixels a row", _bmp(2**31 - 1, 1), (400, 413))
    yield Attack("BMP upside down, -65535 rows", _bmp(65535, -65535), (400, 413))


def _sized(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _commented(jpeg: bytes, count: int) -> bytes:
    return _segmented(jpeg, 0xFE, b"", count)


def _segmented(jpeg: bytes, marker: int, head: bytes, count: int) -> bytes:
    body = head + bytes(65_000)
    return jpeg[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body) * count + jpeg[2:]


def _with(picture: bytes, chunks: bytes) -> bytes:
    return picture[:33] + chunks + picture[33:]


def _webp(width: int, height: int) -> bytes:
    bits = 0x2F | (width - 1) << 8 | (height - 1) << 22
    body = b"WEBPVP8L" + struct.pack("<I", 5) + bits.to_bytes(5, "little") + b"\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def kinds() -> Iterator[Attack]:
    """Files that are no supported picture, under any name."""
    gif = saved("GIF", Image.new("RGB", (64, 64)))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    jpeg = {"content-type": "image/jpeg"}
    yield Attack("GIF", gif, (415,), headers=jpeg)
    yield Attack("GIF bomb: 65535 x 65535 in its header", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], (415,))
    yield Attack("TIFF", saved("TIFF", Image.new("RGB", (64, 64))), (415,), headers=jpeg)
    yield Attack("SVG with an entity bomb", b'<svg xmlns="x"><!DOCTYPE l [<!ENTITY a "b">]>&a;</svg>', (415,))
    yield Attack("HTML with a script", b"<html><script>alert(1)</script></html>", (415,), headers=jpeg)
    yield Attack("ZIP", b"PK\x03\x04" + bytes(1000), (415,), headers=jpeg)
    yield Attack("PDF", b"%PDF-1.7\n" + bytes(100), (415,), headers=jpeg)
    yield Attack("pickle", pickle.dumps(Path), (415,), headers={"content-type": "application/octet-stream"})
    yield Attack(
        "npy with a pickle", buffer.getvalue(), (415,), headers={"content-type": "application/x-npy"}
    )
    yield Attack("npy that says 10^12 values", _npy("(1000000000000,)"), (415,))
    yield Attack("PNG that is a ZIP as well", GOOD + b"PK\x03\x04" + bytes(1000), (200, 400))
    yield Attack("JPEG that is HTML as well", b"\xff\xd8\xff<html><script>", (400,))
    yield Attack("a picture called a video", GOOD, (200, 400, 415), headers=VIDEO)
    yield Attack("a picture called JSON", GOOD, (200, 415), headers=JSON)


def _npy(shape: str) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def films(folder: Path) -> Iterator[Attack]:
    """Videos that are damaged, or that are lists of other files."""
    video = videos.count(folder / "a.mp4", 12).read_bytes()
    matroska = videos.count(folder / "b.mkv", 12).read_bytes()
    refused = (400, 415)
    yield Attack(
        "HLS list of a local file", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", refused, headers=VIDEO
    )
    yield Attack(
        "HLS list of a URL", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n", refused, headers=VIDEO
    )
    yield Attack("FFmpeg concat list", b"ffconcat version 1.0\nfile /etc/passwd\n", refused, headers=VIDEO)
    yield Attack(
        "DASH manifest", b"<MPD><BaseURL>http://127.0.0.1:1/</BaseURL></MPD>", refused, headers=VIDEO
    )
    yield Attack("SDP", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 1 RTP/AVP 96\n", refused, headers=VIDEO)
    yield Attack("FFmetadata", b";FFMETADATA1\ntitle=x\n", refused, headers=VIDEO)
    yield Attack("MP4, cut in half", video[: len(video) // 2], (200, 400), headers=VIDEO)
    yield Attack("MP4, header alone", video[:64], (400,), headers=VIDEO)
    yield Attack(
        "MP4 with boxes of 4 GB",
        video.replace(b"\x00\x00\x00\x08", b"\xff\xff\xff\xff"),
        (200, 400),
        headers=VIDEO,
    )
    yield Attack("MP4, nested 10,000 deep", _boxes(10_000), (400, 415), headers=VIDEO)
    yield Attack("Matroska of zeros", matroska[:200] + bytes(MB), (200, 400), headers=VIDEO)
    yield Attack("AVI of garbage", b"RIFF\xff\xff\xff\xffAVI LIST" + b"\xff" * 100_000, (400,), headers=VIDEO)
    yield Attack(
        "a job of a list", _form(("file", b"#EXTM3U\nfile:///etc/passwd\n")), (400, 415, 422), VIDEOS, FORM
    )
    profile = b"name: x\ncomponents: !!python/object/apply:os.system [id]\n"
    yield Attack(
        "a job with a YAML that runs code",
        _form(("file", video), ("profile", profile)),
        (400, 422),
        VIDEOS,
        FORM,
    )
    bomb = b"a: &a [x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 123)
    )
    yield Attack(
        "a job with a YAML bomb", _form(("file", video), ("profile", bomb)), (400, 422), VIDEOS, FORM
    )

    deep = b"a: " + b"[" * 60_000
    yield Attack(
        "a job with a deep YAML", _form(("file", video), ("profile", deep)), (400, 422), VIDEOS, FORM
    )
    long = b"a: [" + b"x," * 60_000 + b"]"
    faults = b"components: {core_object_detections: {classes: [" + b"[]," * 43_000 + b"[]]}}"
    yield Attack(
        "a job with 43,000 faults", _form(("file", video), ("profile", faults)), (400, 422), VIDEOS, FORM
    )
    keys = b"".join(b"k%d: 1\n" % number for number in range(12_000))
    yield Attack(
        "a job with 12,000 unknown keys", _form(("file", video), ("profile", keys)), (400, 422), VIDEOS, FORM
    )
    yield Attack(
        "a job with a long YAML", _form(("file", video), ("profile", long)), (400, 422), VIDEOS, FORM
    )


def _boxes(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner if len(inner) < MB else inner
    return struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + inner


def documents() -> Iterator[Attack]:
    """Prompts."""

    def prompts(value: object) -> bytes:
        return json.dumps({"prompts": value}).encode()

    refused = (400, 413, 422)
    yield Attack("JSON, 100,000 deep", b'{"prompts":' + b"[" * 100_000, refused, TEXT, JSON)
    yield Attack(
        "JSON, deep and closed", b'{"prompts":' + b"[" * 50_000 + b"]" * 50_000 + b"}", refused, TEXT, JSON
    )
    yield Attack(
        "JSON with a number of 10^6 digits", b'{"prompts":[' + b"9" * MB + b"]}", refused, TEXT, JSON
    )
    yield Attack("JSON with 1e999", b'{"prompts":[1e999]}', refused, TEXT, JSON)
    yield Attack("JSON with NaN", b'{"prompts":[NaN]}', refused, TEXT, JSON)
    yield Attack("JSON with a lone surrogate", b'{"prompts":["\\ud800"]}', (200, *refused), TEXT, JSON)
    yield Attack("JSON with NUL", prompts(["a\0b"]), (200, *refused), TEXT, JSON)
    yield Attack(
        "JSON with the same name twice", b'{"prompts":["a"],"prompts":["b"]}', (200, *refused), TEXT, JSON
    )
    yield Attack(
        "JSON in UTF-16", json.dumps({"prompts": ["a"]}).encode("utf-16"), (200, *refused), TEXT, JSON
    )
    yield Attack("JSON that is a list", b"[]", refused, TEXT, JSON)
    for count in (100_000, MB):
        keys = b"{" + b",".join(b'"%x":0' % number for number in range(count)) + b"}"
        yield Attack(f"JSON of {count} unknown keys", keys, refused, TEXT, JSON)
        yield Attack(f"a picture as JSON of {count} keys", keys, (400, 413, 415), DETECT, JSON)
    yield Attack("JSON, one key 50,000 times", b'{"prompts":[],' * 50_000, refused, TEXT, JSON)
    yield Attack("JSON of 340,000 lists", b'{"prompts":[' + b"[]," * 340_000 + b"[]]}", refused, TEXT, JSON)
    yield Attack("10^6 prompts", prompts(["a"] * MB), refused, TEXT, JSON)
    yield Attack("a prompt of 10 MB", prompts(["a" * 10 * MB]), (200, *refused), TEXT, JSON)
    yield Attack("a prompt of 10^5 words", prompts(["cat " * 100_000]), (200, *refused), TEXT, JSON)
    yield Attack(
        "1000 prompts of right-to-left marks", prompts(["\u202e" * 50] * 1000), (200, *refused), TEXT, JSON
    )
    yield Attack(
        "a gzip bomb as a body",
        gzip.compress(bytes(200 * MB)),
        (413,),
        TEXT,
        JSON | {"content-encoding": "gzip"},
    )


def _form(*parts: tuple[str, bytes], name: bytes = b"a", end: bytes = b"--XX--\r\n") -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n'
    return b"".join(head % (part.encode(), name) + body + b"\r\n" for part, body in parts) + end


def forms() -> Iterator[Attack]:
    nested = _form(("file", b"--XX\r\nContent-Type: multipart/mixed; boundary=YY\r\n\r\n--YY--"))
    yield Attack("form of 100,000 parts", _form(*[("file", b"")] * 100_000), (413,), headers=FORM)
    yield Attack("form of 100,000 other parts", _form(*[("x", b"")] * 100_000), (400, 422), headers=FORM)
    yield Attack("form in a form", nested, (400, 415, 422), headers=FORM)
    yield Attack("form cut off", _form(("file", GOOD), end=b""), (400, 422), headers=FORM)
    yield Attack(
        "form of a hostile boundary",
        _form(("file", GOOD)),
        (400, 422),
        headers={"content-type": FORM["content-type"] + "X" * 5000},
    )
    yield Attack(
        "form without a boundary",
        _form(("file", GOOD)),
        (400, 422),
        headers={"content-type": "multipart/form-data"},
    )
    yield Attack(
        "file name with a path", _form(("file", GOOD), name=b"../../../etc/cron.d/x"), (200,), headers=FORM
    )
    yield Attack(
        "file name with NUL", _form(("file", GOOD), name=b"/etc/passwd\0.png"), (200, 400, 422), headers=FORM
    )
    yield Attack("file name of 1 MB", _form(("file", GOOD), name=b"a" * MB), (200, 400, 422), headers=FORM)
    yield Attack("part with 50,000 headers", b"--XX\r\n" + b"X-A: b\r\n" * 50_000, (400, 422), headers=FORM)
    yield Attack(
        "64 picture bombs",
        _form(*[("file", png_of(65535, 65535, chunk(b"IDAT", zeros(MB))))] * 64),
        (413,),
        headers=FORM,
    )


def queries() -> Iterator[Attack]:
    for value in ("nan", "inf", "-1", "1e999", "0x1p3", "%00", "9" * 400):
        yield Attack(f"conf={value[:12]}", GOOD, (400, 422), f"{DETECT}&conf={value}")
    for value in ("nan", "-inf", "9" * 400):
        yield Attack(
            f"timestamp={value[:12]}", GOOD, (200, 400, 409, 422), f"{DETECT}&session=h&timestamp={value}"
        )
    for value in ("../../etc", "%00", "a" * 10_000, "%F0%9F%98%80", "*", "%0d%0aX-A:%20b"):
        yield Attack(f"session={value[:12]}", GOOD, (200, 400, 422), f"{DETECT}&session={value}&timestamp=1")
    yield Attack("branch with a path", GOOD, (400, 404, 422), "/v1/detect?branch=../../x")
    yield Attack("a query of 62 kB", GOOD, (400,), DETECT + "".join(f"&k{n}=1" for n in range(8000)))
    yield Attack("1000 parameters", GOOD, (400, 422), DETECT + "".join(f"&p{n}=1" for n in range(1000)))
    yield Attack("the same parameter 1000 times", GOOD, (200, 400, 422), DETECT + "&conf=0.5" * 1000)
    yield Attack(
        "a job's file by a path",
        b"",
        (400, 404, 422),
        VIDEOS + "/x/artifacts/..%2f..%2f..%2fetc%2fpasswd",
        method="GET",
    )
    yield Attack("a session by a path", b"", (400, 404, 422), "/v1/sessions/..%2f..%2fx", method="DELETE")
    yield Attack("a path that isn't UTF-8", b"", (404,), "/v1/%ff%fe", method="GET")


def heads() -> Iterator[Attack]:
    """Bytes on the socket."""
    line, host = b"POST /v1/detect?branch=320 HTTP/1.1\r\n", b"Host: x\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(GOOD)

    def attack(name: str, body: bytes, *expected: int | str) -> Attack:
        return Attack(name, body, expected, raw=True)

    yield attack(
        "20,000 headers",
        b"GET /livez HTTP/1.1\r\n" + host + b"X-A: b\r\n" * 20_000 + b"\r\n",
        400,
        CLOSED,
        200,
    )
    yield attack(
        "a header of 10 MB",
        b"GET /livez HTTP/1.1\r\n" + host + b"X-A: " + b"a" * 10 * MB + b"\r\n\r\n",
        400,
        CLOSED,
    )
    yield attack("a path of 1 MB", b"GET /" + b"a" * MB + b" HTTP/1.1\r\n\r\n", 400, CLOSED)
    yield attack("half a head", line + host, CLOSED)
    yield attack("a body that stops", line + host + length + GOOD[:100], 504)
    yield attack("TLS on plain HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400)
    yield attack("garbage", b"\x00\xff" * 1000, 400, CLOSED)
    yield attack("a negative length", line + host + b"Content-Length: -5\r\n\r\n", 400)
    yield attack(
        "a length of 10^20", line + host + b"Content-Length: 100000000000000000000\r\n\r\n", 400, 413
    )
    yield attack("a length of 1 TB", line + host + b"Content-Length: 1000000000000\r\n\r\n", 413)
    yield attack("two lengths", line + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400)
    yield attack(
        "length and chunks",
        line + host + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    )
    yield attack(
        "a chunk of 2^64", line + host + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", 400, 504
    )
    yield attack("NUL in a header", line + host + b"X-A: a\0b\r\n" + length + GOOD, 400)
    yield attack("a header over two lines", line + host + b"X-A: a\r\n b\r\n" + length + GOOD, 200, 400)
    yield attack("Range of everything", line + host + b"Range: bytes=0-,0-,0-,0-\r\n" + length + GOOD, 200)
    yield attack("Expect of something else", line + host + b"Expect: 200-maybe\r\n" + length + GOOD, 200, 417)
    yield attack(
        "Upgrade to h2c", line + host + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + length + GOOD, 200, 400
    )
    yield attack("an unknown method", b"BREW /v1/detect HTTP/1.1\r\n" + host + b"\r\n", 400, 405)
    yield attack("HTTP/9.9", b"GET /livez HTTP/9.9\r\n" + host + b"\r\n", 400, 200)
