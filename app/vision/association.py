"""Matching of detections to tracks: the associations of ByteTrack, on overlaps alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]

SECOND_MATCH, NEW_MATCH = 0.5, 0.7  # limits of the second association's cost and of that with new tracks
DUPLICATE_IOU = 0.85


def associate(
    overlap: NDArray[np.float64],
    scores: NDArray[np.float64],
    strong: int,
    tracked: int,
    known: int,
    match: float,
) -> Rows:
    """ByteTrack's three associations.

    Strong detections with tracked and lost tracks, at a cost of `1 - iou * score`; weak ones with the tracked tracks
    that are left, at `1 - iou`; and the strong ones that are left with new tracks, at `1 - iou * score`.

    Args:
        overlap: `(t, m)`, the IoU of each track, where it is now predicted, with each detection.
        scores: `(m,)` in `[0, 1]`, in descending order.
        strong: so many detections from the beginning are strong, the others weak.
        tracked: so many tracks from the beginning are tracked.
        known: so many are tracked or lost, the others new.
        match: limit of the first association's cost, in `(0, 1]`.

    Returns:
        `(t,)`, the detection of each track; -1 for none. None stands there twice.
    """
    partner = np.full(overlap.shape[0], -1, dtype=np.intp)
    cost = 1 - overlap[:, :strong] * scores[:strong]
    tracks, detections = assign(cost[:known], match)
    partner[tracks] = detections
    if strong < scores.size:
        left = (partner[:tracked] < 0).nonzero()[0]
        tracks, weak = assign(1 - overlap[left, strong:], SECOND_MATCH)
        partner[left[tracks]] = weak + strong
    if known < partner.size:
        free = np.ones(strong, dtype=bool)
        free[detections] = False
        rest = free.nonzero()[0]
        tracks, second = assign(cost[known:, rest], NEW_MATCH)
        partner[known + tracks] = rest[second]
    return partner


def assign(cost: NDArray[np.float64], limit: float) -> tuple[Rows, Rows]:
    """The cheapest assignment in which to leave a row and a column alone costs `limit`.

    Args:
        cost: `(n, m)`, finite.
        limit: no pair that costs as much is made.

    Returns:
        Rows and columns of the pairs, the rows ascending.
    """
    if not cost.size:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    # 49 MB and 0.3 s of import that a service without tracking doesn't need; scipy publishes no types.
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # noqa: PLC0415

    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    fits = cost[rows, columns] < limit
    return rows[fits], columns[fits]


def duplicates(
    overlap: NDArray[np.float64], lost: NDArray[np.float64], seen: NDArray[np.float64], slack: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return, of a lost and a seen track on one object, the one that was seen for the shorter time; of equals the
    seen one.

    Args:
        overlap: `(l, s)`, the IoU of each lost track with each seen one.
        lost: `(l,)`, for how long each lost track was seen, in seconds.
        seen: `(s,)`, for how long each seen one was.
        slack: a difference of no more is rounding, in seconds.

    Returns:
        `(l,)` and `(s,)`: which to drop.
    """
    same = overlap > DUPLICATE_IOU
    longer = seen > lost[:, None] + slack
    drop_lost: NDArray[np.bool_] = np.logical_or.reduce(same & longer, axis=1)
    drop_seen: NDArray[np.bool_] = np.logical_or.reduce(same & ~longer, axis=0)
    return drop_lost, drop_seen
