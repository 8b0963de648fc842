"""Tracking: equal to the published algorithm at any uniform rate, and right where the rate is not uniform."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from golden.tracking import GOLDEN, SCENES, Floats, Ids, scene, settings
from hypothesis import given
from hypothesis import strategies as st

from app.vision.bytetrack import ByteTracker
from app.vision.tracks import TrackParameters


def one(x: float, y: float = 100, *, score: float = 0.9, size: float = 50) -> tuple[Floats, Floats]:
    """A detection of one square."""
    return np.array([[x, y, x + size, y + size]], dtype=np.float32), np.array([score], dtype=np.float32)


def nothing() -> tuple[Floats, Floats]:
    return np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.float32)


def walk(times: list[float], speed: float, tracker: ByteTracker | None = None) -> list[int]:
    """Ids of a square of 50 px that moves at `speed` px/s, seen at these times."""
    tracker = tracker or ByteTracker()
    return [int(tracker.update(*one(100 + speed * time), None, time)[0]) for time in times]


# The published algorithm


@pytest.mark.long
@pytest.mark.parametrize("begin_s", [0.0, 1.7e9], ids=["zero", "epoch"])
@pytest.mark.parametrize("fps", [30, 29.97, 10, 0.25])
@pytest.mark.parametrize("name", SCENES)
def test_uniform_videos_are_tracked_as_published(name: str, fps: float, begin_s: float) -> None:
    """At any uniform rate, wherever the clock begins, every row has the id that the reference gives it."""
    tracker = ByteTracker(settings(name, 1 / fps))
    for frame, (boxes, scores, wanted) in enumerate(scene(name)):
        ids = tracker.update(boxes, scores, None, begin_s + frame / fps)
        np.testing.assert_array_equal(np.where(ids < 0, 0, ids), wanted)


def test_golden_scenes_show_all_that_can_happen() -> None:
    """Tracks confirmed and not, kept alive, found again, lost for good, and duplicates of both kinds."""
    events = dict(zip(GOLDEN["event_names"].tolist(), GOLDEN["event_counts"].tolist(), strict=True))
    assert len(events) == 7
    assert min(events.values()) >= 2, events


def test_the_first_frame_shows_its_tracks_and_others_wait_for_a_second_hit() -> None:
    """Tracks born in frame 1 are shown in frame 1; later ones from their second frame on, as published."""
    tracker = ByteTracker()
    assert tracker.update(*one(0), None, 0.0).tolist() == [1]
    both = [np.concatenate(pair) for pair in zip(one(0), one(300), strict=True)]
    assert tracker.update(*both, None, 0.1).tolist() == [1, -1]
    assert tracker.update(*both, None, 0.2).tolist() == [1, 2]


@pytest.mark.parametrize(("score", "wanted"), [(0.1, -1), (0.11, 1), (0.5, 1)])
def test_low_scores_keep_a_track_alive(score: float, wanted: int) -> None:
    """A detection above `low` continues a track that was seen in the frame before; float32 0.1 is not above 0.1."""
    tracker = ByteTracker()
    walk([0.0, 0.1], 0, tracker)
    assert tracker.update(*one(100, score=score), None, 0.2).tolist() == [wanted]


@pytest.mark.parametrize(("score", "begins"), [(0.69, False), (0.7, True)])
def test_a_new_track_needs_its_score(score: float, begins: bool) -> None:
    """A detection begins a track from `new` on, also where float32 is a little below it."""
    tracker = ByteTracker(TrackParameters(new=0.7))
    assert tracker.update(*one(0, score=score), None, 0.0).tolist() == [1 if begins else -1]


# Time


@pytest.mark.parametrize("speed", [0, 100, 500, -500])
def test_a_steady_object_keeps_its_id_when_frames_are_dropped(speed: float) -> None:
    """30 fps, of which two thirds are dropped at random once it is known: the prediction goes over the real time."""
    rng = np.random.default_rng(3)
    times = [frame / 30 for frame in range(300) if frame < 10 or rng.random() < 1 / 3]
    assert max(b - a for a, b in pairwise(times)) > 0.2
    assert set(walk(times, speed)) == {1}


def test_counting_frames_would_lose_it() -> None:
    """The test above can fail: told that the same frames came at a uniform rate, the tracker loses the object."""
    rng = np.random.default_rng(3)
    frames = [frame for frame in range(300) if frame < 10 or rng.random() < 1 / 3]
    tracker = ByteTracker()
    ids = [tracker.update(*one(100 + 500 * frame / 30), None, n / 30)[0] for n, frame in enumerate(frames)]
    assert len(set(ids)) > 2


@pytest.mark.parametrize("begin_s", [0.0, 1.7e9, -5.0], ids=["zero", "epoch", "negative"])
def test_every_rate_tells_the_same(begin_s: float) -> None:
    """Three objects that pass each other have the same ids at 30 fps, 10 fps and a varying rate, in the same frames."""
    rng = np.random.default_rng(1)
    speeds, x = np.array([150.0, -120.0, 0.0]), np.array([0.0, 500.0, 250.0])
    lanes = np.array([100.0, 130.0, 170.0])

    def ids_at(times: list[float]) -> dict[float, list[int]]:
        tracker, answers = ByteTracker(), {}
        for time in times:
            left = x + speeds * time
            boxes = np.stack((left, lanes, left + 60, lanes + 120), axis=1).astype(np.float32)
            answers[round(time, 6)] = tracker.update(boxes, np.full(3, 0.9), None, begin_s + time).tolist()
        return answers

    full = ids_at([frame / 30 for frame in range(120)])
    assert {tuple(ids) for ids in full.values()} == {tuple(full[0.0])}
    assert sorted(full[0.0]) == [1, 2, 3]
    third = ids_at([frame / 30 for frame in range(0, 120, 3)])
    varying = ids_at([frame / 30 for frame in range(120) if frame % 3 == 0 or rng.random() < 0.5])
    for answers in (third, varying):
        assert all(ids == full[time] for time, ids in answers.items())


@pytest.mark.parametrize("fps", [5, 10, 30, 100])
@pytest.mark.parametrize(("hidden_s", "same"), [(0.9, True), (1.6, False)])
def test_the_buffer_is_in_seconds(fps: int, hidden_s: float, same: bool) -> None:
    """An object that was hidden for less than the buffer has its id again, at any rate; after longer a new one."""
    tracker = ByteTracker()
    ids = []
    for frame in range(8 * fps):
        time = frame / fps
        seen = not 1 <= time < 1 + hidden_s
        ids += tracker.update(*(one(100) if seen else nothing()), None, time).tolist()
    assert set(ids) == ({1} if same else {1, 2, -1})


def test_a_slow_video_is_tracked_although_its_interval_exceeds_the_buffer() -> None:
    """A track of the frame before is never too old: sampling every 10 s tracks with a buffer of 1 s."""
    assert set(walk([10.0 * n for n in range(8)], 0.5)) == {1}


def test_an_interruption_ends_all_tracks() -> None:
    """Tracks from before a minute of silence of the camera are not continued."""
    tracker = ByteTracker()
    walk([n / 30 for n in range(30)], 0, tracker)
    assert walk([61.0, 61.1], 0, tracker) == [-1, 2]


def test_a_new_rate_is_learned() -> None:
    """A camera that goes over from 30 to 5 fps keeps its objects' ids, and a single gap is no new rate."""
    tracker, interval = ByteTracker(), 1 / 30
    walk([*np.arange(60) / 30, 2.5], 60, tracker)
    assert tracker._memory.unit_s == pytest.approx(interval)
    assert set(walk([2.5 + n / 5 for n in range(1, 40)], 60, tracker)) == {1}
    assert tracker._memory.unit_s == pytest.approx(0.2)


