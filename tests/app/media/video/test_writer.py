"""Videos that are written to look at."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from app.media.video.writer import VideoWriter


@pytest.mark.parametrize(
    ("aspect", "stored"), [(1.0, None), (16 / 15, Fraction(16, 15)), (0.75, Fraction(3, 4))]
)
def test_the_shape_of_pixels_is_kept(tmp_path: Path, aspect: float, stored: Fraction | None) -> None:
    """A player is told how wide the pixels are shown; of square ones nothing is said."""
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 10.0) as writer:
        writer.pixel_aspect = aspect
        for number in range(3):
            writer.write(np.full((64, 96, 3), 90, np.uint8), number / 10)
    with av.open(str(path)) as file:
        assert file.streams.video[0].sample_aspect_ratio in ({stored} if stored else {None, Fraction(1)})
