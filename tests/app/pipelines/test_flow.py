"""The picture of a flow field is made in strips, and looks as if it weren't."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from golden.flow_fields import turning
from PIL import Image

from app.pipelines.flow import FlowField
from app.vision import flow as flows


def _picture(values: np.ndarray) -> np.ndarray:
    served: Any = None  # no picture asks who made the field
    field = FlowField(values, values.shape[2], values.shape[1], served)
    return np.asarray(Image.open(io.BytesIO(field.picture())))


@pytest.mark.parametrize(
    ("width", "height"), [(64, 48), (3, 64), (64, 65), (50, 200), (1, 1), (1, 129), (301, 127)]
)
def test_strips_make_the_picture_of_the_whole(width: int, height: int) -> None:
    """Saturation is relative to the longest displacement of the whole field, wherever it is."""
    for values in (
        turning(width, height),
        turning(width, height)[:, ::-1].copy(),
        np.zeros((2, height, width)),
    ):
        field = values.astype(np.float32)
        np.testing.assert_array_equal(_picture(field), flows.colours(field))


def test_a_large_picture_takes_little_memory() -> None:
    """Beside field and picture, a part of what the field itself takes."""
    field = turning(2000, 1500)
    tracemalloc.start()
    try:
        _picture(field)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * field.nbytes
