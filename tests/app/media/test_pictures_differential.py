"""Pictures of every kind with damaged metadata, against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.picture_files import PictureFile, all_pictures

from app.media.image import decode_image

FILES = all_pictures()
# OpenCV ignores the masks of these, and reads pixels of the last one from the file's first byte on.
OPENCV_ERRS = ("BGR 888", "shifted", "10-10-10", "no offset")


def opencv(data: bytes) -> NDArray[np.uint8] | None:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if decoded is None else np.asarray(decoded[..., ::-1], np.uint8)


def expected(file: PictureFile) -> NDArray[np.uint8]:
    """OpenCV's pixels, or those of the intact file where OpenCV gives nothing or errs."""
    shown = None if any(name in file.name for name in OPENCV_ERRS) else opencv(file.data)
    if shown is None:
        shown = opencv(file.intact)
    assert shown is not None
    return shown


def test_there_are_files_of_every_kind() -> None:
    """At least 300 files with distinct names."""
    assert len({file.name for file in FILES}) == len(FILES) >= 300


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_pixels_are_those_of_opencv(file: PictureFile) -> None:
    """Damaged metadata changes no pixel, and none of these kinds is refused."""
    np.testing.assert_array_equal(decode_image(file.data), expected(file))
