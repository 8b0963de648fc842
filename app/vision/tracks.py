"""State of a tracker: its settings, its table of tracks, and both as bytes."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import astuple, dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.vision import kalman

# Rows of the table after those of the filter; a column is a track.
SCORE, CLASS_ID, ID, HITS, FIRST, LAST = range(kalman.ROWS, kalman.ROWS + 6)
ROWS = kalman.ROWS + 6
INTERVALS = 31  # so many are remembered
SHORTEST_S, LONGEST_S = 1e-6, 1e6  # of the motion model's unit of time

_MAGIC = b"BYTETRK\x01"
_HEAD = struct.Struct("<8s5d?2dQ5I")  # magic, parameters, last time, unit, frames, next id and four counts
_CHECK = struct.Struct("<I")
_MOST_TRACKS, _MOST_IDS = 2**17, 2**30  # far from where time and int32 run out
_LARGEST = 1e120  # of the filter's numbers: squares and products of two stay finite


@dataclass(frozen=True, slots=True)
class TrackParameters:
    """Settings of a tracker; the defaults are the reference's.

    Args:
        high: detections with a greater score go to the first association; only they begin tracks.
        low: detections with a score in `(low, high]` go to the second.
        new: a new track needs at least this score.
        match: limit of the first association's cost `1 - iou * score`, in `(0, 1]`.
        buffer_s: a lost track is kept this long, in seconds of the video's own time.
        class_aware: a track and a detection must share a class.

    Raises:
        ValueError: a value is out of its range.
    """

    high: float = 0.5
    low: float = 0.1
    new: float = 0.6
    match: float = 0.8
    buffer_s: float = 1.0
    class_aware: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"0 <= low <= high <= 1 must hold, not low {self.low} and high {self.high}")
        if not 0 <= self.new <= 1:
            raise ValueError(f"new must lie in [0, 1], not {self.new}")
        if not 0 < self.match <= 1:
            raise ValueError(f"match must lie in (0, 1], not {self.match}")
        if not 0 <= self.buffer_s <= LONGEST_S:
            raise ValueError(f"buffer_s must lie in [0, {LONGEST_S:g}] s, not {self.buffer_s}")


@dataclass(slots=True)
class Memory:
    """All that a tracker's next answer depends on."""

    parameters: TrackParameters
    last_time_s: float | None = None  # of the latest frame
    unit_s: float | None = None  # the motion model's unit of time; None before the second frame
    frames: int = 0
    next_id: int = 1
    intervals: list[float] = field(default_factory=list)  # the latest between frames, in seconds
    table: NDArray[np.float64] = field(default_factory=lambda: np.empty((ROWS, 0)))
    tracked: int = (
        0  # so many columns from the left were seen in the latest frame, and not for the first time
    )
    lost: int = 0  # so many after those were not; all others are new

    @property
    def known(self) -> int:
        """Number of columns that are tracked or lost."""
        return self.tracked + self.lost

    def keep(self, columns: NDArray[np.bool_]) -> None:
        """Drop all other tracks."""
        if columns.all():
            return
        self.lost = int(np.count_nonzero(columns[self.tracked : self.known]))
        self.tracked = int(np.count_nonzero(columns[: self.tracked]))
        self.table = self.table[:, columns]


def pack(memory: Memory) -> bytes:
    """A tracker's memory as bytes, little-endian on every platform."""
    head = _HEAD.pack(
        _MAGIC,
        *astuple(memory.parameters),
        math.nan if memory.last_time_s is None else memory.last_time_s,
        math.nan if memory.unit_s is None else memory.unit_s,
        memory.frames,
        memory.next_id,
        len(memory.intervals),
        memory.table.shape[1],
        memory.tracked,
        memory.lost,
    )
    numbers = np.concatenate((memory.intervals, memory.table.ravel()))
    content = head + numbers.astype("<f8").tobytes()
    return content + _CHECK.pack(zlib.crc32(content))


def unpack(state: bytes) -> Memory:
    """The memory that `pack` made these bytes of.

    Raises:
        ValueError: it made no such bytes, or no tracker could have come to hold what they say.
    """
    if len(state) < _HEAD.size + _CHECK.size or not state.startswith(_MAGIC):
        raise ValueError("not the state of a tracker, or of another version")
    content, check = state[: -_CHECK.size], state[-_CHECK.size :]
    if _CHECK.pack(zlib.crc32(content)) != check:
        raise ValueError("the state of the tracker is damaged")
    _, *parameters, last_time, unit, frames, next_id, intervals, tracks, tracked, lost = _HEAD.unpack_from(
        content
    )
    if tracks > _MOST_TRACKS or len(content) != _HEAD.size + 8 * (intervals + ROWS * tracks):
        raise ValueError("the state of the tracker has the wrong length")
    numbers = np.frombuffer(content, dtype="<f8", offset=_HEAD.size).astype(np.float64)
    memory = Memory(
        TrackParameters(*parameters),
        last_time if frames else None,
        unit if intervals else None,
        frames,
        next_id,
        numbers[:intervals].tolist(),
        numbers[intervals:].reshape(ROWS, tracks),
        tracked,
        lost,
    )
    if not (_possible_clock(memory) and _possible_motion(memory.table) and _possible_tracks(memory)):
        raise ValueError("no tracker can be in this state")
    return memory


def _possible_clock(memory: Memory) -> bool:
    last, unit, count = memory.last_time_s, memory.unit_s, len(memory.intervals)
    return (
        count == min(max(memory.frames - 1, 0), INTERVALS)
        and (last is None or math.isfinite(last))
        and (unit is None or SHORTEST_S <= unit <= LONGEST_S)
        and all(0 < interval < math.inf for interval in memory.intervals)
        and 1 <= memory.next_id <= _MOST_IDS
    )


def _possible_motion(table: NDArray[np.float64]) -> bool:
    """Return whether the filter's state is finite and its covariances are valid."""
    motion = table[: kalman.ROWS]
    if not float(np.abs(motion).max(initial=0)) < _LARGEST:
        return False
    position, mixed, velocity = motion[8:10], motion[10:12], motion[12:14]
    checks = (
        position > 0,
        velocity >= 0,
        mixed * mixed <= position * velocity * (1 + 1e-6),
        motion[kalman.HEIGHT] > 0,
    )
    return all(np.all(check) for check in checks)


def _possible_tracks(memory: Memory) -> bool:
    table, last = memory.table, memory.last_time_s
    if last is None:
        return not table.size
    whole: NDArray[np.float64] = table[[CLASS_ID, ID, HITS]]
    seen = np.delete(table[LAST], np.s_[memory.tracked : memory.known])
    checks = (
        memory.known <= table.shape[1],
        np.isfinite(table),
        whole == np.rint(whole),
        np.abs(table[CLASS_ID]) <= 2**31,
        (table[ID] >= 1) & (table[ID] < memory.next_id),
        np.diff(np.sort(table[ID])) > 0,
        (table[HITS] >= 1) & (table[HITS] <= memory.frames),
        (table[FIRST] <= table[LAST]) & (table[LAST] <= last),
        seen == last,
    )
    return all(np.all(check) for check in checks)