# Classes


@pytest.mark.parametrize(("aware", "wanted"), [(False, 1), (True, -1)])
def test_classes_matter_by_option(aware: bool, wanted: int) -> None:
    """A track goes on as another class only where classes don't matter."""
    tracker = ByteTracker(TrackParameters(class_aware=aware))
    for time in (0.0, 0.1):
        tracker.update(*one(100), np.array([2], dtype=np.int32), time)
    assert tracker.update(*one(100), np.array([7], dtype=np.int32), 0.2).tolist() == [wanted]


def test_classes_on_one_spot_are_two_tracks() -> None:
    """With classes that matter, a lost track is no duplicate of one of another class that covers it."""
    tracker = ByteTracker(TrackParameters(class_aware=True))
    boxes, scores = (np.repeat(array, 2, axis=0) for array in one(100))
    classes = np.array([2, 7], dtype=np.int32)
    assert sorted(tracker.update(boxes, scores, classes, 0.0)) == [1, 2]
    tracker.update(boxes[:1], scores[:1], classes[:1], 0.1)
    assert sorted(track["state"] for track in tracker.tracks()) == ["lost", "tracked"]
    assert sorted(tracker.update(boxes, scores, classes, 0.2)) == [1, 2]


# What any video must show

ROWS = st.tuples(
    st.integers(0, 12),  # x and y in steps of 10 px
    st.integers(0, 3),
    st.integers(1, 4),  # width and height, ditto
    st.integers(1, 4),
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.55, 0.6, 0.8, 0.9]),
    st.integers(0, 2),  # class
)
INTERVALS = st.sampled_from([0.04, 0.04, 0.04, 0.08, 0.5, 3.0])
VIDEOS = st.lists(st.tuples(st.lists(ROWS, max_size=8, unique=True), INTERVALS), min_size=1, max_size=12)
PARAMETERS = st.builds(
    TrackParameters, match=st.sampled_from([0.5, 0.8, 1.0]), buffer_s=st.sampled_from([0.0, 0.2, 1.0]),
    class_aware=st.booleans(),
)  # fmt: skip
Video = list[tuple[list[tuple[int, int, int, int, float, int]], float]]


