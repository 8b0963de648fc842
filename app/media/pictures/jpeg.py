"""JPEG (ITU-T T.81): one walk over its segments, then libjpeg-turbo straight to RGB.

Application segments and comments are skipped, except for EXIF's orientation. Entropy-coded data is only searched for
markers where a picture has several scans, or where its end is missing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from importlib.metadata import version

import simplejpeg

from app.errors import UnsupportedMediaType
from app.media.kinds import JPEG_PROCESSES
from app.media.pictures.base import Header, Pixels, cut_off, damaged, opencv, too_many
from app.media.pictures.exif import UPRIGHT, orientation

# Usual progressive pictures have 6 to 20 scans. A scan costs a pass over all coefficients: see docs/picture_files.md.
MOST_SCANS = 40
MOST_SEGMENTS = 2_000
_SOS, _EOI, _DNL, _APP1 = 0xDA, 0xD9, b"\xff\xdc\x00\x04", 0xE1
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))  # markers without a length
_EXIF = (
    b"Exif\0\0II*\0",
    b"Exif\0\0MM\0*",
)  # with the head of its TIFF block: others may follow a broken one
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
SCALED_DECODE = f"libjpeg-turbo (simplejpeg {version('simplejpeg')})"
_HEAD = struct.Struct(">BBH").unpack_from  # of a segment: 0xFF, marker, length
_FRAME = struct.Struct(">BxxBHHB").unpack_from  # of a frame: marker, precision, height, width, components
_LAST_COEFFICIENT = 63
_ACROSS = 5  # orientations from this one on show columns as rows


@dataclass(slots=True)
class Jpeg(Header):
    """`frame_at`, `scan_at`: offsets of the markers SOF and first SOS; `exif`: where EXIF's TIFF block lies.

    `several`: there is more than one scan. `late_height`: the height stands behind the first scan, in DNL.
    """

    process: int
    components: int
    precision: int
    frame_at: int
    scan_at: int
    exif: tuple[int, int] | None
    several: bool
    late_height: bool

    @property
    def progressive(self) -> bool:
        return self.process in _PROGRESSIVE


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan header (T.81, B.2.3): components, first and last coefficient, and its lowest bit."""

    components: bytes
    first: int
    last: int
    low: int


def read(data: bytes) -> Jpeg:
    """Walk the segments up to the first scan.

    Raises:
        InvalidImage: there is no frame or no scan, or too many segments.
    """
    frame_at, exif = 0, None
    for at, marker, end in _segments(data):
        if marker in _FRAMES:
            frame_at = frame_at or at
        elif marker == _APP1 and exif is None and data.startswith(_EXIF, at + 4):
            exif = (at + 10, end)
        elif marker == _SOS:
            if not frame_at:
                break
            return _frame(data, frame_at, at, exif)
    raise damaged("JPEG", "it has no frame header") if not frame_at else cut_off("JPEG")


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """Offset, marker and end of each segment, up to the first scan or EOI; junk is passed over, as decoders do.

    A list: a generator would be resumed for each of them, twice a request (before it is admitted, and to be decoded).
    """
    found: list[tuple[int, int, int]] = []
    at, last = 2, len(data) - 4
    for _ in range(MOST_SEGMENTS):
        if at > last:
            return found
        prefix, marker, length = _HEAD(data, at)
        if prefix != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return found
        elif marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker == _EOI:
            return found
        else:
            found.append((at, marker, at + 2 + length))
            if marker == _SOS:
                return found
            at += 2 + length
    raise too_many("JPEG", "segments", MOST_SEGMENTS)


def _frame(data: bytes, frame_at: int, scan_at: int, exif: tuple[int, int] | None) -> Jpeg:
    process, precision, height, width, components = _FRAME(data, frame_at + 1)
    late = height == 0
    if late:
        height = _late_height(data, scan_at)
    if not (width and height):
        raise damaged("JPEG", f"its size is {width}x{height}")
    several = process in _PROGRESSIVE or data[scan_at + 4] != components
    return Jpeg(
        width=width,
        height=height,
        pixel_bytes=_pixel_bytes(components, several=several, turned=exif is not None),
        process=process,
        components=components,
        precision=precision,
        frame_at=frame_at,
        scan_at=scan_at,
        exif=exif,
        several=several,
        late_height=late,
    )


def _pixel_bytes(components: int, *, several: bool, turned: bool) -> int:
    """Return the memory per pixel: RGB, twice while it is rotated; several scans keep all coefficients; CMYK is
    converted.
    """
    return 3 + 3 * turned + 2 * components * several + 4 * (components == 4)


