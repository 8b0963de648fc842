"""ByteTrack: boxes that belong to one object through the frames of a video get one id.

Method: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, and its
reference implementation. What is different, and why:

- The reference counts frames; here time is the frames' own. The motion model's unit of time is the video's typical
  interval (the median of the latest ones), so a uniformly sampled video of any stride is tracked exactly as the
  reference does, and where frames were dropped the prediction goes over the time that really passed.
- Ids belong to the tracker, not to the class; every row of the input gets its own answer.
- Everything is a column of one array: a frame costs a fixed number of array operations, however many tracks there are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # publishes no types

from app.vision import kalman
from app.vision.boxes import areas, iou
from app.vision.tracks import (
    CLASS_ID,
    FIRST,
    HITS,
    ID,
    INTERVALS,
    LAST,
    LONGEST,
    LOST,
    NEW,
    ROWS,
    SCORE,
    SHORTEST,
    STATE,
    STATES,
    TRACKED,
    Memory,
    pack,
    unpack,
)
from app.vision.tracks import TrackParameters as TrackParameters  # noqa: PLC0414  # part of this module's interface

SECOND_LIMIT, NEW_LIMIT = (
    0.5,
    0.7,
)  # cost limits of the second association and of that with unconfirmed tracks
DUPLICATE_IOU = 0.85
DEFAULTS = TrackParameters()

_LARGEST = 1e39  # above float32's: what is larger was infinite, not a number, or no float32


class ByteTracker:
    """The tracks of one video or camera."""

    def __init__(self, parameters: TrackParameters = DEFAULTS) -> None:
        self._memory = Memory(parameters)

    @property
    def parameters(self) -> TrackParameters:
        return self._memory.parameters

    @property
    def last_time_s(self) -> float | None:
        """Time of the latest frame; None before the first."""
        return self._memory.last_time_s

    @property
    def frames(self) -> int:
        return self._memory.frames

    def update(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int32] | None,
        time_s: float,
    ) -> NDArray[np.int32]:
        """Take in the detections of the next frame.

        Args:
            boxes: `(n, 4)` xyxy in px; n may be 0.
            scores: `(n,)` in `[0, 1]`.
            class_ids: `(n,)`, or None: all are one class.
            time_s: when the frame was taken, in seconds from any beginning.

        Returns:
            `(n,)`: the track id of each row, from 1; -1 where it has none. No id twice. The order of the rows
            decides nothing.

        Raises:
            ValueError: `time_s` is not after the frame before, shapes disagree, or a value is not finite. The
                tracker is as it was.
        """
        detections = _detections(boxes, scores, class_ids)
        self._advance(time_s)
        ids = np.full(detections.shape[1], -1, dtype=np.int32)
        order = _candidates(detections, self.parameters.low)
        ids[order] = self._take(detections[:, order], time_s)
        return ids

    def tracks(self) -> list[dict[str, Any]]:
        """All tracks by id: box xyxy in px as the filter has it at the latest frame, score and class of the last hit.

        `state` is `tracked` (seen in the latest frame), `lost`, or `new` (seen once, not confirmed).
        """
        corners = kalman.corners(self._memory.table).T.tolist()
        return sorted(
            (
                {
                    "id": int(track[ID]),
                    "box": box,
                    "score": float(track[SCORE]),
                    "class_id": int(track[CLASS_ID]),
                    "state": STATES[int(track[STATE])],
                    "hits": int(track[HITS]),
                    "first_time_s": float(track[FIRST]),
                    "last_time_s": float(track[LAST]),
                }
                for track, box in zip(self._memory.table.T, corners, strict=True)
            ),
            key=lambda track: track["id"],
        )

    def state(self) -> bytes:
        """All that the next `update` depends on, as bytes; the same history gives the same bytes everywhere."""
        return pack(self._memory)

    @classmethod
    def restore(cls, state: bytes) -> ByteTracker:
        """The tracker whose `state` this is.

        Raises:
            ValueError: these are not the bytes of a tracker's state.
        """
        tracker = cls()
        tracker._memory = unpack(state)
        return tracker

    def _advance(self, time_s: float) -> None:
        """Move all tracks to this time, and forget those that have been lost for too long."""
        time_s = float(time_s)
        if not math.isfinite(time_s):
            raise ValueError(f"time_s must be finite, got {time_s}")
        if self.last_time_s is not None:
            elapsed = time_s - self.last_time_s
            if elapsed <= 0:
                raise ValueError(f"time_s must be after {self.last_time_s}, got {time_s}")
            unit = self._learn_unit(elapsed)
            self._predict(time_s, elapsed, unit)
        self._memory.last_time_s = time_s
        self._memory.frames += 1

    def _learn_unit(self, elapsed: float) -> float:
        self._memory.intervals = [*self._memory.intervals[1 - INTERVALS :], elapsed]
        typical = sorted(self._memory.intervals)[(len(self._memory.intervals) - 1) // 2]
        typical = min(max(typical, SHORTEST), LONGEST)
        if self._memory.unit_s is None:
            self._memory.unit_s = typical
        elif abs(typical - self._memory.unit_s) > 0.1 * self._memory.unit_s:
            kalman.rescale(self._memory.table, typical / self._memory.unit_s)
            self._memory.unit_s = typical
        return self._memory.unit_s

    def _predict(self, time_s: float, elapsed: float, unit: float) -> None:
        tracks = self._memory.table
        kept = time_s - tracks[LAST] <= self.parameters.buffer_s + 1.25 * unit
        if not kept.all():
            tracks = self._memory.table = tracks[:, kept]
        if tracks.shape[1]:
            tracks[kalman.HEIGHT_VELOCITY, tracks[STATE] == LOST] = 0
            kalman.predict(tracks, elapsed / unit)

    def _take(self, found: NDArray[np.float64], time_s: float) -> NDArray[np.int32]:
        """Ids of detections `(6, m)` that are in descending order of score."""
        tracks = self._memory.table
        partner = self._associate(found)
        matched = np.flatnonzero(partner >= 0)
        rows = partner[matched]
        hit = tracks[:, matched]
        kalman.update(hit, kalman.measure(found[:4, rows]))
        hit[SCORE : CLASS_ID + 1] = found[4:, rows]
        hit[HITS] += 1
        hit[LAST] = time_s
        hit[STATE] = TRACKED
        missed = tracks[:, (partner < 0) & (tracks[STATE] != NEW)]
        missed[STATE] = LOST
        free = found[4] > self.parameters.high
        free &= found[4] >= self.parameters.new
        free[rows] = False
        born_rows = np.flatnonzero(free)
        born = self._births(found[:, born_rows], time_s)
        seen = np.concatenate((hit, born), axis=1)
        seen_rows = np.concatenate((rows, born_rows))
        if missed.shape[1] and seen.shape[1]:
            stale, twice = _duplicates(seen, missed)
            missed = missed[:, ~stale]
            seen, seen_rows = seen[:, ~twice], seen_rows[~twice]
        self._memory.table = np.concatenate((seen, missed), axis=1)
        ids = np.full(found.shape[1], -1, dtype=np.int32)
        shown = seen[STATE] == TRACKED
        ids[seen_rows[shown]] = seen[ID, shown]
        return ids

    def _births(self, found: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        count = found.shape[1]
        born = np.empty((ROWS, count))
        born[: kalman.ROWS] = kalman.initiate(kalman.measure(found[:4]))
        born[SCORE : CLASS_ID + 1] = found[4:]
        born[ID] = np.arange(self._memory.next_id, self._memory.next_id + count)
        born[HITS] = 1
        born[FIRST] = born[LAST] = time_s
        born[STATE] = TRACKED if self.frames == 1 else NEW
        self._memory.next_id += count
        return born

    def _associate(self, found: NDArray[np.float64]) -> NDArray[np.intp]:
        """Which detection each track has in this frame: `(t,)`, -1 for none."""
        tracks = self._memory.table
        partner = np.full(tracks.shape[1], -1, dtype=np.intp)
        if not partner.size or not found.shape[1]:
            return partner
        corners = kalman.corners(tracks)
        overlap = iou(corners[:, :, None], areas(corners)[:, None], found[:4, None], areas(found[:4]))
        if self.parameters.class_aware:
            overlap[tracks[CLASS_ID, :, None] != found[5]] = 0
        states, high = tracks[STATE], int(np.count_nonzero(found[4] > self.parameters.high))
        sure = 1 - overlap[:, :high] * found[4, :high]
        pool = np.flatnonzero(states != NEW)
        rows, cols = _assign(sure[pool], self.parameters.match)
        partner[pool[rows]] = cols
        still = np.flatnonzero((states == TRACKED) & (partner < 0))
        rows, second = _assign(1 - overlap[still, high:], SECOND_LIMIT)
        partner[still[rows]] = second + high
        new = np.flatnonzero(states == NEW)
        rest = np.setdiff1d(np.arange(high), cols, assume_unique=True)
        rows, third = _assign(sure[new[:, None], rest], NEW_LIMIT)
        partner[new[rows]] = rest[third]
        return partner


def _assign(cost: NDArray[np.float64], limit: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of the cheapest assignment in which every pair costs less than `limit`."""
    if not cost.size:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    rows, cols = linear_sum_assignment(np.minimum(cost, limit))
    kept = cost[rows, cols] < limit
    return rows[kept], cols[kept]


