"""Roles of packets: whether other frames may need theirs, read from their first bytes without decoding them.

`role_of` answers for what the codec's specification guarantees, and `PLAIN` for everything else: a frame that is taken
for needed costs time, one that is taken for unneeded would cost pixels. Containers say such things too (keyframe,
disposable), but nothing holds them to it. Of HEVC nothing is told: its decoder takes a picture that was passed over for
damage, so that damage to others would go unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Role(NamedTuple):
    """`leaf`: no other frame needs this one. `entry`: decoding may start here, for all frames that are decoded later
    and shown later; `closed`: for all that are decoded later. `headers`: it holds headers that later packets rely on.
    """

    leaf: bool = False
    entry: bool = False
    closed: bool = False
    headers: bool = False


PLAIN = Role()
_LEAF = Role(leaf=True)
_KEY = Role(entry=True, closed=True)
_ALONE = Role(leaf=True, entry=True, closed=True)
RoleOf = Callable[[bytes], Role]
# Each packet is a picture that needs nothing else, not even a header of an earlier one.
_INTRA = frozenset({"prores", "dnxhd", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "png", "dvvideo"})
_START_CODE = b"\0\0\1"


def role_of(codec: str, extradata: bytes | None) -> RoleOf | None:
    """Return the function that tells the role of a packet's content; None for a codec of which nothing is known.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: the stream's headers, as its container holds them.
    """
    if codec in _INTRA:
        return lambda _: _ALONE
    if codec == "h264":
        return _h264_roles(extradata or b"")
    return _BY_CODEC.get(codec)


def _h264_roles(extradata: bytes) -> RoleOf | None:
    lengths = extradata[:1] == b"\1"  # avcC; else start codes
    size = (extradata[4] & 3) + 1 if lengths and len(extradata) > 6 else 0
    return None if lengths and not size else lambda data: _h264(_units(data, size))


def _units(data: bytes, size: int) -> Iterator[bytes]:
    """The first two bytes of each NAL unit; an empty one where the lengths don't fit the packet."""
    at = 0
    if size:
        while at < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            at += size
            yield data[at : at + 2] if 2 <= length <= len(data) - at else b""
            at += length
        return
    while (at := data.find(_START_CODE, at)) >= 0:
        at += len(_START_CODE)
        yield data[at : at + 2]


_H264_SETS, _H264_HARMLESS = frozenset({7, 8}), frozenset({6, 9, 12})  # SPS and PPS; SEI, delimiter, filler


def _h264(units: Iterator[bytes]) -> Role:
    """ITU-T H.264, 7.4.1: `nal_ref_idc` 0 says that no other picture refers to this one, type 5 is an IDR picture."""
    slices = leaf = closed = True
    headers = found = False
    for unit in units:
        if len(unit) < 2:
            return PLAIN
        kind = unit[0] & 31
        if kind in (1, 5):
            found = True
            leaf = leaf and kind == 1 and not unit[0] & 0x60
            closed = closed and kind == 5
        elif kind in _H264_SETS:
            headers = True
        elif kind not in _H264_HARMLESS:
            slices = False
    if not (found and slices):
        return Role(headers=headers)
    return Role(leaf and not headers, closed, closed, headers)


_VOP = b"\0\0\1\xb6"
_VOL = re.compile(rb"\x00\x00\x01[\x20-\x2f\xb0]")


def _mpeg4(data: bytes) -> Role:
    """ISO/IEC 14496-2, 6.3.5: `vop_coding_type` after the start code; no VOP refers to a B-VOP."""
    at = data.find(_VOP)
    if at < 0 or len(data) < at + 5 or data.find(_VOP, at + 4) >= 0:
        return PLAIN
    kind, headers = data[at + 4] >> 6, at > 0 and _VOL.search(data, 0, at) is not None
    return Role(kind == 2 and not headers, kind == 0, False, headers)


_PICTURE = re.compile(rb"\x00\x00\x01\x00[\x00-\xff]([\x00-\xff])")


def _mpeg2(data: bytes) -> Role:
    """ISO/IEC 13818-2, 6.3.9: `picture_coding_type` of each picture or field; none refers to a B-picture."""
    kinds = {byte[0] >> 3 & 7 for byte in _PICTURE.findall(data)}
    headers = b"\0\0\1\xb3" in data
    return Role(kinds == {3} and not headers, kinds == {1}, False, headers)


def _vp8(data: bytes) -> Role:
    """RFC 6386, 9.1: bit 0 of the frame tag is 0 in a key frame."""
    return _KEY if data and not data[0] & 1 else PLAIN


def _vp9(data: bytes) -> Role:
    """VP9 bitstream, 6.2: marker, profile, no `show_existing_frame`, `frame_type` 0: a key frame, which resets all."""
    if not data or data[0] >> 6 != 2 or data[0] & 0x30 == 0x30:  # profile 3 has one bit more
        return PLAIN
    return _KEY if not data[0] & 0x0C else PLAIN


_AV1_SEQUENCE, _AV1_FRAMES = 1, (3, 6)


def _av1(data: bytes) -> Role:
    """AV1 bitstream, 5.5 and 5.9: a sequence header, then a shown key frame, which refreshes every reference."""
    at, sequence = 0, False
    while at + 1 < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] & 4, data[at] & 2
        at += 2 if extended else 1
        length, shift = 0, 0
        while sized and at < len(data):
            length |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 128:
                break
        if kind in _AV1_FRAMES:
            # show_existing_frame 0, frame_type 0, show_frame 1
            key = sequence and at < len(data) and data[at] >> 4 == 1
            return _KEY if key else PLAIN
        sequence = sequence or kind == _AV1_SEQUENCE
        at += length if sized else len(data)
    return PLAIN


_DHT, _DQT = b"\xff\xc4", b"\xff\xdb"
_JPEG_HEAD = 2048


def _mjpeg(data: bytes) -> Role:
    """A picture with its own tables; one without takes those of the pictures before it."""
    head = data[:_JPEG_HEAD]
    return _ALONE if _DHT in head and _DQT in head else PLAIN


def shows_nothing(codec: str) -> Callable[[bytes], bool]:
    """Return the function that tells of a packet's content if it shows no frame: only VP8 has such packets."""
    if codec == "vp8":
        return lambda data: not data[0] & _SHOWN_VP8
    return lambda _: False


_SHOWN_VP8 = 0x10  # show_frame, RFC 6386 section 9.1
_BY_CODEC: dict[str, RoleOf] = {
    "mpeg4": _mpeg4, "mpeg1video": _mpeg2, "mpeg2video": _mpeg2, "vp8": _vp8, "vp9": _vp9, "libdav1d": _av1,
    "mjpeg": _mjpeg,
}  # fmt: skip
