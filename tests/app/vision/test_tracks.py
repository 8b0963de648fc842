"""State of a tracker: parameters in range, and bytes that can't be mistaken for another's."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from golden.tracking import crowd, scene
from hypothesis import given
from hypothesis import strategies as st

from app.vision import kalman
from app.vision.bytetrack import ByteTracker
from app.vision.tracks import CLASS_ID, FIRST, HITS, ID, LAST, SCORE, TrackParameters, pack, unpack

REFUSED = r"tracker|must"
HEAD = struct.Struct("<8s5d?2dQ5I")
FIELDS = (
    "magic", "high", "low", "new", "match", "buffer_s", "class_aware", "last_time_s", "unit_s", "frames",
    "next_id", "intervals", "tracks", "tracked", "lost",
)  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"low": 0.6}, {"low": -0.1}, {"high": 1.1}, {"new": 2}, {"match": 0}, {"match": 1.5}, {"buffer_s": -1},
     {"buffer_s": float("inf")}, {"high": float("nan")}, {"new": float("nan")}],
    ids=str,
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """A tracker is never set to what has no meaning."""
    with pytest.raises(ValueError, match="must"):
        TrackParameters(**wrong)  # type: ignore[arg-type]  # class_aware isn't among them


@pytest.fixture(scope="module")
def state() -> bytes:
    """State after 40 frames of the crowd."""
    return crowd(40).state()


def sealed(content: bytes) -> bytes:
    """With the right checksum, as one who wants to do harm would send it."""
    return content + struct.pack("<I", zlib.crc32(content))


def test_states_are_small_and_reproducible(state: bytes) -> None:
    """160 bytes a track and half a kilobyte; the same history gives the same bytes."""
    tracks = len(crowd(40).tracks())
    assert tracks > 20
    assert len(state) < 160 * tracks + 512
    assert crowd(40).state() == state
    assert crowd(41).state() != state
    assert ByteTracker.restore(state).state() == state
    assert ByteTracker.restore(ByteTracker().state()).frames == 0


@pytest.mark.long
def test_any_damage_is_refused(state: bytes) -> None:
    """Every byte counts: changed, cut off or added, the state is refused."""
    rng = np.random.default_rng(0)
    for position in range(len(state)):
        damaged = bytearray(state)
        damaged[position] ^= int(rng.integers(1, 256))
        with pytest.raises(ValueError, match="tracker"):
            ByteTracker.restore(bytes(damaged))
    for wrong in (
        b"",
        state[:-1],
        state[1:],
        state + b"\0",
        state[: len(state) // 2],
        sealed(b"BYTETRK\x01"),
    ):
        with pytest.raises(ValueError, match="tracker"):
            ByteTracker.restore(wrong)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    """No other bytes pass for a state, with the right beginning and checksum neither."""
    for wrong in (foreign, sealed(foreign), sealed(b"BYTETRK\x01" + foreign)):
        with pytest.raises(ValueError, match=REFUSED):
            ByteTracker.restore(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [("high", float("nan")), ("buffer_s", -1.0), ("last_time_s", float("nan")), ("last_time_s", 1.0),
     ("last_time_s", 1e9), ("unit_s", float("nan")), ("unit_s", 0.0), ("unit_s", 1e300), ("frames", 0),
     ("frames", 3), ("next_id", 0), ("next_id", 5), ("next_id", 2**32 - 1), ("intervals", 2**32 - 1),
     ("intervals", 30), ("tracks", 2**32 - 1), ("tracks", 0), ("tracked", 2**32 - 1), ("tracked", 0),
     ("lost", 2**32 - 1), ("lost", 0)],
)  # fmt: skip
def test_an_impossible_head_is_refused(state: bytes, field: str, value: float) -> None:
    """Also with the right checksum; nothing is allocated by what a count says."""
    head = list(HEAD.unpack_from(state))
    head[FIELDS.index(field)] = value
    with pytest.raises(ValueError, match=REFUSED):
        ByteTracker.restore(sealed(HEAD.pack(*head) + state[HEAD.size : -4]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e200, -1.5, 0.5, 2.0**40])
def test_impossible_numbers_are_refused_or_harmless(state: bytes, value: float) -> None:
    """Any number of the body replaced, with the right checksum: refused, or the tracker goes on without complaint."""
    boxes, scores, _ = next(scene("crowd"))
    refused = 0
    for position in range(HEAD.size, len(state) - 4, 8):
        hostile = bytearray(state[:-4])
        struct.pack_into("<d", hostile, position, value)
        try:
            tracker = ByteTracker.restore(sealed(bytes(hostile)))
        except ValueError:
            refused += 1
            continue
        for time_s in (1.6, 1.64, 1.68):
            ids = tracker.update(boxes, scores, None, time_s)
            assert np.unique(ids[ids > 0]).size == (ids > 0).sum()
    numbers = (len(state) - HEAD.size) // 8
    assert refused > numbers * (0.1 if abs(value) < 1e100 else 0.9)  # NaN is not below either


@pytest.mark.parametrize(
    ("row", "value"),
    [(ID, 1.5), (ID, 0), (CLASS_ID, 0.5), (CLASS_ID, 2.0**40), (HITS, 0), (HITS, 99), (FIRST, 99), (LAST, 99),
     (kalman.HEIGHT, 0), (8, 0), (8, -1), (12, -1), (10, 1e6), (0, 1e130), (SCORE, float("nan"))],
)  # fmt: skip
def test_an_impossible_track_is_refused(state: bytes, row: int, value: float) -> None:
    """No id of one and a half, no hit before the first frame, no covariance that is none."""
    memory = unpack(state)
    memory.table[row, 1] = value
    with pytest.raises(ValueError, match="no tracker"):
        unpack(pack(memory))


def test_two_tracks_of_one_id_are_refused(state: bytes) -> None:
    """Else an id would stand twice in a frame."""
    memory = unpack(state)
    memory.table[ID, 1] = memory.table[ID, 0]
    with pytest.raises(ValueError, match="no tracker"):
        unpack(pack(memory))


@pytest.mark.parametrize("intervals", [[], [0.04] * 30, [0.0] * 31, [float("nan")] * 31, [float("inf")] * 31])
def test_impossible_intervals_are_refused(state: bytes, intervals: list[float]) -> None:
    """There are as many as the frames had, positive and finite."""
    memory = unpack(state)
    memory.intervals = intervals
    with pytest.raises(ValueError, match="no tracker"):
        unpack(pack(memory))
