"""Associations: the cheapest there is, within its limits."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from app.vision.association import assign, associate, duplicates

COSTS = arrays.arrays(
    np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=st.sampled_from(np.arange(11) / 10)
)


def cheapest(cost: NDArray[np.float64], limit: float) -> float:
    """By trying all: pairs cost what they cost, a row that is left alone the limit."""
    rows, columns = cost.shape
    padded = np.concatenate((cost, np.full((rows, rows), limit)), axis=1)
    ways = permutations(range(columns + rows), rows)
    return min(sum(padded[row, column] for row, column in enumerate(way)) for way in ways)


@given(COSTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_assignments_are_the_cheapest(cost: NDArray[np.float64], limit: float) -> None:
    """No other choice of pairs below the limit is cheaper, and every row and column is in one pair at most."""
    rows, columns = assign(cost, limit)
    assert np.unique(rows).size == np.unique(columns).size == rows.size == columns.size
    assert (cost[rows, columns] < limit).all()
    total = cost[rows, columns].sum() + limit * (cost.shape[0] - rows.size)
    assert total == pytest.approx(cheapest(cost, limit))


@pytest.mark.parametrize(
    ("overlap", "scores", "strong", "wanted"),
    [
        ([[0.9], [0.5], [0.9]], [0.9], 1, [0, -1, -1]),
        ([[0.3], [0.5], [0.9]], [0.9], 1, [-1, 0, -1]),
        ([[0.1], [0.1], [0.9]], [0.9], 1, [-1, -1, 0]),
        ([[0.1], [0.1], [0.3]], [0.9], 1, [-1, -1, -1]),
        ([[0.3], [0.1], [0.1]], [0.6], 1, [-1, -1, -1]),
        ([[0.6], [0.9], [0.9]], [0.3], 0, [0, -1, -1]),
        ([[0.5], [0.9], [0.9]], [0.3], 0, [-1, -1, -1]),
        ([[0.9, 0.8], [0.1, 0.9], [0.1, 0.1]], [0.9, 0.3], 1, [0, -1, -1]),
        ([[0.3, 0.9], [0.9, 0.1], [0.1, 0.1]], [0.9, 0.3], 1, [1, 0, -1]),
    ],
    ids=["the best of known", "a lost one", "a new one last", "a new one too far", "its score counts",
         "weak for tracked", "weak too far", "weak not for lost", "strong first, then weak"],
)  # fmt: skip
def test_associations_go_by_their_order(
    overlap: list[list[float]], scores: list[float], strong: int, wanted: list[int]
) -> None:
    """Tracked and lost tracks are matched first, then weak detections to tracked ones, then new tracks."""
    found = associate(np.array(overlap), np.array(scores), strong, 1, 2, 0.8)
    assert found.tolist() == wanted


@pytest.mark.parametrize(
    ("overlap", "lost", "seen", "wanted"),
    [
        (0.9, 2.0, 3.0, (True, False)),
        (0.9, 3.0, 2.0, (False, True)),
        (0.9, 2.0, 2.0, (False, True)),
        (0.9, 2.0, 2.0 + 1e-9, (False, True)),
        (0.85, 2.0, 3.0, (False, False)),
    ],
    ids=["seen for longer", "lost was seen for longer", "equal", "equal but for rounding", "two objects"],
)
def test_the_longer_seen_of_duplicates_stays(
    overlap: float, lost: float, seen: float, wanted: tuple[bool, bool]
) -> None:
    """Above an IoU of 0.85 the track that was seen for the shorter time goes."""
    drop_lost, drop_seen = duplicates(np.array([[overlap]]), np.array([lost]), np.array([seen]), 0.02)
    assert (drop_lost.item(), drop_seen.item()) == wanted
