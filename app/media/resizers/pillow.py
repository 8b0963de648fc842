"""Pillow's resampling, which the reference processors (torchvision, transformers) use.

Whole frames become the reference's pixels, each of them. Of a crop only what it shows is resized; its pixels are those
of resizing all and cutting, within 2 levels of 255, since Pillow keeps the corners of the part in single precision.
"""

from __future__ import annotations

import numpy as np
import PIL
from PIL import Image

from app.media.resizers.base import Axis, Pixels

_TALL = 2  # frames taller than that, compared with their width, are shrunk along their height first
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}


class PillowResizer:
    """See the module."""

    library = "pillow"
    version = PIL.__version__

    def resize_into(self, rgb: Pixels, columns: Axis, rows: Axis, interpolation: str, target: Pixels) -> None:
        resample = _FILTERS[interpolation]
        if columns.whole and rows.whole:
            target[:] = np.asarray(Image.fromarray(rgb).resize((columns.size, rows.size), resample))
            return
        part = rows.pixels, columns.pixels
        tall = rows.length > _TALL * columns.length and rows.end - rows.begin > rows.size
        rows, columns = rows.within(part[0]), columns.within(part[1])
        image = Image.fromarray(np.ascontiguousarray(rgb[part]))
        # The passes in the order in which Pillow would take them for the whole frame.
        for axis in (rows, columns) if tall else (columns, rows):
            if axis is rows:
                box, size = (0.0, rows.begin, float(image.width), rows.end), (image.width, rows.size)
            else:
                box, size = (
                    (columns.begin, 0.0, columns.end, float(image.height)),
                    (columns.size, image.height),
                )
            image = image.resize(size, resample, box)
        target[:] = np.asarray(image)
