"""The golden scenes of tracking; `make_bytetrack.py` made them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.vision.bytetrack import ByteTracker
from app.vision.tracks import TrackParameters

GOLDEN = np.load(Path(__file__).with_name("bytetrack.npz"))
SCENES = ("street", "crowd", "sparse", "strict", "loose")
Floats = NDArray[np.float32]
Ids = NDArray[np.int32]


def scene(name: str) -> Iterator[tuple[Floats, Floats, Ids]]:
    """Boxes, scores and the reference's ids (0: none) of each frame."""
    for start, end in pairwise(GOLDEN[f"{name}_starts"]):
        boxes, scores, ids = (GOLDEN[f"{name}_{key}"][start:end] for key in ("boxes", "scores", "ids"))
        yield boxes, scores, ids


def settings(name: str, interval_s: float) -> TrackParameters:
    """Return the settings of the reference, for frames so far apart."""
    high, low, new, match, buffer = GOLDEN[f"{name}_settings"].tolist()
    return TrackParameters(high, low, new, match, buffer * interval_s)


def crowd(frames: int) -> ByteTracker:
    """A tracker that has seen so many frames of the crowd, at 25 a second."""
    tracker = ByteTracker(settings("crowd", 0.04))
    for frame, (boxes, scores, _) in zip(range(frames), scene("crowd"), strict=False):
        tracker.update(boxes, scores, None, frame / 25)
    return tracker
