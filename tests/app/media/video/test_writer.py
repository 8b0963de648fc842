"""Videos that are written to look at."""

from __future__ import annotations

import resource
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


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    """The close that fails, because the index doesn't fit either, removes what was written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)

    def written() -> None:
        with VideoWriter(tmp_path / "a.mp4", 10.0) as writer:
            for number in range(3):
                writer.write(frame, number / 10)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            written()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
