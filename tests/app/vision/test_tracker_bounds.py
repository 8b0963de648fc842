"""ByteTrack's work is bounded, whatever the thresholds and however many boxes there are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.vision.bytetrack import MOST_DETECTIONS, MOST_LOST, ByteTracker
from app.vision.tracks import TrackParameters

EVERYTHING = {"high": 0.0, "low": 0.0, "new": 0.0, "buffer_s": 60.0}


def grid(count: int, shift: float) -> NDArray[np.float32]:
    """`count` boxes of 8 px that don't overlap, `shift` px to the right."""
    x, y = np.divmod(np.arange(count), 60)
    corner = np.stack((x * 10 + shift, y * 10), axis=1)
    return np.concatenate((corner, corner + 8), axis=1).astype(np.float32)


def run(tracker: ByteTracker, count: int, frames: int, stride: float) -> list[NDArray[np.int32]]:
    scores = np.linspace(0.9, 0.1, count).astype(np.float32)
    return [tracker.update(grid(count, frame * stride), scores, None, frame / 30) for frame in range(frames)]


def test_the_best_thousand_detections_are_linked() -> None:
    """The 1,000 best of 3,000 boxes have ids; the others have none."""
    ids = run(ByteTracker(TrackParameters(**EVERYTHING, match=1.0)), 3000, 3, 0.0)[-1]
    assert MOST_DETECTIONS == 1000
    assert (ids[:1000] > 0).all()
    assert (ids[1000:] == -1).all()


def test_a_thousand_boxes_are_linked_as_ever() -> None:
    """The limit changes nothing up to itself."""
    first, *_, last = run(ByteTracker(TrackParameters(**EVERYTHING, match=1.0)), 1000, 5, 0.0)
    assert len(set(first.tolist())) == 1000
    assert (first == last).all()


@pytest.mark.parametrize("match", [0.001, 1.0])
def test_lost_tracks_are_bounded(match: float) -> None:
    """Frames without a box in common leave no more than 2,000 tracks to wait for, those that were seen last."""
    tracker = ByteTracker(TrackParameters(**EVERYTHING, match=match))
    scores = np.full(900, 0.9, np.float32)
    for frame in range(10):  # each box is seen in two frames, and then never again
        tracker.update(grid(900, (frame // 2) * 1000.0), scores, None, frame / 30)
    lost = [track for track in tracker.tracks() if track["state"] == "lost"]
    assert len(lost) <= MOST_LOST
    assert min(track["last_time_s"] for track in lost) >= 3 / 30