def _late_height(data: bytes, scan_at: int) -> int:
    """The number of lines that DNL gives after the first scan (T.81, B.2.5); 0: none."""
    at = data.find(_DNL, scan_at)
    return int.from_bytes(data[at + 4 : at + 6]) if at >= 0 else 0


def size_shown(data: bytes, header: Jpeg) -> tuple[int, int]:
    """Width and height, orientation applied."""
    across = _orientation(data, header) >= _ACROSS
    return (header.height, header.width) if across else (header.width, header.height)


def _orientation(data: bytes, header: Jpeg) -> int:
    return UPRIGHT if header.exif is None else orientation(data[slice(*header.exif)])


def decode(data: bytes, header: Jpeg, least_side: int = 0) -> tuple[Pixels, int]:
    """Pixels as stored, and their orientation; `least_side` as for `decode_image`.

    Raises:
        InvalidImage: damaged, cut off, or too many scans.
        UnsupportedMediaType: a process of JPEG that no decoder here knows.
    """
    # Two bytes that look like a scan's marker may also stand in a table: counting them is the cheap upper bound.
    if header.several and data.count(b"\xff\xda", header.scan_at) > MOST_SCANS:
        scans(data, header.scan_at)
    turned = _orientation(data, header)
    if header.late_height:
        at = header.frame_at + 5
        data = data[:at] + header.height.to_bytes(2) + data[at + 2 :]
    return _pixels(data, header, least_side), turned


def _pixels(data: bytes, header: Jpeg, least_side: int) -> Pixels:
    if header.components in (1, 3):
        try:
            rgb: Pixels = (
                simplejpeg.decode_jpeg(data, "RGB", min_height=least_side, min_width=least_side, min_factor=2)
                if least_side
                else simplejpeg.decode_jpeg(data, "RGB")
            )
        except ValueError:
            pass  # damaged, or harmless faults; see below
        else:
            return rgb
    whole = opencv(data)
    if whole is None:
        found, end = scans(data, header.scan_at)
        whole = None if end else _without_end(data, header, found)
    if whole is None:
        raise _refusal(header)
    return whole


def scans(data: bytes, at: int) -> tuple[list[Scan], int]:
    """Scan headers from the first one at `at`, and the offset behind EOI; 0: there is no EOI.

    Raises:
        InvalidImage: more scans than `MOST_SCANS`, or segments than `MOST_SEGMENTS`.
    """
    found: list[Scan] = []
    for _ in range(MOST_SEGMENTS):
        marker = data[at + 1]
        if marker == _EOI:
            return found, at + 2
        if marker not in _ALONE:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if marker == _SOS:
                found.append(_scan(data[at + 4 : end]))
                if len(found) > MOST_SCANS:
                    raise too_many("JPEG", "scans", MOST_SCANS)
            at = end
        else:
            at += 2
        match = _MARKER.search(data, at)
        if match is None:
            return found, 0
        at = match.start()
    raise too_many("JPEG", "segments", MOST_SEGMENTS)


def _scan(body: bytes) -> Scan:
    count = body[0] if body else 0
    first, last, bits = body[1 + 2 * count :][:3].ljust(3, b"\0")
    return Scan(body[1 : 1 + 2 * count : 2], first, last, bits & 15)


def _without_end(data: bytes, header: Jpeg, found: list[Scan]) -> Pixels | None:
    """A picture whose EOI is missing, if nothing else is: libjpeg must not have to guess a single coefficient."""
    if not _complete(header, found):
        raise cut_off("JPEG")
    whole = data.rstrip(b"\xff") + b"\xff\xd9"
    try:
        stored = simplejpeg.decode_jpeg(whole, "CMYK" if header.components == 4 else "RGB")
    except ValueError as error:
        raise cut_off("JPEG") from error
    return opencv(whole) if header.components == 4 else stored


def _complete(header: Jpeg, found: list[Scan]) -> bool:
    """Check that the scans hold every coefficient of every component to its last bit."""
    low: dict[tuple[int, int], int] = {}
    for scan in found:
        last = scan.last if header.progressive else _LAST_COEFFICIENT
        for component in scan.components:
            low.update(dict.fromkeys(((component, k) for k in range(scan.first, last + 1)), scan.low))
    return len(low) == header.components * (_LAST_COEFFICIENT + 1) and not any(low.values())


def _refusal(header: Jpeg) -> Exception:
    kind = JPEG_PROCESSES.get(header.process)
    if kind is None and header.precision != 8:
        kind = f"a JPEG picture with {header.precision} bits per sample"
    if kind is None:
        return damaged("JPEG", "it can't be decoded")
    return UnsupportedMediaType(f"the content is {kind}, which is not supported")