def frames_of(video: Video) -> Iterator[tuple[Floats, Floats, Ids, float]]:
    time = 0.0
    for rows, interval in video:
        table = np.array(rows, dtype=np.float64).reshape(-1, 6)
        x, y, width, height = 10 * table[:, :4].T
        boxes = np.stack((x, y, x + width, y + height), axis=1).astype(np.float32)
        time += interval
        yield boxes, table[:, 4].astype(np.float32), table[:, 5].astype(np.int32), time


@given(VIDEOS, PARAMETERS)
def test_every_row_has_its_answer_and_no_id_stands_twice(video: Video, parameters: TrackParameters) -> None:
    """One int32 a row, -1 or an id from 1 up that no other row of the frame has; low scores have none."""
    tracker = ByteTracker(parameters)
    for frame, (boxes, scores, classes, time) in enumerate(frames_of(video), 1):
        ids = tracker.update(boxes, scores, classes, time)
        assert ids.shape == scores.shape
        assert ids.dtype == np.int32
        shown = ids[ids != -1]
        assert (shown >= 1).all()
        assert np.unique(shown).size == shown.size
        assert (ids[scores <= np.float32(0.1)] == -1).all()
        states = {track["id"]: track["state"] for track in tracker.tracks()}
        assert {i for i, state in states.items() if state == "tracked"} == set(shown.tolist())
        assert (tracker.frames, tracker.last_time_s) == (frame, time)


@given(VIDEOS, PARAMETERS, st.randoms(use_true_random=False))
def test_the_order_of_rows_decides_nothing(video: Video, parameters: TrackParameters, random: object) -> None:
    """Rows in another order have the same ids in that order, and leave the same state."""
    tracker, shuffled = ByteTracker(parameters), ByteTracker(parameters)
    for boxes, scores, classes, time in frames_of(video):
        order = list(range(len(scores)))
        random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis' Random
        ids = tracker.update(boxes, scores, classes, time)
        np.testing.assert_array_equal(
            shuffled.update(boxes[order], scores[order], classes[order], time), ids[order]
        )
        assert shuffled.state() == tracker.state()


@given(VIDEOS, PARAMETERS, st.integers(0, 11))
def test_a_restored_tracker_goes_on_as_if_nothing_had_happened(
    video: Video, parameters: TrackParameters, cut: int
) -> None:
    """State out and in, in the middle of a video, changes neither ids nor the state at the end."""
    undisturbed, tracker = ByteTracker(parameters), ByteTracker(parameters)
    for frame, detections in enumerate(frames_of(video)):
        if frame == cut:
            tracker = ByteTracker.restore(tracker.state())
        np.testing.assert_array_equal(tracker.update(*detections), undisturbed.update(*detections))
    assert tracker.state() == undisturbed.state()
    assert tracker.parameters == parameters
    assert tracker.tracks() == undisturbed.tracks()


