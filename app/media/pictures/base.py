"""Parts that the picture formats share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidImage

Pixels = NDArray[np.uint8]
ANIMATED = "the picture is animated; send one frame"
_COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(slots=True)  # not frozen: made for every picture, and that would take a microsecond more
class Header:
    """Size of a picture as stored, from its header alone.

    `pixel_bytes`: the most memory that decoding takes, in bytes per pixel, with the pixels themselves.
    """

    width: int
    height: int
    pixel_bytes: int


def opencv(data: bytes) -> Pixels | None:
    """Decode with OpenCV: `[height, width, 3]` uint8 RGB as stored; None where it can't."""
    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), _COLOUR)
    return cast("Pixels | None", rgb)


def damaged(kind: str, what: str) -> InvalidImage:
    """The error for a picture whose image data or header can't be used."""
    return InvalidImage(f"the {kind} picture is damaged: {what}")


def cut_off(kind: str) -> InvalidImage:
    """The error for a picture whose image data ends too early."""
    return InvalidImage(f"the {kind} picture is cut off: image data is missing")


def too_many(kind: str, parts: str, limit: int) -> InvalidImage:
    """The error for a picture of so many parts that reading it costs more than its pixels are worth."""
    return InvalidImage(
        f"the {kind} picture has more than {limit:,} {parts}",
        hint="Save the picture again with usual settings.",
    )
