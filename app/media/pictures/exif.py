"""The only reader of orientation: EXIF's tag 0x0112, wherever a format keeps its EXIF block.

XMP, PNG text and ImageMagick's raw profile say nothing here.
"""

from __future__ import annotations

from typing import cast

import cv2

from app.media.pictures.base import Pixels

UPRIGHT = 1
_ORIENTATION = 0x0112
_ORDERS = {b"II*\x00": "little", b"MM\x00*": "big"}
_MIRRORED = {2: 1, 3: -1, 4: 0, 7: -1}  # orientation -> OpenCV's axis; 5 is the transpose alone
_SIZES = {1: 1, 3: 2, 4: 4}  # BYTE, SHORT, LONG: what writers use for it


def orientation(block: bytes) -> int:
    """Read the orientation of a TIFF block (EXIF 2.32, 4.6.4): 1 to 8; 1 where there is none or it is damaged."""
    order = _ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT

    def number(at: int, nbytes: int) -> int:
        return int.from_bytes(block[at : at + nbytes], order)  # type: ignore[arg-type]  # one of two words

    first = number(4, 4)
    tag = _ORIENTATION.to_bytes(2, order)  # type: ignore[arg-type]  # ditto
    for at in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if block[at : at + 2] == tag:
            value = number(at + 8, _SIZES.get(number(at + 2, 2), 0))
            return value if 1 <= value <= 8 else UPRIGHT
        if at > len(block):
            break
    return UPRIGHT


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror stored pixels as `orientation` says; `pixels` itself for 1."""
    if orientation == UPRIGHT:
        return pixels
    if orientation in (5, 7):
        pixels = cast("Pixels", cv2.transpose(pixels))
    if orientation in (6, 8):
        how = cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE
        return cast("Pixels", cv2.rotate(pixels, how))
    mirrored = _MIRRORED.get(orientation)
    return pixels if mirrored is None else cast("Pixels", cv2.flip(pixels, mirrored))
