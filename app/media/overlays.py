"""Pictures to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.media.encodings import rgb_bytes

# Paul Tol's "bright" qualitative scheme: told apart with colour-blind eyes too.
_COLOURS = (
    (68, 119, 170), (238, 102, 119), (34, 136, 51), (204, 187, 68), (102, 204, 238), (170, 51, 119),
)  # fmt: skip


_GAP_PX, _TEXT_PX = 6, 24  # of a contact sheet


def draw_boxes(
    rgb: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    labels: Sequence[str],
) -> Image.Image:
    """The frame with boxes drawn, best score on top.

    Args:
        rgb: `[height, width, 3]` uint8.
        boxes: `(n, 4)` float32 xyxy in pixels, in descending order of score.
        class_ids: `(n,)`: choose the colour.
        labels: `n` texts.
    """
    picture = Image.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 500))
    font = ImageFont.load_default(size=max(12, round(max(picture.size) / 60)))
    for box, class_id, label in reversed(list(zip(boxes, class_ids, labels, strict=True))):
        colour = _COLOURS[int(class_id) % len(_COLOURS)]
        x1, y1, x2, y2 = (float(v) for v in box)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=stroke)
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        y = max(0.0, y1 - (bottom - top) - 2 * stroke)
        tag = (x1, y, x1 + right - left + 2 * stroke, y + bottom - top + 2 * stroke)
        draw.rectangle(tag, fill=colour)
        draw.text((x1 + stroke - left, y + stroke - top), label, fill=_ink(colour), font=font)
    return picture


def thumbnail(rgb: NDArray[np.uint8], width: int) -> tuple[NDArray[np.uint8], float]:
    """A frame `[height, width, 3]` of `width` pixels at most, and its size relative to the frame's."""
    scale = min(1.0, width / rgb.shape[1])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX)), scale


def contact_sheet(tiles: Sequence[tuple[NDArray[np.uint8], str]], columns: int = 4) -> NDArray[np.uint8]:
    """Small frames side by side, row by row, each with a text below it.

    Args:
        tiles: frames `[height, width, 3]` uint8, at least one, and their texts.
        columns: most frames in a row.
    """
    columns = min(columns, len(tiles))
    width = max(frame.shape[1] for frame, _ in tiles) + 2 * _GAP_PX
    height = max(frame.shape[0] for frame, _ in tiles) + _GAP_PX + _TEXT_PX
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height + _GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_TEXT_PX - 8)
    for index, (frame, text) in enumerate(tiles):
        x, y = index % columns * width + _GAP_PX, index // columns * height + _GAP_PX
        sheet.paste(Image.fromarray(frame), (x, y))
        draw.text((x, y + frame.shape[0] + 2), text, fill="black", font=font)
    return np.asarray(sheet)


def picture_bytes(picture: Image.Image, *, jpeg: bool = False) -> bytes:
    """A drawn frame as PNG, or as JPEG.

    Raises:
        InvalidParameter: a side is too long for a JPEG.
    """
    return rgb_bytes(np.asarray(picture), jpeg=True) if jpeg else png_bytes(picture)


def png_bytes(picture: Image.Image) -> bytes:
    """PNG at a low compression level: made to be looked at once, not kept."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _ink(colour: tuple[int, int, int]) -> str:
    """Black or white text, whichever reads better on `colour` (ITU-R BT.601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return "black" if luma > 140 else "white"
