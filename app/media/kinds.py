"""The table of content kinds: names of what is not served, by the first bytes of a file.

Nothing here decodes. `app.media.image` and `app.media.containers` ask for a name when they refuse a body.
"""

from __future__ import annotations

UNKNOWN = "of an unknown kind"

_MP4 = "an MP4 or QuickTime file"
# The brand of an ISO base media file (ISO/IEC 14496-12, 4.3) -> its kind.
_BRANDS: dict[bytes, str] = {
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "a HEIC picture"
    ),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2", b"miaf"), "a HEIF picture"),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P "), "an M4A audio file"),
    b"crx ": "a CR3 raw picture",
    b"jxl ": "a JPEG XL picture",
    b"jp2 ": "a JPEG 2000 picture",
}
_HEIF = ("a HEIC picture", "an AVIF picture")  # a HEIF file says in its other brands which of them it is
_RIFF = {
    b"AVI ": "an AVI video",
    b"WAVE": "a WAVE audio file",
    b"WEBP": "a WebP picture",
    b"ACON": "an animated cursor",
}
_FORM = {b"AIFF": "an AIFF audio file", b"AIFC": "an AIFF audio file", b"ILBM": "an ILBM picture"}
# Offset and bytes -> kind. The first row that fits counts, so the longer of two beginnings stands first.
_BYTES: tuple[tuple[int, bytes, str], ...] = (
    # Pictures
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (0, b"\x8bJNG\r\n\x1a\n", "a JNG picture"),
    (0, b"GIF8", "a GIF"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"II\xbc\x01", "a JPEG XR picture"),
    (8, b"CR\x02", "a CR2 raw picture"),
    (0, b"II\x1a\x00\x00\x00HEAPCCDR", "a CRW raw picture"),
    (0, b"FUJIFILMCCD-RAW", "a RAF raw picture"),
    (0, b"IIRO", "an ORF raw picture"),
    (0, b"IIRS", "an ORF raw picture"),
    (0, b"MMOR", "an ORF raw picture"),
    (0, b"IIU\x00", "an RW2 raw picture"),
    (0, b"FOVb", "an X3F raw picture"),
    (0, b"\x00MRM", "an MRW raw picture"),
    (0, b"II*\x00", "a TIFF picture or a camera's raw picture"),
    (0, b"MM\x00*", "a TIFF picture or a camera's raw picture"),
    (0, b"II+\x00", "a BigTIFF picture"),
    (0, b"MM\x00+", "a BigTIFF picture"),
    (0, b"8BPS", "a Photoshop (PSD) picture"),
    (0, b"gimp xcf", "a GIMP (XCF) picture"),
    (0, b"\x00\x00\x01\x00", "an ICO icon"),
    (0, b"\x00\x00\x02\x00", "a CUR cursor"),
    (0, b"icns", "an ICNS icon"),
    (0, b"qoif", "a QOI picture"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"#?RGBE", "a Radiance HDR picture"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"\xabKTX ", "a KTX texture"),
    (0, b"BPG\xfb", "a BPG picture"),
    (0, b"FLIF", "a FLIF picture"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"SIMPLE  =", "a FITS picture"),
    (128, b"DICM", "a DICOM picture"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing"),
    (40, b" EMF", "an EMF drawing"),
    # Arrays, archives and documents
    (0, b"\x93NUMPY", "a NumPy array (npy)"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x00asm", "a WebAssembly module"),
    # Sound
    (0, b"ID3", "an MP3 audio file"),
    *((0, bytes((0xFF, second)), "an MP3 audio file") for second in (0xFA, 0xFB, 0xF2, 0xF3)),
    *((0, bytes((0xFF, second)), "an AAC audio file") for second in (0xF0, 0xF1, 0xF8, 0xF9)),
    (0, b"fLaC", "a FLAC audio file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"MThd", "a MIDI file"),
    (0, b"#!AMR", "an AMR audio file"),
    # Video
    (0, b"FLV", "an FLV file"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media file"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream"),
    (0, b"\x00\x00\x01\xb3", "a raw MPEG video stream"),
    (0, b"\x00\x00\x00\x01", "a raw H.264 or H.265 stream"),
    (0, b"\x00\x00\x01\x67", "a raw H.264 or H.265 stream"),
    (0, b".RMF", "a RealMedia file"),
    (0, b"DKIF", "an IVF video"),
    (0, b"YUV4MPEG2", "a Y4M video"),
    (0, b"\x06\x0e\x2b\x34", "an MXF video"),
)
# Text, in lower case, after white space and a byte order mark.
_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"#extm3u", "an HLS playlist"),
    (b"ffconcat", "a concat playlist"),
    (b"[playlist]", "a playlist"),
    (b"v=0", "a session description"),
    (b"<mpd", "a DASH manifest"),
    (b"<svg", "an SVG drawing"),
    (b"<!doctype svg", "an SVG drawing"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "XML"),
    (b"data:", "text: a data URI"),
    (b"/9j/", "text: a JPEG picture in base64"),
    (b"ivborw0kggo", "text: a PNG picture in base64"),
    (b"uklgr", "text: a WebP picture in base64"),
    (b"r0lgod", "text: a GIF in base64"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"--", "text that begins like a multipart form"),
)
# The marker of a JPEG's frame (ITU-T T.81, table B.1; T.87) -> a process that few decoders know.
JPEG_PROCESSES: dict[int, str] = {
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG picture"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG picture"),
    0xF7: "a JPEG-LS picture",
}
# The compression of a BMP that no decoder here knows.
BMP_COMPRESSIONS: dict[int, str] = {4: "a BMP picture that holds a JPEG", 5: "a BMP picture that holds a PNG"}
_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))
PICTURE_BRANDS = frozenset(brand for brand, name in _BRANDS.items() if name.endswith("picture"))
# Sizes of a BMP's second header: OS/2 1 and 2, Windows 3 to 5.
_BMP_HEADERS = (12, 16, *range(40, 65, 4), 108, 124)
_MOV_FIRST = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"uuid")
_PACKETS = ((0, 188), (4, 192), (0, 204))  # where a transport stream's sync bytes stand, and how far apart


