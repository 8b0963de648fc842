"""Sessions whose state another worker changes, whose clock goes back, or that can't continue."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models.engines import colour_detector
from support.models.repository import CATALOGUE
from support.servers.gateway import png, scene
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.engine.fake import FakeEngine
from app.errors import DeadlineExceeded, InvalidImage, InvalidParameter, SessionConflict, SessionsUnavailable
from app.media.image import ImageLimits
from app.metrics import Metrics
from app.pipelines.base import Router
from app.pipelines.detect import Detections, DetectParameters, DetectPipeline
from app.pipelines.tracking import Tracked
from app.sessions.session import Session, SessionCall
from app.sessions.tracking_sessions import Sessions
from app.state.memory import MemoryStore
from app.vision.tracks import TrackParameters
from routing.policy import Wishes

PARAMETERS = DetectParameters()
FIXED = {"conf": 0.25, "classes": None}
SOON = Deadline.after(86_400)  # made when the tests are collected


@pytest.fixture(scope="module")
def pipeline() -> Iterator[DetectPipeline]:
    """Colours to boxes, in numpy."""
    engine = FakeEngine(CATALOGUE, {"yolo11n_320": colour_detector})
    yield DetectPipeline(Router(CATALOGUE, engine, "n"), Metrics(), ImageLimits())
    engine.close()


@pytest.fixture(scope="module")
def found(pipeline: DetectPipeline) -> Detections:
    """One red patch and one blue one."""
    return _found(pipeline, (0, 64, 96, 32), (2, 224, 32, 32))


def _found(pipeline: DetectPipeline, *patches: tuple[int, int, int, int]) -> Detections:
    return pipeline(png(scene(320, 320, *patches)), _call().detector(PARAMETERS), Wishes(), SOON)


def _call(*timestamps: float, **changes: Any) -> SessionCall:
    call = SessionCall("cam1", 0.25, TrackParameters(), FIXED, timestamps or None)
    return replace(call, **changes)


def _ids(frames: list[Any]) -> list[list[int]]:
    assert all(isinstance(frame, Tracked) for frame in frames)
    return [sorted(frame.track_ids.tolist()) for frame in frames]


class Contested(MemoryStore):
    """A store in which `rival` does something just before each of the first `times` saves, its own excepted."""

    def __init__(self, rival: Callable[[], object], times: float) -> None:
        super().__init__(60, 100)
        self._rival = rival
        self._times = times
        self._inside = False

    def save(self, session_id: str, value: bytes, expected: bytes | None) -> bool:
        if self._times > 0 and not self._inside:
            self._times -= 1
            self._inside = True
            self._rival()
            self._inside = False
        return super().save(session_id, value, expected)


def _counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_an_update_that_lost_is_done_again_from_the_newer_state(found: Detections) -> None:
    """Another worker was faster with an earlier frame: both count, and the ids go on."""
    metrics = Metrics()
    store = Contested(lambda: rival.update(_call(1.0), [found], SOON), times=1)
    sessions = Sessions(store, metrics)
    rival = Sessions(store, metrics)
    assert _ids(sessions.update(_call(2.0), [found], SOON)) == [[1, 2]]
    document = sessions.export("cam1")
    assert (document["frames"], document["last_timestamp"]) == (2, 2.0)
    assert _counted(metrics, "gateway_session_retries_total") == 1


def test_an_update_that_lost_to_a_later_frame_is_out_of_order(found: Detections) -> None:
    """Another worker was faster with a later frame: a conflict that names its time, and the state is the other's."""
    metrics = Metrics()
    store = Contested(lambda: rival.update(_call(3.0), [found], SOON), times=1)
    sessions = Sessions(store, metrics)
    rival = Sessions(store, metrics)
    with pytest.raises(SessionConflict, match=r"timestamp 2\.0 is not after 3\.0"):
        sessions.update(_call(2.0), [found], SOON)
    assert sessions.export("cam1")["frames"] == 1
    assert _counted(metrics, "gateway_session_conflicts_total", reason="order") == 1


def test_an_update_that_always_loses_ends_with_its_time(found: Detections) -> None:
    """The deadline bounds the attempts, and the session has the rival's frames alone."""
    metrics = Metrics()
    deadline = Deadline.after(PATIENCE_S)

    def win() -> None:
        rival.update(_call(), [found], SOON)
        if rival.export("cam1")["frames"] == 3:
            deadline.cancel()

    store = Contested(win, times=math.inf)
    sessions = rival = Sessions(store, metrics)
    with pytest.raises(DeadlineExceeded):
        sessions.update(_call(), [found], deadline)
    retries = _counted(metrics, "gateway_session_retries_total")
    assert retries == 3
    assert sessions.export("cam1")["frames"] == retries


def test_a_request_without_time_left_changes_nothing(found: Detections) -> None:
    """A frame that can't be answered in time isn't tracked either, so it can be sent again."""
    sessions = Sessions(MemoryStore(60, 100), Metrics())
    with pytest.raises(DeadlineExceeded):
        sessions.update(_call(1.0), [found], Deadline.after(0))
    assert _ids(sessions.update(_call(1.0), [found], SOON)) == [[1, 2]]


def test_a_session_that_was_reset_meanwhile_begins_anew(found: Detections) -> None:
    """A reset between reading and writing isn't undone: the frame is the first of the new session."""
    store = Contested(lambda: sessions.delete("cam1"), times=0)
    sessions = Sessions(store, Metrics())
    sessions.update(_call(5.0), [found], SOON)
    store._times = 1
    (tracked,) = sessions.update(_call(6.0), [found], SOON)
    assert isinstance(tracked, Tracked)
    assert tracked.frame == 1