@pytest.mark.parametrize(
    "box",
    [[5, 5, 5, 5], [9, 9, 5, 5], [-3e38, -3e38, 3e38, 3e38], [0, 0, 3e38, 1e-30], [1e-40, 0, 2e-40, 1e-40]],
    ids=["point", "inside out", "huge", "long", "tiny"],
)
def test_odd_boxes_harm_nothing(box: list[float]) -> None:
    """Boxes of no area and of the largest float32 sides are taken, restored and tracked beside a usual one."""
    tracker = ByteTracker()
    boxes, scores = np.array([[100, 100, 150, 150], box], dtype=np.float32), np.array([0.9, 0.8])
    for frame in range(40):
        count = 2 if frame % 7 < 5 else 1
        boxes[0, [0, 2]] += 2
        assert tracker.update(boxes[:count], scores[:count], None, frame / 25)[0] == 1
        tracker = ByteTracker.restore(tracker.state())


# What is refused

BOXES, SCORES = one(100)


@pytest.mark.parametrize(
    ("boxes", "scores", "classes", "time_s"),
    [
        (BOXES, SCORES, None, 1.0),
        (BOXES, SCORES, None, 0.5),
        (BOXES, SCORES, None, np.nan),
        (BOXES, SCORES, None, np.inf),
        (BOXES, np.array([np.nan]), None, 2.0),
        (BOXES * np.nan, SCORES, None, 2.0),
        (BOXES.astype(np.float64) * 1e300, SCORES, None, 2.0),
        (BOXES, SCORES[:0], None, 2.0),
        (BOXES[0], SCORES, None, 2.0),
        (BOXES[:, :3], SCORES, None, 2.0),
        (BOXES, SCORES[0], None, 2.0),
        (BOXES, SCORES, np.array([1, 2]), 2.0),
    ],
    ids=["same time", "before", "nan time", "inf time", "nan score", "nan box", "no float32", "no score", "flat",
         "3 numbers", "no vector", "classes"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    boxes: Floats, scores: Floats, classes: Ids | None, time_s: float
) -> None:
    """ValueError, and the tracker is as it was."""
    tracker = ByteTracker()
    tracker.update(BOXES, SCORES, None, 1.0)
    before = tracker.state()
    with pytest.raises(ValueError, match="must"):
        tracker.update(boxes, scores, classes, time_s)
    assert tracker.state() == before


def test_tracks_tell_all_there_is_to_export() -> None:
    """By id: where it is, how sure, what, in which state, how often and when it was seen."""
    tracker = ByteTracker()
    two = [np.concatenate(pair) for pair in zip(one(100), one(400, score=0.8), strict=True)]
    classes = np.array([0, 5], dtype=np.int32)
    tracker.update(*two, classes, 10.0)
    tracker.update(two[0][:1], two[1][:1], classes[:1], 10.5)
    tracker.update(np.concatenate((two[0][:1], one(700)[0])), np.full(2, 0.9), np.array([0, 3]), 11.0)
    seen, lost, new = tracker.tracks()
    assert seen == {
        "id": 1, "box": pytest.approx([100, 100, 150, 150]), "score": pytest.approx(0.9), "class_id": 0,
        "state": "tracked", "hits": 3, "first_time_s": 10.0, "last_time_s": 11.0,
    }  # fmt: skip
    assert (lost["id"], lost["state"], lost["class_id"], lost["hits"], lost["last_time_s"]) == (
        2,
        "lost",
        5,
        1,
        10.0,
    )
    assert (new["id"], new["state"], new["class_id"], new["first_time_s"]) == (3, "new", 3, 11.0)


def test_a_state_after_any_gap_is_restored() -> None:
    """From a tenth of a millisecond to a day between frames: rounding never makes a covariance impossible."""
    boxes = np.array([[224, 32, 256, 64], [64, 96, 96, 128]], np.float32)
    tracker = ByteTracker()
    for time_s in (-42181.0, 0.0, 0.0001, 94907.0, 94908.0):
        tracker.update(boxes, np.ones(2, np.float32), np.array([2, 0], np.int32), time_s)
        assert ByteTracker.restore(tracker.state()).state() == tracker.state()
