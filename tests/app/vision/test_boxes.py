"""Overlap of boxes: equal to counting pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.vision.boxes import areas, iou

SPANS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
BOXES = st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=5).map(
    lambda boxes: np.array([[x[0], y[0], x[1], y[1]] for x, y in boxes], dtype=np.float64).T
)


def pixels(box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The pixels of a 10 x 10 picture that the box covers."""
    x1, y1, x2, y2 = box.astype(int)
    picture = np.zeros((10, 10), dtype=bool)
    picture[y1:y2, x1:x2] = True
    return picture


@given(BOXES, BOXES)
def test_it_is_the_share_of_pixels(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    """On whole coordinates areas and IoU of all pairs are those of counted pixels; 0 where there are none."""
    found = iou(first[:, :, None], areas(first)[:, None], second[:, None], areas(second))
    assert found.shape == (first.shape[1], second.shape[1])
    for i, a in enumerate(map(pixels, first.T)):
        assert areas(first)[i] == a.sum()
        for j, b in enumerate(map(pixels, second.T)):
            assert found[i, j] == pytest.approx((a & b).sum() / max((a | b).sum(), 1))


def test_a_box_inside_out_overlaps_nothing() -> None:
    """Corners in the wrong order make an empty box, not a negative area."""
    box, wrong = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([[6.0], [6.0], [3.0], [3.0]])
    assert areas(wrong).tolist() == [0]
    assert iou(box, areas(box), wrong, areas(wrong)).tolist() == [0]


@pytest.mark.parametrize("count", [0, 3])
def test_one_against_many(count: int) -> None:
    """A single box broadcasts against any number of others, none included."""
    box, others = np.array([[0.0], [0.0], [2.0], [2.0]]), np.tile([[1.0], [0.0], [3.0], [2.0]], count)
    assert iou(box, areas(box), others, areas(others)).tolist() == pytest.approx([1 / 3] * count)
