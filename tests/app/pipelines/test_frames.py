"""Frames in order: overlapped, bounded, patient, and stopped at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.errors import InferenceFailed, Overloaded, TritonUnavailable
from app.pipelines.frames import FramesInOrder, Patience, frames_in_order


class Frame:
    """Counts who holds it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.time_s = index / 10
        self.rgb = np.full((2, 2, 3), index % 256, np.uint8)
        self.holders = 1
        self._lock = threading.Lock()

    def hold(self) -> Frame:
        with self._lock:
            assert self.holders > 0
            self.holders += 1
        return self

    def release(self) -> None:
        with self._lock:
            self.holders -= 1
            assert self.holders >= 0


class Source:
    """Source of so many frames that remembers them, and how far it was read."""

    def __init__(self, count: int, fault: Exception | None = None) -> None:
        self.frames = [Frame(index) for index in range(count)]
        self.given = 0
        self.closed = threading.Event()
        self._fault = fault

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.frames:
            if self.closed.is_set():
                return
            self.given += 1
            yield frame
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        self.closed.set()


def index_of(frame: Any, previous: Any) -> int:
    return int(frame.index)


def patience(backend_s: float = PATIENCE_S, total_s: float = PATIENCE_S) -> Patience:
    return Patience(Deadline.after(total_s), backend_s)


def test_results_come_in_order_with_the_frame_before() -> None:
    """Steps that take their time at random still answer frame by frame, each with its predecessor."""
    delays = np.random.default_rng(0).random(40) / 100

    def step(frame: Any, previous: Any) -> tuple[int, int | None]:
        time.sleep(delays[frame.index])
        return frame.index, None if previous is None else previous.index

    source = Source(40)
    with frames_in_order(source, [step, step], 8, 6, patience()) as frames:
        found = [(sample.ordinal, sample.index, results) for sample, results in frames]
    pairs = [(index, index - 1 if index else None) for index in range(40)]
    assert found == [(index, index, [pairs[index]] * 2) for index in range(40)]
    assert [frame.holders for frame in source.frames] == [0] * 40


def test_no_more_than_the_window_is_in_flight() -> None:
    """Whoever doesn't take results stops the source: memory is bounded by the window."""
    source = Source(100)
    with frames_in_order(source, [index_of], 4, 2, patience()) as frames:
        results = iter(frames)
        next(results)
        time.sleep(0.2)
        assert source.given <= 4 + 2


def test_decoding_and_steps_overlap() -> None:
    """Four frames are at work at once while the source goes on."""
    together = threading.Barrier(4, timeout=PATIENCE_S)

    def step(frame: Any, previous: Any) -> None:
        together.wait()

    with frames_in_order(Source(24), [step], 8, 4, patience()) as frames:
        assert len(list(frames)) == 24


def test_samples_that_are_done_are_passed_over() -> None:
    """After a skip the numbering goes on, and the first frame that runs still has its predecessor."""
    before = []

    def step(frame: Any, previous: Any) -> None:
        before.append(previous.index)

    with frames_in_order(Source(6), [step], 2, 1, patience(), 4) as frames:
        assert [sample.ordinal for sample, _ in frames] == [4, 5]
    assert before == [3, 4]


def test_a_frame_s_error_stands_in_its_place() -> None:
    """One frame that fails is one error among the results; the others are not touched."""

    def step(frame: Any, previous: Any) -> int:
        if frame.index == 2:
            raise InferenceFailed("not this one")
        return int(frame.index)

    with frames_in_order(Source(4), [step], 2, 2, patience()) as frames:
        results = [row[0] for _, row in frames]
    assert results[:2] == [0, 1]
    assert isinstance(results[2], InferenceFailed)
    assert results[3] == 3


@pytest.mark.parametrize("error", [Overloaded("full"), TritonUnavailable("away")])
def test_a_backend_that_comes_back_is_waited_for(error: Exception) -> None:
    """A moment of overload or absence costs time, not a frame."""
    failures = [error] * 3

    def step(frame: Any, previous: Any) -> str:
        if failures:
            raise failures.pop()
        return "done"

    with frames_in_order(Source(1), [step], 2, 1, patience()) as frames:
        assert [row for _, row in frames] == [["done"]]


def test_patience_ends() -> None:
    """A backend that stays away is an error once the patience is over."""

    def step(frame: Any, previous: Any) -> None:
        raise TritonUnavailable("away")

    started = time.monotonic()
    with frames_in_order(Source(1), [step], 2, 1, patience(backend_s=0.3)) as frames:
        ((_, (result,)),) = list(frames)
    assert isinstance(result, TritonUnavailable)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_fault_of_the_source_reaches_who_iterates() -> None:
    """An unforeseen error of the decoder is not swallowed by its thread."""
    with (
        frames_in_order(Source(2, OSError("gone")), [index_of], 4, 1, patience()) as frames,
        pytest.raises(OSError, match="gone"),
    ):
        list(frames)


def test_closing_stops_everything_at_once() -> None:
    """Frames that wait are dropped, a step that waits for its backend gives up, and no thread stays."""
    before = threading.active_count()
    running = threading.Event()

    def step(frame: Any, previous: Any) -> None:
        running.set()
        raise TritonUnavailable("away")

    frames = FramesInOrder(Source(1000), [step], 8, 4, patience())
    assert running.wait(PATIENCE_S)
    started = time.monotonic()
    frames.close()
    frames.close()
    assert time.monotonic() - started < PATIENCE_S / 2
    assert list(frames) == []
    assert threading.active_count() == before


def test_the_deadline_of_a_frame_ends_with_the_video_s() -> None:
    """Closing cancels the deadline that steps pass to the engine, whatever time the frame itself has."""
    deadlines = []
    waiting = threading.Event()
    kept = patience()

    def step(frame: Any, previous: Any) -> None:
        deadlines.append(kept.frame_deadline())
        waiting.set()

    frames = FramesInOrder(Source(1), [step], 2, 1, kept)
    assert waiting.wait(PATIENCE_S)
    assert deadlines[0].remaining() > 1
    frames.close()
    assert deadlines[0].remaining() == 0