def _duplicates(
    seen: NDArray[np.float64], missed: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the missed and which of the seen tracks to drop, because they cover one object: the younger."""
    a, b = kalman.corners(seen), kalman.corners(missed)
    same = iou(b[:, :, None], areas(b)[:, None], a[:, None], areas(a)) > DUPLICATE_IOU
    older = same & (seen[FIRST] < missed[FIRST, :, None])
    return older.any(axis=1), (same & ~older).any(axis=0)


def _detections(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32] | None
) -> NDArray[np.float64]:
    """Rows x1 y1 x2 y2 score class, a column a detection."""
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    count = len(scores)
    if scores.shape != (count,) or boxes.shape != (count, 4):
        raise ValueError(f"boxes (n, 4) and scores (n,) must agree, got {boxes.shape} and {scores.shape}")
    detections = np.empty((6, count))
    detections[:4] = boxes.T
    detections[4] = scores
    if class_ids is None:
        detections[5] = -1
    elif np.shape(class_ids) != (count,):
        raise ValueError(f"class_ids (n,) must agree with scores, got {np.shape(class_ids)} and {count}")
    else:
        detections[5] = class_ids
    if not np.abs(detections).max(initial=0) <= _LARGEST:
        raise ValueError("boxes and scores must be finite")
    return detections


def _candidates(detections: NDArray[np.float64], low: float) -> NDArray[np.intp]:
    """Rows that can be tracked, best score first; equal scores by box and class, so that no order matters."""
    order = np.lexsort((*detections[5::-1][:5], -detections[4]))
    return order[: int(np.count_nonzero(detections[4] > low))]
