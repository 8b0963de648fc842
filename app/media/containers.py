"""Video containers by their first bytes: which demuxer may open a file, and where the file should end.

Nothing here decodes; FFmpeg's own probing, which would also try playlists and raw streams, is never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.errors import InvalidVideo, UnsupportedMediaType
from app.media.kinds import PICTURE_BRANDS, kind_of

MOV, MATROSKA, AVI = "mov", "matroska", "avi"
HEAD_BYTES = 4096  # enough for `sniff_container`
HINT = "Send an MP4, MOV, Matroska, WebM or AVI file; the type is detected from the content, not the name."

# The second four bytes of a QuickTime or MP4 file: its first box.
_MOV_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"uuid")
_EBML = b"\x1aE\xdf\xa3"


def sniff_container(head: bytes) -> str:
    """The demuxer that a file's first bytes call for.

    Args:
        head: the first bytes of the file; `HEAD_BYTES` are enough.

    Returns:
        `mov` (MP4, MOV, M4V, 3GP), `matroska` (MKV, WebM) or `avi`.

    Raises:
        InvalidVideo: there are no bytes.
        UnsupportedMediaType: the bytes announce something else; the message says what they look like.
    """
    if not head:
        raise InvalidVideo("the file is empty")
    if head[4:8] in _MOV_FIRST and head[8:12] not in PICTURE_BRANDS:
        return MOV
    if head.startswith(_EBML) and (b"matroska" in head[:128] or b"webm" in head[:128]):
        return MATROSKA
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return AVI
    raise UnsupportedMediaType(
        f"the content is {kind_of(head)}, not an MP4, MOV, Matroska, WebM or AVI video", hint=HINT
    )


# The boxes, elements and chunks that are walked to find a file's end; a file of more is taken as it is.
_MOST_PARTS = 10_000
_MOV_TOP = (*_MOV_FIRST, b"moof", b"mfra", b"meta", b"sidx", b"emsg", b"udta", b"prft")
_SEGMENT = b"\x18\x53\x80\x67"

ReadAt = Callable[[int, int], bytes]  # (offset, length) -> up to length bytes


def missing_bytes(container: str, read_at: ReadAt, size: int) -> int:
    """Return how many bytes a file lacks according to its own outermost lengths; 0 if it is whole or does not say.

    Args:
        container: what `sniff_container` answered.
        read_at: reads `length` bytes at `offset`, fewer at the end.
        size: of the file, in bytes.

    Source: ISO/IEC 14496-12 section 4.2 (boxes), RFC 8794 (EBML), the RIFF and OpenDML specifications.
    """
    return max(0, _ENDS[container](read_at, size) - size)


def has_index(read_at: ReadAt, size: int) -> bool:
    """Tell whether an MP4 or MOV file holds the whole box that says where its frames are; True where that is unclear.

    Args:
        read_at: reads `length` bytes at `offset`, fewer at the end.
        size: of the file, in bytes.
    """
    for kind, position, length in _boxes(read_at, size):
        if kind == b"moov":
            return position + length <= size
        if kind not in _MOV_TOP:
            return True
    return False


def _boxes(read_at: ReadAt, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes: kind, position and length; one of length 0 extends to the end of the file."""
    position = 0
    for _ in range(_MOST_PARTS):
        head = read_at(position, 16)
        if position + 8 > size:
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            yield head[4:8], position, size - position
            break
        yield head[4:8], position, length
        position += length


def _end_of_boxes(read_at: ReadAt, size: int) -> int:
    end = 0
    for kind, position, length in _boxes(read_at, size):
        if kind not in _MOV_TOP:
            break
        end = position + length
    return end


def _end_of_segment(read_at: ReadAt, size: int) -> int:
    position = 4
    length, width = _vint(read_at(position, 8))
    position += width + length
    if read_at(position, 4) != _SEGMENT:
        return 0
    length, width = _vint(read_at(position + 4, 8))
    unknown = length == (1 << 7 * width) - 1  # a live recording
    return size if unknown else position + 4 + width + length


def _vint(data: bytes) -> tuple[int, int]:
    """An EBML length: its value, and how many bytes it takes; (0, 1) where there is none."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if not 0 < width <= len(data):
        return 0, 1
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


def _end_of_riff(read_at: ReadAt, size: int) -> int:
    position = 0
    for _ in range(_MOST_PARTS):
        head = read_at(position, 12)
        if position + 12 > size or head[:4] != b"RIFF" or head[8:11] != b"AVI":
            break
        length = int.from_bytes(head[4:8], "little")
        if length == 0:  # a recorder that was switched off never wrote it
            return size
        position += 8 + length + (length & 1)
    return position


_ENDS = {MOV: _end_of_boxes, MATROSKA: _end_of_segment, AVI: _end_of_riff}