def test_the_service_s_clock_never_goes_back(found: Detections) -> None:
    """A clock that is set back, or another host's that is behind, is no conflict: the session goes on just after."""
    times = iter([100.0, 100.0, 90.0, 90.0, 100.0005, 100.5])
    sessions = Sessions(MemoryStore(60, 100), Metrics(), clock=lambda: next(times))
    at = []
    for _ in range(5):
        (tracked,) = sessions.update(_call(), [found], SOON)
        assert isinstance(tracked, Tracked)
        assert _ids([tracked]) == [[1, 2]]
        at.append(tracked.time_s)
    assert at == pytest.approx([100.0, 100.001, 100.002, 100.003, 100.5])


def test_the_frames_of_a_request_are_taken_all_or_none(pipeline: DetectPipeline, found: Detections) -> None:
    """Frames of two sizes, or a conflict, leave the session as it was."""
    sessions = Sessions(MemoryStore(60, 100), Metrics())
    sessions.update(_call(1.0, 2.0), [found, found], SOON)
    other = replace(found, rgb=np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(InvalidParameter, match="320x320, 320x240"):
        sessions.update(_call(3.0, 4.0), [found, other], SOON)
    with pytest.raises(SessionConflict, match="frame_size changed from 320x320 to 320x240"):
        sessions.update(_call(3.0, 4.0), [other, other], SOON)
    assert sessions.export("cam1")["frames"] == 2


def test_a_frame_that_failed_stays_in_its_place_and_out_of_the_tracker(found: Detections) -> None:
    """The others have their own timestamps; with no frame left the first failure is raised and nothing begins."""
    sessions = Sessions(MemoryStore(60, 100), Metrics())
    broken = InvalidImage("broken")
    with pytest.raises(InvalidImage):
        sessions.update(_call(1.0, 2.0), [broken, InvalidImage("too")], SOON)
    first, second, third = sessions.update(_call(3.0, 4.0, 5.0), [found, broken, found], SOON)
    assert second is broken
    assert isinstance(first, Tracked)
    assert isinstance(third, Tracked)
    assert (first.time_s, first.frame, third.time_s, third.frame) == (3.0, 1, 5.0, 2)


def test_fields_of_a_later_release_are_kept(found: Detections) -> None:
    """Releases that share a session during an upgrade don't take each other's fields away."""
    session = Session.begin(_call(1.0), FIXED, 1.0)
    session.take(found, 0.25, 1.0)
    head, _, state = session.encode().partition(b"\n")
    later = json.dumps({**json.loads(head), "later": {"a": 1}}).encode()
    read = Session.decode(later + b"\n" + state)
    read.take(found, 0.25, 2.0)
    assert read.head["later"] == {"a": 1}
    assert json.loads(read.encode().partition(b"\n")[0])["later"] == {"a": 1}
    assert read.tracker.frames == 2


def test_what_another_version_wrote_is_a_conflict_until_it_is_reset(found: Detections) -> None:
    """Values that can't be read are neither a defect nor thrown away silently."""
    store = MemoryStore(60, 100)
    sessions = Sessions(store, Metrics())
    for value in (b"", b"junk", b'{"format":2}\n', b'{"format":1}\nBYTE', b"[]\n", b"\xff\xfe"):
        assert store.save("cam1", value, None)
        with pytest.raises(SessionConflict, match="another version"):
            sessions.update(_call(1.0), [found], SOON)
        with pytest.raises(SessionConflict, match="another version"):
            sessions.export("cam1")
        sessions.delete("cam1")
    sessions.update(_call(1.0), [found], SOON)


def test_a_session_has_room_for_so_many_tracks(found: Detections) -> None:
    """50 tracks take about 9 kB; of a frame with 7,000 boxes so many are tracked that a session fits in a mebibyte."""
    store = MemoryStore(60, 100)
    sessions = Sessions(store, Metrics())
    sessions.update(_call(1.0), [_many(found, 50)], SOON)
    snapshot = store.load("cam1")
    assert snapshot is not None
    assert len(snapshot.value) < 10_000
    sessions.update(_call(1.0, session_id="cam2"), [_many(found, 7000)], SOON)
    crowded = store.load("cam2")
    assert crowded is not None
    assert 100_000 < len(crowded.value) < 1 << 20


def _many(found: Detections, count: int) -> Detections:
    """Return so many confident boxes of 10 px, 20 px apart."""
    corners = np.stack(np.divmod(np.arange(count), 100), axis=1).astype(np.float32) * 20
    boxes = np.concatenate([corners, corners + 10], axis=1)
    return replace(
        found, boxes=boxes, scores=np.full(count, 0.9, np.float32), class_ids=np.zeros(count, np.int32)
    )


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=12, unique=True))
def test_any_ascending_times_are_tracked(found: Detections, times: list[float]) -> None:
    """From a picosecond to thirty thousand years between frames: no defect, no id twice."""
    sessions = Sessions(MemoryStore(60, 100), Metrics())
    for at in sorted(times):
        ((first, second),) = _ids(sessions.update(_call(at), [found], SOON))
        assert first != second or first == -1


def test_without_a_common_store_every_call_is_refused(found: Detections) -> None:
    """Several workers without Redis: said with the setting that helps."""
    sessions = Sessions(None, Metrics())
    for call in (
        lambda: sessions.update(_call(), [found], SOON),
        lambda: sessions.export("cam1"),
        lambda: sessions.delete("cam1"),
    ):
        with pytest.raises(SessionsUnavailable, match="GATEWAY_SESSION_STORE"):
            call()
    sessions.close()
