"""ByteTrack: the detections of one object get one id through the frames of a video.

Method: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, with the
thresholds of its reference implementation. Detections with a high score are matched first, to all tracks; those with a
low score then keep tracks alive that found none; what is left begins new tracks, shown from their second frame on.

What is different, and why:

- The reference counts frames; here time is the frames' own. The motion model's unit of time is the video's typical
  interval (the median of the latest), so a uniformly sampled video of any stride is tracked as the reference tracks it;
  where frames were dropped or come at a varying rate, the prediction goes over the time that really passed.
- Network cameras deliver frames in bursts, a millisecond apart, and stamp them so. No camera takes pictures like that:
  `app.vision.intervals` recognises bursts, and each of their frames counts as one typical interval.
- Ids belong to the tracker, and every row of the input gets its own.
- All tracks are columns of one table: a frame costs about the same number of array operations however many there are.
- Work is bounded: the best 1,000 detections of a frame are linked, and the 2,000 tracks lost last are kept.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision import kalman
from app.vision.association import DUPLICATE_IOU, associate, duplicates
from app.vision.boxes import areas, iou
from app.vision.intervals import Pace, pace_of
from app.vision.tracks import (
    CLASS_ID,
    FIRST,
    HITS,
    ID,
    INTERVALS,
    LAST,
    LONGEST_S,
    SCORE,
    SHORTEST_S,
    Memory,
    TrackParameters,
    pack,
    unpack,
)

# A track is lost one interval after it was last seen, and the reference lets it go one after its time has run out;
# a quarter of an interval is for timestamps that are not quite regular.
GRACE = 2.25
# The unit of time changes when the typical interval has moved by more: rounded timestamps change nothing.
JITTER = 0.1
# A frame costs tracks times detections: the best so many are linked, and the so many that were lost last are kept.
MOST_DETECTIONS, MOST_LOST = 1000, 2000
DEFAULTS = TrackParameters()


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
            class_ids: `(n,)`; None: all are one class, -1.
            time_s: when the frame was taken, in seconds since any moment.

        Returns:
            `(n,)`: the track id of each row, from 1; -1 where it has none. No id stands there twice. The order of
            the rows decides nothing.

        Raises:
            ValueError: `time_s` is not after the frame before, shapes disagree, or a value is not finite. The tracker
                is then as it was.
        """
        detections = _detections(boxes, scores, class_ids)
        self._advance(float(time_s))
        ids = np.full(detections.shape[1], -1, dtype=np.int32)
        order = _best_first(detections, self.parameters.low)[:MOST_DETECTIONS]
        ids[order] = self._take(detections.take(order, axis=1))
        return ids

    def tracks(self) -> list[dict[str, Any]]:
        """All tracks, by id, as of the latest frame.

        `box` is xyxy in px, smoothed by the filter and of a lost track predicted; `score` and `class_id` are those of
        its last detection; `hits` counts its detections; `state` is `tracked` (seen in the latest frame), `lost`, or
        `new` (first seen in the latest frame, and shown if it is seen again in the next).
        """
        memory = self._memory
        states = ["tracked"] * memory.tracked + ["lost"] * memory.lost
        states += ["new"] * (memory.table.shape[1] - memory.known)
        columns = zip(memory.table.T.tolist(), kalman.corners(memory.table).T.tolist(), states, strict=True)
        tracks = [
            {
                "id": int(track[ID]),
                "box": box,
                "score": track[SCORE],
                "class_id": int(track[CLASS_ID]),
                "state": state,
                "hits": int(track[HITS]),
                "first_time_s": track[FIRST],
                "last_time_s": track[LAST],
            }
            for track, box, state in columns
        ]
        return sorted(tracks, key=lambda track: int(track["id"]))

    def state(self) -> bytes:
        """All that the next `update` depends on; the same history gives the same bytes on every platform."""
        return pack(self._memory)

    @classmethod
    def restore(cls, state: bytes) -> ByteTracker:
        """The tracker that gave this `state`.

        Raises:
            ValueError: no tracker gave it.
        """
        tracker = cls()
        tracker._memory = unpack(state)
        return tracker

    def _advance(self, time_s: float) -> None:
        """Let go of the tracks that have been lost for too long, and move the others to this time."""
        memory = self._memory
        if not math.isfinite(time_s):
            raise ValueError(f"time_s must be finite, not {time_s}")
        if memory.last_time_s is not None:
            elapsed = time_s - memory.last_time_s
            if not 0 < elapsed < math.inf:
                raise ValueError(f"time_s must be after {memory.last_time_s}, not {time_s}")
            pace = self._learn_pace(elapsed)
            unit = pace.unit_s
            memory.keep(time_s - memory.table[LAST] <= self.parameters.buffer_s + GRACE * unit)
            if memory.known:  # new tracks are at rest
                memory.table[kalman.HEIGHT_VELOCITY, memory.tracked : memory.known] = 0
                kalman.predict(memory.table[:, : memory.known], pace.passed_s / unit)
        memory.last_time_s = time_s
        memory.frames += 1

    def _learn_pace(self, elapsed: float) -> Pace:
        """The typical interval between frames, now that this one has passed, and the time that counts as passed."""
        memory = self._memory
        memory.intervals = [*memory.intervals[1 - INTERVALS :], elapsed]
        pace = pace_of(memory.intervals)
        unit_s = min(max(pace.unit_s, SHORTEST_S), LONGEST_S)
        if memory.unit_s is not None and abs(unit_s - memory.unit_s) <= JITTER * memory.unit_s:
            unit_s = memory.unit_s
        elif memory.unit_s is not None and not pace.burst:
            kalman.rescale(memory.table, unit_s / memory.unit_s)
        memory.unit_s = unit_s
        return replace(pace, unit_s=unit_s)

    def _take(self, found: NDArray[np.float64]) -> NDArray[np.int32]:
        """Ids `(m,)` of detections `(6, m)` that stand best first."""
        memory = self._memory
        partner = self._associate(found)
        matched = (partner >= 0).nonzero()[0]
        missed = (partner[: memory.known] < 0).nonzero()[0]
        rows = partner[matched]
        hit = memory.table.take(matched, axis=1)
        measured = kalman.measure(found[:4])
        kalman.update(hit, measured.take(rows, axis=1))
        hit[HITS] += 1
        self._note(hit, found.take(rows, axis=1))
        begins = self._begins(found, rows)
        born = self._born(found[:, begins], measured[:, begins])
        if memory.frames == 1:  # as in the reference, the first frame's tracks need no second
            hit, rows, born = born, begins, hit
        if missed.size > MOST_LOST:
            latest = np.argsort(-memory.table[LAST, missed], kind="stable")[:MOST_LOST]
            missed = missed[np.sort(latest)]
        memory.table = np.concatenate((hit, memory.table.take(missed, axis=1), born), axis=1)
        memory.tracked, memory.lost = hit.shape[1], missed.size
        kept = self._drop_duplicates()
        ids = np.full(found.shape[1], -1, dtype=np.int32)
        ids[rows[kept]] = memory.table[ID, : memory.tracked]
        return ids

    def _associate(self, found: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the detection of each track in this frame: `(t,)`, -1 for none."""
        memory, parameters = self._memory, self.parameters
        boxes = kalman.corners(memory.table)
        overlap = iou(boxes[:, :, None], areas(boxes)[:, None], found[:4, None], areas(found[:4]))  # (t, m)
        if parameters.class_aware:
            overlap[memory.table[CLASS_ID, :, None] != found[5]] = 0
        strong = int(np.count_nonzero(found[4] > np.float32(parameters.high)))
        return associate(overlap, found[4], strong, memory.tracked, memory.known, parameters.match)

    def _begins(self, found: NDArray[np.float64], taken: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows of the detections that begin tracks."""
        begins = found[4] > np.float32(self.parameters.high)
        begins &= found[4] >= np.float32(self.parameters.new)
        begins[taken] = False
        rows: NDArray[np.intp] = begins.nonzero()[0]
        return rows

    def _born(self, found: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
        memory, count = self._memory, found.shape[1]
        born = np.empty((memory.table.shape[0], count))
        if count:
            born[: kalman.ROWS] = kalman.initiate(measured)
            born[ID] = np.arange(memory.next_id, memory.next_id + count)
            born[HITS] = 1
            born[FIRST] = memory.last_time_s
            self._note(born, found)
            memory.next_id += count
        return born

    def _note(self, tracks: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        tracks[SCORE] = found[4]
        tracks[CLASS_ID] = found[5]
        tracks[LAST] = self._memory.last_time_s

    def _drop_duplicates(self) -> NDArray[np.bool_]:
        """Drop tracks that share an object with a better one; `(tracked,)`: which of the tracked ones stay."""
        memory, table = self._memory, self._memory.table
        stay = np.ones(table.shape[1], dtype=bool)
        tracked, lost = slice(memory.tracked), slice(memory.tracked, memory.known)
        if memory.lost and memory.lost < stay.size:
            boxes = kalman.corners(table)
            size = areas(boxes)
            overlap = iou(boxes[:, lost, None], size[lost, None], boxes[:, None], size)  # (lost, t)
            overlap[:, lost] = 0
            if self.parameters.class_aware:
                overlap[table[CLASS_ID, lost, None] != table[CLASS_ID]] = 0
            if overlap.max() > DUPLICATE_IOU:  # which is rare
                span = table[LAST] - table[FIRST]
                drop_lost, drop_seen = duplicates(overlap, span[lost], span, (memory.unit_s or 0) / 2)
                stay &= ~drop_seen
                stay[lost] = ~drop_lost
                memory.keep(stay)
        return stay[tracked]


def _detections(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32] | None
) -> NDArray[np.float64]:
    """One column a detection: x1 y1 x2 y2 score class."""
    shapes = np.shape(boxes), np.shape(scores), np.shape(scores if class_ids is None else class_ids)
    count = np.size(scores)
    if shapes != ((count, 4), (count,), (count,)):
        raise ValueError(f"boxes (n, 4), scores (n,) and class_ids (n,) must agree, not {shapes}")
    detections = np.empty((6, count))
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        detections[:4] = np.asarray(boxes, dtype=np.float32).T
        detections[4] = np.asarray(scores, dtype=np.float32)
    detections[5] = -1 if class_ids is None else np.asarray(class_ids, dtype=np.int32)
    if not np.isfinite(detections).all():
        raise ValueError("boxes and scores must be finite")
    return detections


def _best_first(detections: NDArray[np.float64], low: float) -> NDArray[np.intp]:
    """Rows with a score above `low` in descending order; what is equal, by box and class, so that no order matters."""
    x1, y1, x2, y2, score, class_id = detections
    order = np.argsort(-score)
    ordered = score[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((class_id, y2, x2, y1, x1, -score))
    return order[: np.count_nonzero(score > np.float32(low))]