def is_bmp(head: bytes) -> bool:
    """Tell a BMP from text that begins with BM."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def kind_of(head: bytes) -> str:
    """Name a file by its first bytes, for a message: "the content is {kind}".

    Args:
        head: the first bytes; 4,096 are enough.

    Returns:
        A noun phrase such as "a HEIC picture" or "JSON text"; `UNKNOWN` where no row of the table fits.
    """
    return _container(head) or _by_bytes(head) or _text(head)


def _container(head: bytes) -> str:
    """Files whose kind stands behind a common beginning; empty: it is none of them."""
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "a RIFF file")
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12], "")
    if head[:4] == b"\x1aE\xdf\xa3":
        known = b"matroska" in head[:128] or b"webm" in head[:128]
        return "a Matroska or WebM file" if known else "an EBML file that is neither Matroska nor WebM"
    return "a BMP picture" if is_bmp(head) else ""


def _by_bytes(head: bytes) -> str:
    for at, magic, name in _BYTES:
        if head.startswith(magic, at):
            return name
    if head[4:8] in _MOV_FIRST:
        return _MP4
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return "a Netpbm picture"
    return "an MPEG transport stream" if _is_transport_stream(head) else ""


def _brand(head: bytes) -> str:
    """An ISO base media file by its brands: the major one, or of a HEIF picture the first telling one."""
    major = _BRANDS.get(head[8:12], _MP4)
    if major != "a HEIF picture":
        return major
    end = min(len(head), int.from_bytes(head[:4]), 256)
    brands = (_BRANDS.get(head[at : at + 4]) for at in range(16, end, 4))
    return next((name for name in brands if name in _HEIF), major)


def _is_transport_stream(head: bytes) -> bool:
    return any(
        len(head) > at + step and head[at] == 0x47 == head[at + step]  # ISO/IEC 13818-1, 2.4.3.3
        for at, step in _PACKETS
    )


def _text(head: bytes) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            head = head[len(mark) :].decode(encoding, "ignore").encode()
            break
    head = head.strip().lower()
    if not head or not _printable(head[:64]):
        return UNKNOWN
    if head.startswith((b"<?xml", b"<!--")) and b"<svg" in head[:1024]:
        return "an SVG drawing"
    return next((name for begin, name in _TEXTS if head.startswith(begin)), "text")


def _printable(data: bytes) -> bool:
    """Tell text in UTF-8 from bytes; the last character may be cut."""
    text = data.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(data) - 4
    return whole and all(character.isprintable() or character.isspace() for character in text)
